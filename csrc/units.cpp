#include "units.h"

#include <algorithm>

namespace cosparse {

namespace {

constexpr int kLeastRows = 4;  // of a share: fewer would not be worth its own maps

// One list, the same number of units for each thread.
std::vector<Unit> even(std::vector<std::vector<Unit>> own) {
  size_t longest = 0;
  for (const auto& units : own) longest = std::max(longest, units.size());
  std::vector<Unit> all;
  for (auto& units : own) {
    units.resize(longest, Unit{0, 0, 0, 0});
    all.insert(all.end(), units.begin(), units.end());
  }
  return all;
}

}  // namespace

std::vector<Unit> share_out(int64_t groups, int rows, int threads, const std::vector<int>& widths, Last last) {
  std::vector<std::vector<Unit>> own(threads);
  const int64_t whole = groups - (last != Last::whole);
  const auto give = [&](int thread, int64_t group, int t, int begin, int end) {
    own[thread].push_back({group, t, begin, end, last == Last::behind && group + t == whole});
  };
  const auto cut = [&](int64_t group, int t, int shares, int thread) {
    for (int s = 0; s < shares; ++s)
      give((thread + s) % threads, group, t, (int)((int64_t)rows * s / shares), (int)((int64_t)rows * (s + 1) / shares));
  };
  const int most = std::clamp(rows / kLeastRows, 1, threads);
  int64_t first = 0;
  for (const int t : widths) {
    const int64_t each = (whole - first) / ((int64_t)t * threads);
    for (int i = 0; i < threads; ++i)
      for (int64_t tile = 0; tile < each; ++tile) give(i, first + (i * each + tile) * t, t, 0, rows);
    first += each * t * threads;
  }
  const int64_t rest = whole - first;
  const int shares = rest ? std::min(most, (int)(threads / rest)) : 0;
  for (int thread = 0; first < whole; ++first, thread += shares) cut(first, 1, shares, thread);
  if (last == Last::few) cut(whole, 0, most, (int)(rest * shares));

  return even(std::move(own));
}

std::vector<Unit> share_rows(int64_t groups, int rows, int threads, const std::vector<int>& widths, Last last, int at_once) {
  const std::vector<Unit> tiles = share_out(groups, 1, 1, widths, last);
  std::vector<std::vector<Unit>> own(threads);
  for (int i = 0; i < threads; ++i) {
    const int begin = (int)((int64_t)rows * i / threads), end = (int)((int64_t)rows * (i + 1) / threads);
    for (int row = begin; row < end; row += at_once)
      for (const Unit& tile : tiles) own[i].push_back({tile.group, tile.t, row, std::min(end, row + at_once), tile.behind});
  }
  return even(std::move(own));
}

}  // namespace cosparse
