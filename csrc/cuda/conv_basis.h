// The C interface of the CUDA kernels: raw pointers and numbers, so that nothing here depends on torch or on Python.
//
// A call neither allocates nor waits, and may be captured into a CUDA graph. It answers 0, a cudaError_t, or one of the codes below.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum cosparse_dtype { COSPARSE_FLOAT16 = 0, COSPARSE_BFLOAT16 = 1 };

enum { COSPARSE_COUNTERS = 8192 };  // most tiles x sets of a call with slices

// Codes of our own lie above every cudaError_t.
enum cosparse_refusal {
  COSPARSE_NO_VARIANT = 100001,     // no kernel was compiled for these groups, pixels, wide, split
  COSPARSE_BAD_DTYPE = 100002,      // neither float16 nor bfloat16
  COSPARSE_BAD_ACTIVATION = 100003, // an activation that this kernel does not know
  COSPARSE_BAD_ALIGNMENT = 100004,  // rows that do not start on 16 bytes
  COSPARSE_TOO_LARGE = 100005,      // a plane of 2^31 numbers, or maps that exceed the shared memory of a multiprocessor
  COSPARSE_NO_WORKSPACE = 100006,   // slices without a workspace, or of too many tiles
};

// y[o,p] = act(bias[o] + residual[o,p] + sum over the columns k of o's group of S[o,k] xhat[k,p]); kernels/gpu/conv_basis.py packs it.
struct cosparse_conv_basis_args {
  const void* x;          // [channels][x_stride], pixel (n, h, w) at (n height + h) width + w
  const void* residual;   // [filters][residual_stride], pixels as in y; or null
  void* y;                // [filters][y_stride]
  const float* bias;      // [filters], or null
  const void* weights;    // [steps + split][4][32][8]: the fragments of 64 filters x 16 columns, lane by lane; read beyond the last step
  const uint16_t* rows;   // [steps + split][16]: in which row of the chunk's maps a column lies
  const int32_t* steps;   // [chunks x groups + 1]: the first step of each set, in it of each group, in it of each chunk
  const int32_t* chunks;  // [sets + 1]: the first chunk of each set of groups
  const int32_t* firsts;  // [chunks + 1]: the first entry of each chunk
  const int32_t* entries; // [used][2]: channel; wanted maps (9 bits, u 3 + v) | first row << 16. A channel's rows are ordered by v, then u
  void* workspace;        // where `slices` > 1: COSPARSE_COUNTERS int32, all 0 before and after a call, then
                          // [tiles][sets][slices][groups x pixels x 64] float32, anything. Not for two calls at a time
  int64_t x_stride, residual_stride, y_stride;  // in numbers
  int32_t images, height, width, out_height, out_width, filters;
  int32_t stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
  int32_t act;  // kernels/gpu/epilogue.py
  float alpha, beta;
  int32_t dtype;
  int32_t groups, pixels, wide, split;  // which kernel: groups and pixels of a block, pixels of a warp, warps that share a group's columns
  int32_t slices;  // blocks that share a tile's chunks
  int32_t sets, most_channels, most_rows;  // most_*: of any chunk
};

// Which form of this file, and of what is packed for it, a library was compiled from: COSPARSE_CUDA_INTERFACE, one more with each change.
enum { COSPARSE_CUDA_INTERFACE = 1 };
int cosparse_cuda_interface(void);

int cosparse_conv_basis(const struct cosparse_conv_basis_args* args, void* stream);

// What a code means, in English; never null.
const char* cosparse_cuda_error(int code);

// Whether the kernels in this library run on the CPU: 1 in the emulation that the tests build, else 0.
int cosparse_cuda_on_host(void);

#ifdef __cplusplus
}
#endif
