// conv_basis, first half: a chunk's channels become maps, rows of kPixels numbers in shared memory, in the order that the entries state.
// Included by conv_basis.cu.
#pragma once

#include "conv_basis.h"
#include "device.h"

using Args = cosparse_conv_basis_args;

// How the taps of an output pixel are found. All but kGather: stride 1, output as large as the input, so that in the flat run of pixels
// every tap is a constant offset, and a copy of the run in shared memory serves all of them.
enum Source : int32_t {
  kEven,    // dilation 1, even width: pairs of pixels of all three rows start on words
  kOdd,     // dilation 1, odd width: those of the rows above and below start between words
  kQuads,   // dilation 1, width a multiple of 4: twos of pairs start on 8 bytes
  kApart,   // even dilation: all nine taps of a pair start on words
  kGather,  // everything else, straight from global memory
};

struct Geometry {
  Source source;
  int lead;  // numbers of the run before the block's first pixel, a multiple of 8; as many follow its last
};

struct Chunk {
  const int2* entries;  // in shared memory
  int channels;
  char* maps;
};

struct Copies {  // of a chunk's channels, one after the other
  const char* x;
  int row_bytes, lead;
};

template <int pixels> struct MapShape {
  static constexpr int kRowBytes = (pixels + 8) * 2;  // 16 bytes beyond a multiple of 128: eight consecutive rows lie in different banks
  static constexpr int kPairs = pixels >= 128 ? 2 : 1;   // that a lane owns, side by side
  static constexpr int kParts = pixels / (64 * kPairs);  // warps that share a channel's row
};

// Which rows and columns of taps each of a lane's pixels has inside its image: bits 6 i + (0..2 rows, 3..5 columns); none behind the last
// pixel.
template <int pairs> DEVICE uint32_t inside_bits(const Args& a, int first) {
  uint32_t bits = 0;
  const int plane = a.out_height * a.out_width, end = a.images * plane;
#pragma unroll
  for (int i = 0; i < 2 * pairs; ++i) {
    const int p = first + i, in_plane = p % plane;
    const int h = in_plane / a.out_width * a.stride_h - a.pad_top, w = in_plane % a.out_width * a.stride_w - a.pad_left;
    uint32_t one = 0;
    for (int t = 0; t < 3; ++t) {
      const int row = h + t * a.dilation_h, column = w + t * a.dilation_w;
      one |= (uint32_t)(row >= 0 && row < a.height) << t | (uint32_t)(column >= 0 && column < a.width) << (3 + t);
    }
    bits |= (p < end ? one : 0) << (6 * i);
  }
  return bits;
}

// Words of ones where bit `bit` of the pixels of pair j is set.
DEVICE uint32_t pair_mask(uint32_t bits, int j, int bit) {
  return (bits >> (12 * j + bit) & 1 ? 0xFFFFu : 0) | (bits >> (12 * j + 6 + bit) & 1 ? 0xFFFF0000u : 0);
}

// Three taps by the 3-point DCT without its scales, which are folded into the weights: (1,1,1), (1,0,-1), (1,-2,1).
template <class T> DEVICE void dct3(uint32_t a, uint32_t b, uint32_t c, uint32_t& even, uint32_t& odd, uint32_t& bend) {
  const uint32_t ends = add2<T>(a, c);
  even = add2<T>(ends, b), odd = sub2<T>(a, c), bend = minus_twice<T>(ends, b);
}

// Taps left of, at and right of a lane's pairs in one row; `at` is the first pixel's place in shared memory.
template <int source, int pairs>
DEVICE void load_taps(const char* at, bool between, int apart, uint32_t (&a)[pairs], uint32_t (&b)[pairs], uint32_t (&c)[pairs]) {
  if constexpr (source == kApart) {
#pragma unroll
    for (int j = 0; j < pairs; ++j) {
      const char* p = at + 4 * j;
      a[j] = *(const uint32_t*)(p - apart), b[j] = *(const uint32_t*)p, c[j] = *(const uint32_t*)(p + apart);
    }
  } else if (source == kOdd && between) {
    uint32_t w[pairs + 1];
#pragma unroll
    for (int j = 0; j <= pairs; ++j) w[j] = *(const uint32_t*)(at - 2 + 4 * j);
#pragma unroll
    for (int j = 0; j < pairs; ++j) a[j] = w[j], b[j] = middle(w[j], w[j + 1]), c[j] = w[j + 1];
  } else {
    uint32_t w[pairs + 2];
    if constexpr (source == kQuads && pairs == 2) {
      const uint2 two = *(const uint2*)at;
      w[0] = *(const uint32_t*)(at - 4), w[1] = two.x, w[2] = two.y, w[3] = *(const uint32_t*)(at + 8);
    } else {
#pragma unroll
      for (int j = 0; j < pairs + 2; ++j) w[j] = *(const uint32_t*)(at - 4 + 4 * j);
    }
#pragma unroll
    for (int j = 0; j < pairs; ++j) a[j] = middle(w[j], w[j + 1]), b[j] = w[j + 1], c[j] = middle(w[j + 1], w[j + 2]);
  }
}

template <int pairs> DEVICE void store_map(char* to, const uint32_t (&v)[pairs]) {
  if constexpr (pairs == 2) *(uint2*)to = make_uint2(v[0], v[1]);
  else *(uint32_t*)to = v[0];
}

// The vertical half, and the maps that some filter of the block wants; `h` is [row of taps][v][pair]. The branches are the same for a warp.
template <class T, int pairs, int row_bytes> DEVICE void store_wanted(const uint32_t (&h)[3][3][pairs], uint32_t wanted, char* to) {
#pragma unroll
  for (int v = 0; v < 3; ++v) {
    if (!(wanted & 0x49u << v)) continue;
    uint32_t out[3][pairs];
#pragma unroll
    for (int j = 0; j < pairs; ++j) dct3<T>(h[0][v][j], h[1][v][j], h[2][v][j], out[0][j], out[1][j], out[2][j]);
#pragma unroll
    for (int u = 0; u < 3; ++u)
      if (wanted >> (3 * u + v) & 1) store_map<pairs>(to, out[u]), to += row_bytes;
  }
}

// The maps of a chunk from the copies of its channels; `lane_at` is the lane's first pixel within the block.
template <class T, int source, int pixels, int warps>
DEVICE void basis_step(const Args& a, const Chunk& chunk, const Copies& copies, uint32_t bits, int warp, int lane_at) {
  using Shape = MapShape<pixels>;
  constexpr int pairs = Shape::kPairs;
  bits = not_before(bits), lane_at = not_before(lane_at);
  uint32_t top[pairs], low[pairs], left[pairs], right[pairs], there[pairs];
#pragma unroll
  for (int j = 0; j < pairs; ++j) {
    there[j] = pair_mask(bits, j, 1);  // in these geometries the middle tap is inside wherever there is a pixel
    top[j] = pair_mask(bits, j, 0), low[j] = pair_mask(bits, j, 2);
    left[j] = pair_mask(bits, j, 3), right[j] = pair_mask(bits, j, 5);
  }
  const int up = a.dilation_h * a.width * 2;
  const bool between = a.width & 1;
  const char* const x = copies.x + (copies.lead + lane_at) * 2;
  char* const maps = chunk.maps + lane_at * 2;
#pragma unroll 1
  for (int e = warp / Shape::kParts; e < chunk.channels; e += warps / Shape::kParts) {
    const int2 entry = chunk.entries[e];
    const char* at = x + e * copies.row_bytes;
    uint32_t h[3][3][pairs];
#pragma unroll
    for (int r = 0; r < 3; ++r) {
      uint32_t l[pairs], m[pairs], n[pairs];
      load_taps<source, pairs>(at + (r - 1) * up, between && r != 1, a.dilation_w * 2, l, m, n);
#pragma unroll
      for (int j = 0; j < pairs; ++j) {
        const uint32_t row = r == 0 ? top[j] : r == 1 ? there[j] : low[j];
        dct3<T>(l[j] & row & left[j], m[j] & row, n[j] & row & right[j], h[r][0][j], h[r][1][j], h[r][2][j]);
      }
    }
    store_wanted<T, pairs, Shape::kRowBytes>(h, entry.y & 511, maps + (int)((uint32_t)entry.y >> 16) * Shape::kRowBytes);
  }
}

// The same from global memory, a number at a time, for any window. `p` is the lane's first pixel. Pair after pair, to spare registers.
template <class T, int pixels, int warps>
DEVICE void basis_step_gathered(const Args& a, const Chunk& chunk, uint32_t bits, int warp, int lane_at, int p) {
  using Shape = MapShape<pixels>;
  const int plane = a.out_height * a.out_width;
#pragma unroll 1
  for (int j = 0; j < Shape::kPairs; ++j, bits >>= 12, p += 2) {
    int from[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int image = (p + i) / plane, in_plane = (p + i) % plane;
      const int h = in_plane / a.out_width * a.stride_h - a.pad_top, w = in_plane % a.out_width * a.stride_w - a.pad_left;
      from[i] = (image * a.height + h) * a.width + w;
    }
    char* const to = chunk.maps + (lane_at + 2 * j) * 2;
#pragma unroll 1
    for (int e = warp / Shape::kParts; e < chunk.channels; e += warps / Shape::kParts) {
      const int2 entry = chunk.entries[e];
      const uint16_t* x = (const uint16_t*)a.x + entry.x * a.x_stride;
      uint32_t h[3][3][1];
#pragma unroll
      for (int r = 0; r < 3; ++r) {
        uint32_t tap[3];
#pragma unroll
        for (int s = 0; s < 3; ++s) {
          const int offset = r * a.dilation_h * a.width + s * a.dilation_w;
          const auto number = [&](int i) -> uint32_t {
            const bool inside = bits >> (6 * i + r) & bits >> (6 * i + 3 + s) & 1;
            return inside ? read_only(x + from[i] + offset) : (uint16_t)0;
          };
          tap[s] = number(0) | number(1) << 16;
        }
        dct3<T>(tap[0], tap[1], tap[2], h[r][0][0], h[r][1][0], h[r][2][0]);
      }
      store_wanted<T, 1, Shape::kRowBytes>(h, entry.y & 511, to + (int)((uint32_t)entry.y >> 16) * Shape::kRowBytes);
    }
  }
}

// Asks for the runs of a chunk's channels. Numbers behind the last pixel come along, whatever they are: the masks keep them out.
template <int warps>
DEVICE void copy_channels(const Args& a, const int2* entries, int channels, int begin, int x_row, int warp, int lane, char* x) {
  for (int e = warp; e < channels; e += warps) {
    const uint16_t* from = (const uint16_t*)a.x + entries[e].x * a.x_stride;
    char* to = x + e * x_row;
#pragma unroll 1
    for (int i = lane; i < x_row / 16; i += 32) {
      const int q = begin + 8 * i;
      const bool inside = q >= 0 && q < a.x_stride;
      copy16(to + 16 * i, from + (inside ? q : 0), inside);
    }
  }
}
