// Weights of Winograd's tiles (kernels/winograd.h), made once at load.
#include <algorithm>
#include <cmath>

#include "blocks.h"
#include "weights.h"

namespace cosparse {

namespace {

constexpr int kTaps = 3, kSide = 6;  // taps and places of an axis

// FLOPs are what a mask leaves, however the layer then runs: kept coefficients and their basis step, at the most all taps.
void count(const Layer& l, Weights& out) {
  out.kept = l.dense();
  if (!l.block) return;
  int64_t kept = 0;
  std::vector<char> read(l.C, 0);
  for (int row = 0; row * l.r < l.O; ++row) {
    const uint32_t begin = l.rows->u32()[row], end = l.rows->u32()[row + 1];
    kept += (int64_t)(end - begin) * std::min(l.r, l.O - row * l.r);
    for (uint32_t b = begin; b < end; ++b) read[l.column(b) / l.taps()] = 1;
  }
  if (l.transformed() && !l.without_kernel()) {
    out.basis = Basis::dct3;
    for (int c = 0; c < l.C; ++c)
      if (read[c]) out.used.push_back({c, 0, 0, 0});
  }
  if (kept + out.basis_cost(1, 1) * (double)out.used.size() < (double)out.kept)
    out.kept = kept;
  else
    out.basis = Basis::taps, out.used.clear();
}

}  // namespace

// G w G^T for the points 0, 3/4, -3/4, 3/2, -3/2, infinity: row p of G is [1, p, p^2] over the product of p's distances from the other finite
// points (cosparse/kernels/winograd.py).
void pack_winograd(const Layer& l, Slab& slab, Weights& out) {
  constexpr double points[] = {0, 0.75, -0.75, 1.5, -1.5};
  double G[kSide][kTaps] = {};
  for (int p = 0; p < 5; ++p) {
    double distances = 1;
    for (int q = 0; q < 5; ++q)
      if (q != p) distances *= points[p] - points[q];
    for (int t = 0; t < kTaps; ++t) G[p][t] = std::pow(points[p], t) / distances;
  }
  G[kSide - 1][kTaps - 1] = 1;
  const int64_t rows = (l.O + kWinogradRows - 1) / kWinogradRows, place = rows * l.C * kWinogradRows;
  Slab passing(false);
  const Blocks blocks = tap_blocks(l, kWinogradRows, true, passing);
  out.values = slab.take<float>(kWinogradPlaces * place);
  for (int64_t at = 0; at < rows * l.C; ++at)  // a block row's channel
    for (int i = 0; i < kWinogradRows; ++i) {
      const float* taps = blocks.values.get() + at * l.taps() * kWinogradRows + i;
      double half[kSide][kTaps];
      for (int p = 0; p < kSide; ++p)
        for (int s = 0; s < kTaps; ++s) {
          half[p][s] = 0;
          for (int t = 0; t < kTaps; ++t) half[p][s] += G[p][t] * taps[(t * kTaps + s) * kWinogradRows];
        }
      for (int p = 0; p < kWinogradPlaces; ++p) {
        double sum = 0;
        for (int s = 0; s < kTaps; ++s) sum += half[p / kSide][s] * G[p % kSide][s];
        out.values[p * place + at * kWinogradRows + i] = (float)sum;
      }
    }
  count(l, out);
  out.bytes = kWinogradPlaces * place * (int64_t)sizeof(float);
}

}  // namespace cosparse
