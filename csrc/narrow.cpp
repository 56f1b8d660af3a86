#include "narrow.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <utility>

#include "kernels/kernel.h"

namespace cosparse {

namespace {

constexpr int kMostOfLane = 128;  // 255 * 128 < 2^15
constexpr uint32_t kNoBlock = UINT32_MAX;

struct NarrowRow {
  std::vector<uint32_t> slots;  // a block each, or kNoBlock: four of a step
  uint32_t doubles = 0;         // steps 2i and 2i + 1 for i < doubles are double steps; all others stand alone
};

// Blocks that are put in order together: their maps should lie near each other.
constexpr uint32_t kSearched = 256;

struct Lane {
  std::array<int16_t, 8> plus{}, minus{};  // of each filter
  std::array<uint32_t, 4> blocks{};
  size_t count = 0;
};

// Whether the lane has room for the block's weights as well.
bool fits(const Lane& lane, const Lane& block) {
  int16_t most = 0;
  for (int f = 0; f < 8; ++f) {
    most = std::max(most, (int16_t)(lane.plus[f] + block.plus[f]));
    most = std::max(most, (int16_t)(lane.minus[f] + block.minus[f]));
  }
  return most <= kMostOfLane;
}

void add(Lane& lane, const Lane& block) {
  for (int f = 0; f < 8; ++f) lane.plus[f] += block.plus[f], lane.minus[f] += block.minus[f];
  lane.blocks[lane.count++] = block.blocks[0];
}

Lane lane_of(const Blocks& blocks, uint32_t b) {
  Lane lane;
  for (int f = 0; f < blocks.r; ++f) {
    const int w = (int)blocks.values[(size_t)b * blocks.r + f];
    lane.plus[f] = (int16_t)std::max(w, 0), lane.minus[f] = (int16_t)std::max(-w, 0);
  }
  lane.blocks[0] = b, lane.count = 1;
  return lane;
}

int largest(const Blocks& blocks, uint32_t b) {
  float most = 0;
  for (int f = 0; f < blocks.r; ++f) most = std::max(most, std::fabs(blocks.values[(size_t)b * blocks.r + f]));
  return (int)most;
}

// Deals blocks out to lanes of `most`: the largest that is left begins a lane, and each time the largest that fits joins it, or nearly so:
// the more blocks did not fit, the more are passed over. A block that finds too few others is a lane with those that it found, or where
// `whole` goes to `rest`, alone.
std::vector<Lane> fill_lanes(const Blocks& blocks, const uint32_t* begin, const uint32_t* end, size_t most, bool whole,
                             std::vector<uint32_t>& rest) {
  std::vector<std::pair<int, uint32_t>> order;
  for (const uint32_t* b = begin; b != end; ++b) order.emplace_back(-largest(blocks, *b), *b);
  std::sort(order.begin(), order.end());
  std::vector<Lane> left, done;
  for (const auto& [size, b] : order) left.push_back(lane_of(blocks, b));
  std::vector<char> taken(left.size(), 0);
  for (size_t first = 0; first < left.size(); ++first) {
    if (taken[first]) continue;
    Lane lane = left[first];
    std::array<size_t, 4> which{first};
    for (size_t next = first + 1, misses = 0; next < left.size() && lane.count < most; next += 1 + misses / 16) {
      if (taken[next]) continue;
      if (fits(lane, left[next]))
        which[lane.count] = next, add(lane, left[next]);
      else
        ++misses;
    }
    if (whole && lane.count < most) {
      rest.push_back(lane.blocks[0]);
      continue;
    }
    for (size_t i = 0; i < lane.count; ++i) taken[which[i]] = 1;
    done.push_back(lane);
  }
  return done;
}

// Blocks begin..end-1.
NarrowRow narrow_row(const Blocks& blocks, uint32_t begin, uint32_t end) {
  NarrowRow row;
  std::vector<uint32_t> all(end - begin), rest;
  std::iota(all.begin(), all.end(), begin);
  const auto lanes = [&](const std::vector<uint32_t>& of, size_t most, bool whole) {
    std::vector<Lane> filled;
    for (size_t from = 0; from < of.size(); from += kSearched) {
      const std::vector<Lane> region =
          fill_lanes(blocks, &of[from], &of[from] + std::min<size_t>(kSearched, of.size() - from), most, whole, rest);
      filled.insert(filled.end(), region.begin(), region.end());
    }
    return filled;
  };
  std::vector<Lane> fours = lanes(all, 4, true);
  if (fours.size() % 2) rest.insert(rest.end(), fours.back().blocks.begin(), fours.back().blocks.end()), fours.pop_back();
  for (size_t i = 0; i < fours.size(); i += 2, ++row.doubles)
    for (const size_t half : {0, 2})
      for (const size_t lane : {i, i + 1}) row.slots.insert(row.slots.end(), {fours[lane].blocks[half], fours[lane].blocks[half + 1]});
  std::sort(rest.begin(), rest.end());
  for (const Lane& lane : lanes(rest, 2, false))
    row.slots.insert(row.slots.end(), {lane.blocks[0], lane.count > 1 ? lane.blocks[1] : kNoBlock});
  row.slots.resize((row.slots.size() + 3) / 4 * 4, kNoBlock);
  return row;
}

}  // namespace

void pack_narrow_steps(const Blocks& blocks, const std::vector<uint32_t>& number, Slab& slab, Weights& out) {
  const size_t rows = (size_t)out.block_rows(), chunks = out.chunks.size();
  out.bounds.assign((chunks + 1) * rows, 0);
  out.doubles.assign(chunks * rows, 0);
  std::vector<uint32_t> slots;  // of all rows
  for (size_t row = 0; row < rows; ++row) {
    uint32_t b = blocks.rows[row];
    for (size_t k = 0; k < chunks; ++k) {
      const uint32_t beyond = (uint32_t)(out.chunks[k].first_map + out.chunks[k].maps), begin = b;
      while (b < blocks.rows[row + 1] && number[blocks.columns[b]] < beyond) ++b;
      const NarrowRow part = narrow_row(blocks, begin, b);
      out.bounds[k * rows + row] = (uint32_t)(slots.size() / 4), out.doubles[k * rows + row] = part.doubles;
      slots.insert(slots.end(), part.slots.begin(), part.slots.end());
    }
    out.bounds[chunks * rows + row] = (uint32_t)(slots.size() / 4);
  }
  const size_t steps = slots.size() / 4, r = (size_t)blocks.r;
  out.values = slab.take<float>((int64_t)(steps * r));
  out.columns = slab.take<uint32_t>((int64_t)slots.size() + kMapsAhead);
  int8_t* value = reinterpret_cast<int8_t*>(out.values.get());
  for (size_t step = 0; step < steps; ++step) {
    const uint32_t* slot = &slots[step * 4];
    for (size_t f = 0; f < r; ++f)
      for (int i = 0; i < 4; ++i) *value++ = slot[i] == kNoBlock ? (int8_t)0 : (int8_t)blocks.values[slot[i] * r + f];
    for (int i = 0; i < 4; ++i)  // an empty slot multiplies any map by 0
      out.columns[step * 4 + i] = number[blocks.columns[slot[i] == kNoBlock ? slot[0] : slot[i]]] * (uint32_t)kLanes;
  }
  std::fill_n(out.columns.get() + slots.size(), kMapsAhead, 0);
  out.bytes = (int64_t)(steps * r + slots.size() + out.bounds.size() + out.doubles.size()) * 4;
}

}  // namespace cosparse
