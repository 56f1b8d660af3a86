// conv_basis, the basis step: two maps of one channel, of a lane's four pixels, from a copy of the channel's run in shared memory to the
// registers of a matrix instruction's second operand. Included by conv_basis.cu.
//
// Pixels are counted along the run, so that the rows above and below are `width` away, and what lies beside an image's border is some other
// pixel: it is masked. Down before across, as then words are moved to their neighbours' places after three rows have become one.
#pragma once

#include "conv_basis.h"
#include "device.h"

using Args = cosparse_conv_basis_args;

struct Run {  // of a channel, in shared memory
  int lead;   // numbers before the block's first pixel and after its last, a multiple of 8
  int zeros;  // where kZeros bytes of zeros lie behind it, for lanes that have no row above or below; in bytes
  int bytes;  // from one run to the next; for conv_basis 32 more than a multiple of 128, so that four channels lie in different banks
};
constexpr int kZeros = 32;

// Division by a number that the launch knows, of numbers from 0 to 2^31 - 1: by a product, as there is no instruction for it.
struct Divisor {
  int by;
  uint32_t factor, shift;
};
inline Divisor divisor(int by) {
  uint32_t shift = 0;
  while ((int64_t{1} << shift) < by) ++shift;
  return {by, (uint32_t)((((uint64_t)1 << (31 + shift)) + by - 1) / by), shift};
}
DEVICE int quotient(int n, const Divisor& d) { return (int)(upper_product((uint32_t)n << 1, d.factor) >> d.shift); }

// How images are wide: a number from 0 to 3, what is left of the width divided by 4; or so that a warp's 32 pixels are whole rows of 4 or
// more.
constexpr int kWholeRows = 4;
template <int mod> constexpr bool kQuads = mod == 0 || mod == kWholeRows;  // a lane's four pixels are in one row

// What stays the same from channel to channel.
template <int mod> struct Lane {
  static constexpr int kMasks = kQuads<mod> ? 1 : mod == 2 ? 2 : 3;
  int above, at, below;                  // bytes behind the first visit's run: of the first pixel's tap in each row
  int above_edge, at_edge, below_edge;   // mod 0: of the word left of the warp's pixels, or in its last lanes of the one right of them
  uint32_t top[kMasks], bottom[kMasks];  // else: of words that lie like the taps of those rows
  uint32_t left[2], right[2];            // of the pixels 0, 1 and 2, 3, whose neighbours are in their image

  DEVICE Lane(const Divisor& width, const Divisor& height, const Run& run, int first, int in_block, int lane) {
    bool up[4], down[4], before[4], after[4];
    const int line = quotient(first, width);
    int w = first - line * width.by, h = line - quotient(line, height) * height.by;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      up[j] = h > 0, down[j] = h + 1 < height.by;
      before[j] = kQuads<mod> && j > 0 ? true : w > 0, after[j] = kQuads<mod> && j < 3 ? true : w + 1 < width.by;
      if (!kQuads<mod> && ++w == width.by) w = 0, h = h + 1 == height.by ? 0 : h + 1;
    }
    if (kQuads<mod>) after[3] = w + 4 < width.by;
    const int start = lane % 4 * run.bytes, row = width.by * 2, zeros = start + run.zeros + 8;
    at = start + (run.lead + in_block) * 2;
    above = !kQuads<mod> || up[0] ? at - row : zeros, below = !kQuads<mod> || down[0] ? at + row : zeros;
    if constexpr (mod == 0) {
      const int edge = lane < 28 ? -4 : 8, from = lane < 28 ? lane % 4 : lane;
      above_edge = of_lane(above, from) + edge, at_edge = of_lane(at, from) + edge, below_edge = of_lane(below, from) + edge;
    }
#pragma unroll
    for (int j = 0; j < 2; ++j) left[j] = mask(before[2 * j], before[2 * j + 1]), right[j] = mask(after[2 * j], after[2 * j + 1]);
    if constexpr (mod == 2) {
#pragma unroll
      for (int j = 0; j < 2; ++j) top[j] = mask(up[2 * j], up[2 * j]), bottom[j] = mask(down[2 * j], down[2 * j]);
    } else if constexpr (!kQuads<mod>) {
      top[0] = mask(up[0], up[0]), top[1] = mask(up[1], up[2]), top[2] = mask(up[3], up[3]);
      bottom[0] = mask(down[0], down[0]), bottom[1] = mask(down[1], down[2]), bottom[2] = mask(down[3], down[3]);
    }
  }
  static DEVICE uint32_t mask(bool low, bool high) { return (low ? 0xFFFFu : 0u) | (high ? 0xFFFF0000u : 0u); }
};

// Eight pixels from the last multiple of four before the pixel at `p`, which is `past` behind one.
template <int past> DEVICE void load_eight(const char* p, uint32_t (&w)[4]) {
  const uint2 a = *(const uint2*)(p - 2 * past), b = *(const uint2*)(p - 2 * past + 8);
  w[0] = a.x, w[1] = a.y, w[2] = b.x, w[3] = b.y;
}

// The same of the row that the pixel is in: -2 and -1, 0 and 1, 2 and 3, 4 and 5.
DEVICE void load_own(const char* p, uint32_t (&w)[4]) {
  const uint2 own = *(const uint2*)p;
  w[0] = *(const uint32_t*)(p - 4), w[1] = own.x, w[2] = own.y, w[3] = *(const uint32_t*)(p + 8);
}

// Pixels -1 and 0, 1 and 2, 3 and 4 of a row at an odd distance; `past` as in load_eight, 1 or 3.
template <int past> DEVICE void load_odd(const char* p, uint32_t (&w)[3]) {
  uint32_t eight[4];
  load_eight<past>(p, eight);
#pragma unroll
  for (int i = 0; i < 3; ++i) w[i] = eight[i + past / 2];
}

template <class T> DEVICE uint32_t down(const uint4& vector, uint32_t top, uint32_t middle, uint32_t bottom) {
  return fma2<T>(vector.z, middle, fma2<T>(vector.w, bottom, top));
}
template <class T> DEVICE uint32_t across(const uint4& vector, uint32_t left, uint32_t middle, uint32_t right) {
  return fma2<T>(vector.x, middle, fma2<T>(vector.y, right, left));
}

// The vertical half at the pixels -2 and -1, 0 and 1, 2 and 3, 4 and 5. Lanes beside each other have pixels beside each other, so that only
// the first and the last lanes of a warp load the words that are not their own.
template <class T, int mod>
DEVICE void down_quads(const Lane<mod>& lane, const char* x, int index, const uint4* vectors, uint32_t (&v)[2][4]) {
  const uint2 a = *(const uint2*)(x + lane.above), b = *(const uint2*)(x + lane.at), c = *(const uint2*)(x + lane.below);
  uint32_t a_edge = 0, b_edge = 0, c_edge = 0;
  if constexpr (mod != kWholeRows) {
    a_edge = *(const uint32_t*)(x + lane.above_edge), b_edge = *(const uint32_t*)(x + lane.at_edge);
    c_edge = *(const uint32_t*)(x + lane.below_edge);
  }
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    const uint32_t first = down<T>(vectors[e], a.x, b.x, c.x), second = down<T>(vectors[e], a.y, b.y, c.y);
    const uint32_t left = of_lane_before(second, 4), right = of_lane_behind(first, 4);
    v[e][0] = left, v[e][1] = first, v[e][2] = second, v[e][3] = right;
    if constexpr (mod != kWholeRows) {
      const uint32_t edge = down<T>(vectors[e], a_edge, b_edge, c_edge);
      v[e][0] = index < 4 ? edge : left, v[e][3] = index >= 28 ? edge : right;
    }
  }
}

// Map e of the visit, the lane's pixels 0 and 1, 2 and 3, to y[e]; `x` is the run of the step's visit 0 or 4, `vectors` those of the lane's
// visit.
template <class T, int mod>
DEVICE void basis_step(const Lane<mod>& lane, const char* x, int index, const uint4* vectors, uint32_t (&y)[2][2]) {
  const uint4 vector[2] = {vectors[0], vectors[1]};
  if constexpr (mod % 2 == 0) {
    uint32_t v[2][4];
    if constexpr (kQuads<mod>) {
      down_quads<T, mod>(lane, x, index, vector, v);
    } else {
      uint32_t a[4], b[4], c[4];
      load_own(x + lane.at, b);
      load_eight<2>(x + lane.above, a);
      load_eight<2>(x + lane.below, c);
#pragma unroll
      for (int i = 0; i < 4; ++i) a[i] &= lane.top[i / 2], c[i] &= lane.bottom[i / 2];
#pragma unroll
      for (int i = 0; i < 8; ++i) v[i / 4][i % 4] = down<T>(vector[i / 4], a[i % 4], b[i % 4], c[i % 4]);
    }
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const uint32_t between = middle(v[e][1], v[e][2]);
      const uint32_t after = kQuads<mod> ? between : between & lane.right[0], before = kQuads<mod> ? between : between & lane.left[1];
      y[e][0] = across<T>(vector[e], middle(v[e][0], v[e][1]) & lane.left[0], v[e][1], after);
      y[e][1] = across<T>(vector[e], before, v[e][2], middle(v[e][2], v[e][3]) & lane.right[1]);
    }
  } else {
    uint32_t own[4], a[3], c[3];
    load_own(x + lane.at, own);
    load_odd<4 - mod>(x + lane.above, a);
    load_odd<mod>(x + lane.below, c);
#pragma unroll
    for (int i = 0; i < 3; ++i) a[i] &= lane.top[i], c[i] &= lane.bottom[i];
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      uint32_t v[3];
#pragma unroll
      for (int i = 0; i < 3; ++i) v[i] = down<T>(vector[e], a[i], middle(own[i], own[i + 1]), c[i]);
      y[e][0] = across<T>(vector[e], v[0] & lane.left[0], middle(v[0], v[1]), v[1] & lane.right[0]);
      y[e][1] = across<T>(vector[e], v[1] & lane.left[1], middle(v[1], v[2]), v[2] & lane.right[1]);
    }
  }
}
