// conv_basis, second half: 64 filters of a group times the maps, and what follows the sums. Included by conv_basis.cu.
#pragma once

#include "conv_basis.h"
#include "device.h"

using Args = cosparse_conv_basis_args;

template <int wide> using Sums = float[4][wide / 8][4];  // [16 filters][8 pixels][fragment]

template <int wide, class F> DEVICE void for_each(Sums<wide>& sums, const F& f) {
#pragma unroll
  for (int m = 0; m < 4; ++m)
#pragma unroll
    for (int n = 0; n < wide / 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[m][n][i] = f(sums[m][n][i]);
}

// A group's product. Its steps, 16 columns each, follow each other from chunk to chunk, so that weights are under way before the maps are.
// Warps of a split take every `split`-th of them.
template <class T, int wide, int row_bytes, int split> struct Product {
  // Weights wait in registers from one chunk to the next where there are registers: not where 64 sums leave room for two blocks.
  static constexpr bool kKeep = wide == 64;
  Sums<wide> sums;
  uint4 w[4];  // of step `at`
  int at, row;

  DEVICE Product(const Args& a, int first, int part, int lane) : at(first + part) {
    for_each<wide>(sums, [](float) { return 0.f; });
    if (kKeep) ask(a, lane);
  }

  DEVICE void ask(const Args& a, int lane) {
#pragma unroll
    for (int m = 0; m < 4; ++m) w[m] = read_only((const uint4*)a.weights + lane + (int64_t)at * 128 + m * 32);
    row = read_only(a.rows + lane % 16 + (int64_t)at * 16);
  }

  // Adds the steps before `end`. A lane names the row of maps where its column lies, wherever that is: the gather costs nothing. `maps` is
  // the warp's first pixel in row 0.
  DEVICE void add_until(const Args& a, int end, Shared maps, int lane) {
    maps += lane / 16 * 16;
    sync_warp();
    if (!kKeep) ask(a, lane);
#pragma unroll 1
    while (at < end) {
      uint32_t b[wide / 8][2];
#pragma unroll
      for (int n = 0; n < wide / 16; ++n) load_matrices(b[2 * n], b[2 * n + 1], maps + row * row_bytes + n * 32);
      at += split;
      row = read_only(a.rows + lane % 16 + (int64_t)at * 16);
      const uint4* const weights = (const uint4*)a.weights + lane + (int64_t)at * 128;
      // The next step's weights take the place of those just used: they have a step's time to arrive, and no registers of their own.
#pragma unroll
      for (int m = 0; m < 4; ++m) {
        multiply_row<T, wide / 8>(sums[m], w[m], b);
        w[m] = read_only(weights + m * 32);
      }
    }
  }
};

// The warps of a split bring their sums together in the first of them; `memory` holds (split - 1) x `teams` warps' sums.
template <int wide, int split> DEVICE void add_splits(float* memory, int team, int teams, int part, int lane, Sums<wide>& sums) {
  if constexpr (split > 1) {
    constexpr int count = wide * 2;
    if (part > 0) {
      float* to = memory + ((part - 1) * teams + team) * count * 32 + lane;
#pragma unroll
      for (int i = 0; i < count; ++i) to[i * 32] = sums[i / (wide / 2)][i / 4 % (wide / 8)][i % 4];
    }
    sync_block();
    if (part == 0)
      for (int other = 0; other < split - 1; ++other) {
        const float* from = memory + (other * teams + team) * count * 32 + lane;
#pragma unroll
        for (int i = 0; i < count; ++i) sums[i / (wide / 2)][i / 4 % (wide / 8)][i % 4] += from[i * 32];
      }
    sync_block();
  }
}

inline bool activation_known(int act) { return (act >= 0 && act <= 3) || act == 5 || act == 6 || act == 10 || act == 11; }

// Blocks of one tile bring their sums together in the one that comes last, always in the same order; false for the others. `parts` is what
// the tile's blocks write, [slices][teams] warps' sums; `counter` counts them. Warps from `teams` on have no sums.
template <int wide, int teams>
DEVICE bool add_slices(const Args& a, float4* parts, int* counter, int* shared, int thread, Sums<wide>& sums) {
  constexpr int count = wide / 2;  // fours of a lane
  const int warp = thread / 32, lane = thread % 32;
  if (warp < teams) {
    float4* to = parts + (block_z() * teams + warp) * count * 32 + lane;
#pragma unroll
    for (int i = 0; i < count; ++i) {
      const float(&four)[4] = sums[i / (wide / 8)][i % (wide / 8)];
      to[i * 32] = make_float4(four[0], four[1], four[2], four[3]);
    }
  }
  fence();
  sync_block();
  if (thread == 0) *shared = count_up(counter);
  sync_block();
  const bool last = *shared == a.slices - 1;
  sync_block();
  if (!last) return false;
  fence();
  if (thread == 0) *counter = 0;
  if (warp < teams) {
    for_each<wide>(sums, [](float) { return 0.f; });
#pragma unroll 1
    for (int slice = 0; slice < a.slices; ++slice) {
      const float4* from = parts + (slice * teams + warp) * count * 32 + lane;
#pragma unroll
      for (int i = 0; i < count; ++i) {
        const float4 four = from[i * 32];
        float(&to)[4] = sums[i / (wide / 8)][i % (wide / 8)];
        to[0] += four.x, to[1] += four.y, to[2] += four.z, to[3] += four.w;
      }
    }
  }
  return true;
}

// Two families, so that few branches stand around the registers. Comparisons in these forms let NaN through.
struct Activation {
  float low, high, slope;
  bool gate, leaky, hard, times;
  DEVICE explicit Activation(const Args& a)
      : low(a.act == 2 ? a.alpha : a.act == 0 ? -INFINITY : 0.f), high(a.act == 2 ? a.beta : INFINITY), slope(a.alpha),
        gate(a.act > 4), leaky(a.act == 3), hard(a.act >= 10), times(a.act == 6 || a.act == 10) {}
  DEVICE float clipped(float z) const { return z < low ? (leaky ? slope * z : low) : z > high ? high : z; }
  DEVICE float gated(float z) const {
    const float g = hard ? (z < -3.f ? 0.f : z > 3.f ? 1.f : (z + 3.f) * (1.f / 6.f)) : quotient(1.f, 1.f + exponential(-z));
    return times ? z * g : g;
  }
};

// Rows of a warp's part of the result in shared memory, so that global memory is read and written 16 bytes at a time.
template <int wide> struct Stage {
  static constexpr int kRowBytes = (wide + 8) * 2;
  static constexpr int kBytes = 64 * kRowBytes;
};

// Bias, residual, activation, rounding, store. `filter` and `pixel` are the warp's first.
template <class T, int wide> DEVICE void finish(const Args& a, int filter, int pixel, char* stage, int lane, Sums<wide>& sums) {
  using S = Stage<wide>;
  constexpr int per_row = wide / 8;
  const int end = a.images * a.out_height * a.out_width;
  const int row0 = lane / per_row, p = pixel + lane % per_row * 8;
  char* const moved = stage + lane % per_row * 16;
  if (a.residual) {
    for (int row = row0; row < 64; row += 32 / per_row) {
      uint4 eight = make_uint4(0, 0, 0, 0);
      const uint16_t* from = (const uint16_t*)a.residual + (filter + row) * a.residual_stride + p;
      if (filter + row < a.filters && p < end) eight = read_only((const uint4*)from);
      *(uint4*)(moved + row * S::kRowBytes) = eight;
    }
    sync_warp();
  }
  char* const own = stage + lane / 4 * S::kRowBytes + lane % 4 * 4;
  const Activation act(a);
#pragma unroll
  for (int m = 0; m < 4; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = m * 16 + half * 8;
      const float bias = a.bias && filter + row + lane / 4 < a.filters ? read_only(a.bias + filter + row + lane / 4) : 0.f;
      float z[wide / 8][2];
#pragma unroll
      for (int n = 0; n < wide / 8; ++n) {
        float2 added = {0.f, 0.f};
        if (a.residual) added = floats<T>(*(const uint32_t*)(own + row * S::kRowBytes + n * 16));
        z[n][0] = sums[m][n][2 * half] + bias + added.x, z[n][1] = sums[m][n][2 * half + 1] + bias + added.y;
      }
      if (act.gate) {
#pragma unroll
        for (int n = 0; n < wide / 8; ++n) z[n][0] = act.gated(z[n][0]), z[n][1] = act.gated(z[n][1]);
      } else {
#pragma unroll
        for (int n = 0; n < wide / 8; ++n) z[n][0] = act.clipped(z[n][0]), z[n][1] = act.clipped(z[n][1]);
      }
#pragma unroll
      for (int n = 0; n < wide / 8; ++n) *(uint32_t*)(own + row * S::kRowBytes + n * 16) = rounded2<T>(z[n][0], z[n][1]);
    }
  sync_warp();
  for (int row = row0; row < 64; row += 32 / per_row)
    if (filter + row < a.filters && p < end)
      *(uint4*)((uint16_t*)a.y + (filter + row) * a.y_stride + p) = *(const uint4*)(moved + row * S::kRowBytes);
}
