// Contracts of the CPU kernels, and the row that each has in the one table (table.h) that selection, tests and benchmarks read.
//
// Activations are planar: value [N, C, H, W] is C planes of N*H*W floats, image after image, each plane rounded up to kLanes floats and
// 64-byte aligned. So a convolution runs over flat pixels, whatever the batch; what lies in a plane's rounding is never read as a pixel.
#pragma once
#include <cstdint>

#include "../isa.h"

namespace cosparse {

constexpr int kLanes = 16;    // plane granularity in floats; every vector width divides it
constexpr int kMapsAhead = 8;  // columns, where a step is one (or narrow), whose maps are asked for before they are multiplied
constexpr int kWideBits = 2, kWideGroups = 1 << kWideBits;  // Rows::row_bits of int8's wide rows (conv_wide.h), and their groups
constexpr int kMaxTaps = 64;  // kernel height and width, each
constexpr int kMaxDct = 11;   // the same where the basis step is a DCT; beyond it the plan transforms the weights back

enum class Basis : int { taps, dct3, dct };  // xhat = the taps themselves; 3x3 DCT by additions; any R x S DCT by matrices

enum class Act : int {
  none, relu, clip, leaky_relu, elu, sigmoid, silu, tanh, gelu, gelu_tanh, hardswish, hardsigmoid, softplus, mish, sqrt, abs, exp, log, pow
};

// How flat output pixels find their taps: tap (r, s) of output (oy, ox) is source (oy * stride_y + dy[r], ox * stride_x + dx[s]), 0 where
// the source has no such place. The source is the activation, or copies of its phases where that pays (Geometry): then strides are 1, and
// each tap looks into one of them.
struct Window {
  int64_t images;
  int ho, wo, hi, wi;  // output size; source size
  int rows, cols;      // kernel R, S
  int stride_y, stride_x;
  const int* dy;          // [R]
  const int* dx;          // [S]
  const int64_t* offset;  // [R*S] phase plane + dy*wi + dx, in floats from the channel's start
};

// What a convolution multiplies. Sums are float32 (int8: int32) in all of them, and values between layers are floats.
//   f32   as stored
//   bf16  weights and every convolution's input and output rounded to bfloat16 (nearest, ties to even)
//   int8  weights rounded to 8 bits with a scale a filter, inputs to 8 bits with a scale a tap (Quantization)
//   observe  f32 that records the range of each tap's maps, for int8's steps
enum class Number : int { f32, bf16, int8, observe };

// Channel c, group g (kLanes flat pixels) of a value lies at base + c * channel + g * group, in floats of memory. Planar values are floats,
// group = kLanes. Tiled ones, which 1x1 convolutions read without copying, are rows of kLanes numbers in the form that the product reads
// (KernelRow::floats), channel = a row; int8's stand for (number - zero) / inverse. Where a row is of 1 << row_bits groups side by side,
// `channel` is all of it, and `group` is from one such row to the next.
template <class F> struct Rows {
  F* base;
  int64_t channel, group;
  bool tiled;
  float inverse, zero;
  int row_bits = 0;
  F* at(int64_t c, int64_t g) const {
    return base + c * channel + (g >> row_bits) * group + (g & ((1 << row_bits) - 1)) * (channel >> row_bits);
  }
};

// xhat rows of one source channel: maps taps[begin..end) of that channel, in order; `begin` is also the number of its first map.
struct UsedChannel {
  int channel, begin, end;
  uint32_t wanted;  // 3x3: bit i, map i is used
};

// Channels whose maps are in the scratch together: used[begin..end), maps from `first_map`.
struct Chunk {
  int begin, end, first_map, maps;
};

// Where a convolution's maps come from.
//   planar  a basis step a tile, out of planes (of floats, or where x.tiled of rows of numbers, KernelRow::whole)
//   tiled   1x1 at stride 1: the source's own tiles, read in place (or copied, where the number stores maps in another form)
//   picked  1x1 at other strides: pixels picked out of the source's tiles, a tile at a time
//   maps    a basis step before the product, over all pixels; the source is then what it made, tiled
//   shifted copies of the source with their padding, in numbers that the product reads, rows of whole groups: taps read in place, each at
//           one offset from every pixel's place. Steps of several columns find them joined: a place of the copies is all of a step
enum class Source : int { planar, tiled, picked, maps, shifted };

// y[o, p] = act(bias[o] + sum_b values[b, o - r*row] * xhat[columns[b], p] + residual[o, p]); blocks of r filters.
struct ConvArgs {
  Window window;
  Source source;
  Rows<const float> x;
  float* maps;  // where the basis step before the product writes: [groups][all maps][KernelRow::floats]
  Basis basis;
  const UsedChannel* used;
  const uint16_t* taps;
  const float *basis_rows, *basis_cols;  // Basis::dct: orthonormal DCT matrices [R][R], [S][S]
  const Chunk* chunks;
  int chunk_count, most_maps;  // most_maps: of a chunk, the scratch's rows
  const uint32_t* bounds;      // [chunk_count + 1][bounds_step]: blocks of row i in chunk k are bounds[k][i] .. bounds[k + 1][i]
  int bounds_step;
  const uint32_t* doubles;     // KernelRow::narrow: [chunk_count][bounds_step] double steps (narrow.h), the first of a row's steps
  // B steps of KernelRow::columns columns; f32: of one.
  const uint32_t* columns;  // [B][columns] map number * kLanes, in numbers (reads_tiles: * KernelRow::floats, in floats; shifted: from the
                            // pixel, and where places hold joined columns [B] places); of one column or narrow: kMapsAhead more
  const void* values;       // [B][r][columns] float, bfloat16 or int8
  bool same_columns;        // tiles only: all block rows have the columns of the first; values [row pairs][steps][2][r][columns]
  const float* bias;        // [block rows * r]
  const float* scale;       // int8: [block rows * r], of the sums
  const float* inverse;     // int8: [taps], 1 / step of the quantized maps
  const float* zero;        // int8: [taps], the number that stands for 0
  float *low, *high;        // observe: [taps][kLanes]
  int filters;
  Rows<float> y;
  Rows<const float> residual;  // base nullptr: none
  Act act;
  float alpha, beta;
  bool bounded;  // int8, y.tiled: no sum makes a step of 2^31 or more, however far it is cut off then
  // KernelRow::whole, out of planes of numbers 0..255: [9], map = zero + (sum * factor + 2^14 >> 15).
  const int16_t* factor;
};
// One tile of t groups of kLanes flat output pixels from group `first`, block rows begin..end-1. scratch: conv_scratch() floats, 64-byte
// aligned.
using ConvKernel = void (*)(const ConvArgs&, int64_t first, int begin, int end, float* scratch);
// The basis step of one group before the product: maps of used[begin..end) into a.maps. Where the basis is dct3, every used channel has all
// nine. The same scratch.
using MapsKernel = ConvKernel;

// Depthwise convolution, output rows begin..end-1 of one plane: y[oy, ox] = act(bias + sum_rs weight[r, s] * x[oy * stride + r * dilation - pad,
// ..] + residual[oy, ox]), tap after tap; outside x counts as 0. x [h, w], weight [R, S], y and residual (nullptr: none) [ho, wo]; scratch:
// `scratch` floats, 64-byte aligned.
//
// A band of source rows is copied there, padding included, such that each tap of every pixel of the band lies at one offset from the pixel's
// own place, whatever the row: place oy * pitch + ox. So whole vectors run over the band, ends of rows included, and need no masks. With
// strides the rows and columns of each residue lie together, in a plane of their own.
struct DepthwiseArgs {
  int h, w, ho, wo;
  int kernel[2], stride[2], dilation[2], pad[2];  // vertical, horizontal; pad: above, left
  Act act;
  float alpha, beta;
  // The band.
  int rows, pitch;          // of the output; places from one row to the next
  int gap, row_planes;      // source rows from one copied row to the next; planes that these are dealt out to
  int64_t plane, scratch;   // floats of a plane, and of all
  const int64_t* offset;    // [R * S] of each tap
  struct Residue {          // of the columns that some tap reads, modulo the stride
    int64_t plane;          // offset of the first of its planes
    int start, first, last; // place k is column start + k * stride of the source, which has those of first..last-1
  };
  const Residue* residues;
  int residue_count;
};
using DepthwiseKernel = void (*)(const DepthwiseArgs&, const float* x, const float* weight, float bias, const float* residual, float* y,
                                 int begin, int end, float* scratch);

enum class Binary : int { add, sub, mul, div, maximum, minimum };
// Loops over n contiguous floats, any alignment; y may be an input. a_step, b_step: 1 for a row of floats, 0 for one float that is
// repeated.
struct SpanKernels {
  void (*binary)(Binary, const float* a, int a_step, const float* b, int b_step, float* y, int64_t n);
  void (*affine)(const float* x, float scale, float shift, float* y, int64_t n);
  void (*activation)(Act, float alpha, float beta, const float* x, float* y, int64_t n);
  float (*sum)(const float* x, int64_t n);
  // Across channels at kLanes pixels from x + first: y[c] = (x[c] - mean) / sqrt(var + eps) * scale[c] + shift[c], and softmax.
  void (*layer_norm)(const float* x, int64_t x_plane, int channels, const float* scale, const float* shift, float eps, float* y,
                     int64_t y_plane, int64_t first);
  void (*softmax)(const float* x, int64_t x_plane, int channels, float* y, int64_t y_plane, int64_t first);
};

// Convolution 3x3 at stride 1 by tiles of kWinogradTile x kWinogradTile output pixels (winograd.h): y[o, p] = act(bias[o] + sum + residual[o, p]).
// x is planar; outside the image counts as 0. A number that is none, or infinite, spreads over all pixels of its tile. A dilated layer is
// one that is not on each field of pixels whose rows and columns have the same residue.
constexpr int kWinogradTile = 4, kWinogradRows = 8;  // output pixels a side; filters a block row
constexpr int kWinogradPlaces = 36, kWinogradGroups = 4;  // products a tile and channel; groups of kLanes tiles at once, at the most
struct WinogradArgs {
  int64_t images;
  int hi, wi, ho, wo, top, left;  // source and output size, padding
  int dilation[2];                // vertical, horizontal: dilation[0] * dilation[1] fields of an image
  int down, along;                // tiles of a field
  Rows<const float> x;
  int channels, filters;
  const float* values;  // [kWinogradPlaces][block rows][channels][kWinogradRows]
  const float* bias;    // [block rows * kWinogradRows]
  Rows<float> y;
  Rows<const float> residual;  // base nullptr: none
  Act act;
  float alpha, beta;
};
// Groups first..first+groups-1 of kLanes tiles, block rows begin..end-1; scratch: winograd_scratch() floats, 64-byte aligned.
using WinogradKernel = void (*)(const WinogradArgs&, int64_t first, int groups, int begin, int end, float* scratch);
// Floats from one place to the next for so many channels or filters: not a power of two, whose lines share sets of the caches.
constexpr int64_t winograd_step(int64_t rows, int groups) { return (rows * groups + 1) * kLanes; }
constexpr int64_t winograd_scratch(int64_t channels, int64_t block_rows, int groups) {
  return kWinogradPlaces * (winograd_step(channels, groups) + winograd_step(block_rows * kWinogradRows, groups));
}

// Output rows begin..end-1 of one plane: y[oy, ox] = act(max, or factor[oy, ox] * sum, of x over the window). Outside x counts as minus
// infinity for max, as 0 for the sum. x [h, w], y [ho, wo]; scratch: pool_scratch() floats, 64-byte aligned.
struct PoolArgs {
  bool max;
  int h, w, ho, wo;
  int kernel[2], stride[2], dilation[2], pad[2];  // vertical, horizontal; pad: above, left
  const float* factor;                            // [ho * wo] and kLanes floats behind that may be read; sum only
  Act act;
  float alpha, beta;
};
using PoolKernel = void (*)(const PoolArgs&, const float* x, float* y, int begin, int end, float* scratch);

// The same, the larger of int8's steps: x and y are planes of the numbers that tiles hold (KernelRow::floats), no activation; scratch:
// pool_steps_scratch().
using PoolStepsKernel = PoolKernel;

// Output place i of an axis lies between source places low[i] and high[i] <= low[i] + 1: (1 - share[i]) x[low[i]] + share[i] x[high[i]].
// Neither low nor high decreases; kLanes entries behind the last may be read.
struct Interpolation {
  int in, out;
  const int *low, *high;
  const float* share;  // nullptr: nearest, x[low[i]] alone
  bool close;          // x[low[i]] .. x[high[i + lanes - 1]] fit a vector, for every i
};
// Output rows begin..end-1 of one plane. x [rows.in, columns.in], y [rows.out, columns.out]; scratch: upsample_scratch() floats, 64-byte
// aligned.
struct UpsampleArgs {
  Interpolation rows, columns;
};
using UpsampleKernel = void (*)(const UpsampleArgs&, const float* x, float* y, int begin, int end, float* scratch);

// One row of the table. A conv row has r filters x t groups of kLanes pixels; t = 0 marks the kernel that puts the r filters side by side and
// serves at most kLanePixels pixels. One of the pointers is set; `behind` beside `conv` alone.
struct KernelRow {
  const char *name, *op;
  Isa isa;
  Number number;
  int r, t, lanes, columns, floats;  // columns: of a step of the product; floats: of memory in a row of kLanes maps
  int least;                         // columns of a block row, on average, below which the set before this one has the faster kernel
  bool in_place;                     // a tiled source is read as it is
  ConvKernel conv;
  DepthwiseKernel depthwise;
  const SpanKernels* spans;
  PoolKernel pool = nullptr;
  UpsampleKernel upsample = nullptr;
  MapsKernel maps = nullptr;
  WinogradKernel winograd = nullptr;
  ConvKernel behind = nullptr;       // `conv` of a tile and of the last pixels, in the group behind it
  int pixels_behind = 0;             // that it takes, at the most
  bool narrow = false;               // products of two columns, or four, are added in 16 bits: narrow.h orders the columns
  bool whole = false;                // the 3x3 DCT may be in whole numbers, out of planes that hold a source's steps (basis_whole.h)
  PoolStepsKernel pool_steps = nullptr;
};
constexpr int kLanePixels = 4;
// So many it takes in less time than a tile of one group does. A pixel's columns are joined one by one, those of a group at once.
inline int few_pixels(const KernelRow& row) { return row.columns < kLanePixels ? kLanePixels / row.columns : 1; }
// Whether a step is a tile of matrix registers, r rows of 64 bytes.
inline bool reads_tiles(const KernelRow& row) { return row.columns >= 32; }

// What finding the taps of t groups of pixels takes, in floats: masks, and pieces, at most one for each lane (taps.h); of a 1x1
// layer the pieces with their lanes (picks.h).
constexpr int kPieceBytes = 16, kPickBytes = 128;
constexpr int64_t taps_floats(int taps, int t) {
  const int64_t pieces = taps == 1 ? kPickBytes : (int64_t)taps * kPieceBytes;
  return t * ((taps + 1) * (int64_t)kLanes + pieces * kLanes / (int64_t)sizeof(float));
}

// Scratch floats of a conv tile: its taps, and the maps with a row to spare. Kernels that read tiles (conv_amx.h) keep half as much for the
// maps, and the joined columns and sums of a group in kJoined floats and the other half.
constexpr int kJoined = 1536;
constexpr int64_t conv_scratch(int maps, int taps, int t) {
  return taps_floats(taps, t ? t : 1) + ((int64_t)(maps + 1) * kLanes + kJoined) * (t ? t : 1) + 64;
}

constexpr int64_t whole_vectors(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

// A pool's scratch: a block of rows, each a combined source row between its margins and what the last vectors read behind it. The left
// margin is whole vectors, so that the row itself is aligned.
inline int64_t pool_margin(const PoolArgs& a) { return whole_vectors(a.pad[1]); }
// Floats that the windows of a row span, padding included.
inline int pool_used(const PoolArgs& a) { return (a.wo - 1) * a.stride[1] + (a.kernel[1] - 1) * a.dilation[1] + 1; }
inline int64_t pool_pitch(const PoolArgs& a) {
  const int64_t read = pool_used(a) + (a.stride[1] <= 2 ? 2 * kLanes * a.stride[1] : 0);
  return pool_margin(a) + whole_vectors(read > a.w ? read : a.w);
}
inline int pool_block(const PoolArgs& a) { return pool_pitch(a) < 512 ? (int)(2048 / pool_pitch(a)) : 4; }
inline int64_t pool_scratch(const PoolArgs& a) { return pool_block(a) * pool_pitch(a); }

// The same of steps, in numbers of 16 bits or less, of which a vector has 64 at the most and the last one of a stride reads two.
inline int64_t pool_steps_pitch(const PoolArgs& a) { return a.pad[1] + (pool_used(a) > a.w ? pool_used(a) : a.w) + 4 * 64; }
inline int pool_steps_block(const PoolArgs& a) { return pool_steps_pitch(a) < 4096 ? (int)(16384 / pool_steps_pitch(a)) : 4; }
inline int64_t pool_steps_scratch(const PoolArgs& a) { return whole_vectors(pool_steps_block(a) * pool_steps_pitch(a) / 2 + 1); }

// Two source rows, stretched to the output's width.
inline int64_t upsample_scratch(const UpsampleArgs& a) { return 2 * (whole_vectors(a.columns.out) + kLanes); }

}  // namespace cosparse
