// 3x3 convolutions, around the steps: bias, residual, activation, rounding, store. Included by conv_basis.cu and conv_shared.cu.
#pragma once

#include "conv_basis.h"
#include "device.h"

// [16 filters][8 columns of mma][fragment]. A lane's numbers 0, 1 of all tiles are filter lane / 4, 2, 3 filter lane / 4 + 8. In conv_basis
// column c of tile n is pixel 4 c + n, so that a lane has eight pixels beside each other: 8 (lane % 4) + 4 (number % 2) + n.
using Sums = float[4][4][4];

template <class F> DEVICE void for_each(Sums& sums, const F& f) {
#pragma unroll
  for (int i = 0; i < 64; ++i) f(sums[i / 16][i / 4 % 4][i % 4], i);
}

// The sums start with the bias, of the warps that have all pixels' first part.
template <class Call> DEVICE void begin(const Call& a, int filter, int lane, bool first, Sums& sums) {
#pragma unroll
  for (int m = 0; m < 8; ++m) {
    const int o = filter + m * 8 + lane / 4;
    const float bias = first && a.bias && o < a.filters ? read_only(a.bias + o) : 0.f;
#pragma unroll
    for (int n = 0; n < 4; ++n) sums[m / 2][n][m % 2 * 2] = sums[m / 2][n][m % 2 * 2 + 1] = bias;
  }
}

// The warps that share pixels bring their sums together in the first of them; `memory` holds those of the others, `teams` side by side.
template <int split> DEVICE void add_splits(float* memory, int team, int teams, int part, int lane, Sums& sums) {
  if constexpr (split > 1) {
    sync_block();
    if (part > 0) {
      float* const to = memory + ((part - 1) * teams + team) * 64 * 32 + lane;
      for_each(sums, [&](float& sum, int i) { to[i * 32] = sum; });
    }
    sync_block();
    if (part == 0)
      for (int other = 0; other < split - 1; ++other) {
        const float* const from = memory + (other * teams + team) * 64 * 32 + lane;
        for_each(sums, [&](float& sum, int i) { sum += from[i * 32]; });
      }
  }
}

// The last steps of a lane's filters `filter` + 8 m + lane / 4 and its eight pixels beside each other from `pixel` + 8 (lane % 4) on, of which
// `eight(m, numbers)` tells the sums; the whole warp asks.
template <class T, class Call, class Eight> DEVICE void finish(const Call& a, int filter, int pixel, int lane, const Eight& eight) {
  const int p = pixel + lane % 4 * 8, o = filter + lane / 4;
  // What lies behind the last pixel, up to the next eight, may be written.
  const int rows = p < a.images * a.height * a.width ? (a.filters - o + 7) / 8 : 0;
  const char* from = (const char*)a.residual + (o * a.residual_stride + p) * 2;
  char* to = (char*)a.y + (o * a.y_stride + p) * 2;
  const uint32_t floor = a.act == 1 ? 0 : T::kLowest;
  uint4 added = make_uint4(0, 0, 0, 0), next = added;  // loaded before the store ahead, which may be to the same memory
  if (a.residual && rows > 0) next = *(const uint4*)from;
#pragma unroll
  for (int m = 0; m < 8; ++m, from += a.residual_stride * 16, to += a.y_stride * 16) {
    float sums[8];
    eight(m, sums);
    if (m >= rows) continue;
    if (a.residual) {
      added = next;
      if (m + 1 < rows) next = *(const uint4*)(from + a.residual_stride * 16);
      const uint32_t words[4] = {added.x, added.y, added.z, added.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float2 two = floats<T>(words[i]);
        sums[2 * i] += two.x, sums[2 * i + 1] += two.y;
      }
    }
    uint32_t out[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (a.act == 2)
        for (int j = 2 * i; j < 2 * i + 2; ++j) sums[j] = least(most(sums[j], a.alpha), a.beta);
      out[i] = most2<T>(rounded2<T>(sums[2 * i], sums[2 * i + 1]), floor);
    }
    *(uint4*)to = make_uint4(out[0], out[1], out[2], out[3]);
  }
}

// The same of sums whose columns are pixels as conv_basis lays them.
template <class T, class Call> DEVICE void finish(const Call& a, int filter, int pixel, int lane, const Sums& sums) {
  finish<T>(a, filter, pixel, lane, [&](int m, float (&eight)[8]) {
#pragma unroll
    for (int p = 0; p < 8; ++p) eight[p] = sums[m / 2][p % 4][m % 2 * 2 + p / 4];
  });
}
