// conv_shared, the basis step: those of a channel's nine maps that some filter wants, of a lane's four pixels, from a copy of the channel's
// run in shared memory to slots there. Included by conv_shared.cu.
//
// Pixels are counted along the run, so that the rows above and below are `width` away, and what lies beside an image's border is some other
// pixel: it is masked. Down before across, as then words are moved to their neighbours' places after three rows have become one.
#pragma once

#include "basis_step.h"

// Which neighbours of a lane's four pixels are in their image: a flag, the highest bit, in a byte for each pixel. The same from channel to
// channel.
struct alignas(16) Spot {
  uint32_t up, down, before, after;

  // `first` is the first of the warp's 128 pixels.
  DEVICE Spot(const Divisor& width, const Divisor& height, int first, int lane) : up(0), down(0), before(0), after(0) {
    const int pixel = first + lane * 4, line = quotient(pixel, width);
    int w = pixel - line * width.by, h = line - quotient(line, height) * height.by;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const uint32_t flag = 0x80u << 8 * j;
      up |= h > 0 ? flag : 0, down |= h + 1 < height.by ? flag : 0;
      before |= w > 0 ? flag : 0, after |= w + 1 < width.by ? flag : 0;
      if (++w == width.by) w = 0, h = h + 1 == height.by ? 0 : h + 1;
    }
  }
};

// How many words of a row a lane loads: of four pixels and what lies beside them.
template <int mod> constexpr int kRowWords = mod == kWholeRows ? 2 : mod == 2 ? 4 : 3;

// Rows `a`, `b`, `c` above, at and below the lane's pixels, the first of which is at `at`, what is outside the image zero, as are the eight
// bytes at `zeros`; kQuads: the lane's own two words, then the word left of the warp's pixels, or in its last lane the one right of them.
template <int mod, int words> DEVICE void load_rows(const Spot& spot, const char* zeros, int row, const char* at, int lane,
                                                    uint32_t (&a)[words], uint32_t (&b)[words], uint32_t (&c)[words]) {
  if constexpr (kQuads<mod>) {
    const char *const above = spot.up & 0x80 ? at - row : zeros, *const below = spot.down & 0x80 ? at + row : zeros;
    const uint2 first = *(const uint2*)above, own = *(const uint2*)at, last = *(const uint2*)below;
    a[0] = first.x, a[1] = first.y, b[0] = own.x, b[1] = own.y, c[0] = last.x, c[1] = last.y;
    if constexpr (mod == 0) {
      // Of the lane that has the pixels beside it; all lanes but the last read the same word.
      const int from = lane < 31 ? 0 : 31, edge = lane < 31 ? -4 : 8;
      const char* const beside = at + (from - lane) * 8 + edge;
      a[2] = of_lane(spot.up, from) & 0x80 ? *(const uint32_t*)(beside - row) : 0;
      b[2] = *(const uint32_t*)beside;
      c[2] = of_lane(spot.down, from) & 0x80 ? *(const uint32_t*)(beside + row) : 0;
    }
  } else if constexpr (mod == 2) {
    load_own(at, b);
    load_eight<2>(at - row, a);
    load_eight<2>(at + row, c);
#pragma unroll
    for (int i = 0; i < 4; ++i)
      a[i] &= i < 2 ? mask_of<0, 0>(spot.up) : mask_of<2, 2>(spot.up), c[i] &= i < 2 ? mask_of<0, 0>(spot.down) : mask_of<2, 2>(spot.down);
  } else {
    uint32_t own[4];
    load_own(at, own);
    load_odd<4 - mod>(at - row, a);
    load_odd<mod>(at + row, c);
#pragma unroll
    for (int i = 0; i < 3; ++i) b[i] = middle(own[i], own[i + 1]);
    a[0] &= mask_of<0, 0>(spot.up), a[1] &= mask_of<1, 2>(spot.up), a[2] &= mask_of<3, 3>(spot.up);
    c[0] &= mask_of<0, 0>(spot.down), c[1] &= mask_of<1, 2>(spot.down), c[2] &= mask_of<3, 3>(spot.down);
  }
}

// Of a row that the vertical half made, the words left of the lane's pixels 0 1 and 2 3, at them and right of them.
template <int mod, int words>
DEVICE void beside(const Spot& spot, const uint32_t (&v)[words], int lane, uint32_t (&l)[2], uint32_t (&m)[2], uint32_t (&r)[2]) {
  const uint32_t left[2] = {mask_of<0, 1>(spot.before), mask_of<2, 3>(spot.before)};
  const uint32_t right[2] = {mask_of<0, 1>(spot.after), mask_of<2, 3>(spot.after)};
  if constexpr (mod % 2 == 0) {
    uint32_t before, behind;
    if constexpr (kQuads<mod>) {
      m[0] = v[0], m[1] = v[1];
      before = of_lane_before(m[1], 1), behind = of_lane_behind(m[0], 1);
      if constexpr (mod == 0) before = lane == 0 ? v[2] : before, behind = lane == 31 ? v[2] : behind;
    } else {
      before = v[0], m[0] = v[1], m[1] = v[2], behind = v[3];
    }
    const uint32_t between = middle(m[0], m[1]);
    l[0] = middle(before, m[0]) & left[0], l[1] = kQuads<mod> ? between : between & left[1];
    r[0] = kQuads<mod> ? between : between & right[0], r[1] = middle(m[1], behind) & right[1];
  } else {
    l[0] = v[0] & left[0], l[1] = v[1] & left[1];
    m[0] = middle(v[0], v[1]), m[1] = middle(v[1], v[2]);
    r[0] = v[1] & right[0], r[1] = v[2] & right[1];
  }
}

// The maps that `mask` names of a channel, of whose run the lane's four pixels are at `x`, rows of images `row` bytes apart, to slots from `to`
// on, `stride` bytes apart. The whole warp asks for the same maps. All nine are made and those wanted are stored: branches cost more.
template <class T, int mod>
DEVICE void make_maps(const Spot& spot, const char* zeros, int row, const char* x, int mask, int lane, char* to, int stride) {
  constexpr int words = kRowWords<mod>;
  uint32_t a[words], b[words], c[words], s[words];
  load_rows<mod>(spot, zeros, row, x, lane, a, b, c);
#pragma unroll
  for (int i = 0; i < words; ++i) s[i] = add2<T>(a[i], c[i]);
  const auto store = [&](int bit, uint32_t first, uint32_t second) {
    if (mask & 1 << bit) *(uint2*)to = make_uint2(first, second), to += stride;
  };
#pragma unroll
  for (int u = 0; u < 3; ++u) {
    uint32_t v[words], l[2], m[2], r[2], sum[2];
#pragma unroll
    for (int i = 0; i < words; ++i)
      v[i] = u == 0 ? add2<T>(s[i], b[i]) : u == 1 ? subtract2<T>(a[i], c[i]) : fma2<T>(b[i], T::kMinusTwos, s[i]);
    beside<mod>(spot, v, lane, l, m, r);
#pragma unroll
    for (int j = 0; j < 2; ++j) sum[j] = add2<T>(l[j], r[j]);
    store(3 * u, add2<T>(sum[0], m[0]), add2<T>(sum[1], m[1]));
    store(3 * u + 1, subtract2<T>(l[0], r[0]), subtract2<T>(l[1], r[1]));
    store(3 * u + 2, fma2<T>(m[0], T::kMinusTwos, sum[0]), fma2<T>(m[1], T::kMinusTwos, sum[1]));
  }
}
