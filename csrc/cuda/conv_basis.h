// The C interface of the CUDA kernels: raw pointers and numbers, so that nothing here depends on torch or on Python.
//
// A call neither allocates nor waits, and may be captured into a CUDA graph. It answers 0, a cudaError_t, or one of the codes below.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum cosparse_dtype { COSPARSE_FLOAT16 = 0, COSPARSE_BFLOAT16 = 1 };

// Codes of our own lie above every cudaError_t.
enum cosparse_refusal {
  COSPARSE_NO_VARIANT = 100001,      // no kernel was compiled for these `across`, `split`, or stages of more than 64 visits
  COSPARSE_BAD_DTYPE = 100002,       // neither float16 nor bfloat16
  COSPARSE_BAD_ACTIVATION = 100003,  // an activation that this kernel does not know
  COSPARSE_BAD_ALIGNMENT = 100004,   // rows that do not start on 16 bytes
  COSPARSE_TOO_LARGE = 100005,  // a plane of 2^31 numbers, or rows so wide that three stages exceed the shared memory of a multiprocessor
};

// One step of a group: eight visits to channels, each for two maps, times their 16 columns of weights.
struct cosparse_basis_step {
  uint16_t weights[4][32][8];    // fragments of 64 filters x 16 columns, lane by lane; column 2 v + e is map e of visit v
  uint16_t vectors[8][2][4][2];  // of each map, each number twice: the middle tap and the last, across and then down; the first one is 1
};

// y[o,p] = act(bias[o] + residual[o,p] + sum over the columns k of o's group of S[o,k] xhat[k,p]); kernels/gpu/conv_basis.py packs it.
struct cosparse_conv_basis_args {
  const void* x;         // [channels][x_stride], pixel (n, h, w) at (n height + h) width + w
  const void* residual;  // [filters][residual_stride], pixels as in y; or null
  void* y;               // [filters][y_stride], as many pixels as x
  const float* bias;     // [filters], or null
  const struct cosparse_basis_step* steps;
  const int32_t* visits;                        // [steps][8]: the channels
  const int32_t* starts;                        // [groups + 1]: the first step of each group of 64 filters
  int64_t x_stride, residual_stride, y_stride;  // in numbers
  int32_t images, height, width, filters;
  int32_t act;  // kernels/gpu/epilogue.py
  float alpha, beta;
  int32_t dtype;
  int32_t across, split;  // which kernel: warps of a block that have 32 pixels each, and warps that share those pixels' steps
  int32_t per;            // steps of each warp in a stage
  int32_t backwards;      // not 0: the last pixels first
};

// Which form of these files, and of what is packed for them, a library was compiled from: COSPARSE_CUDA_INTERFACE, one more with each change.
enum { COSPARSE_CUDA_INTERFACE = 4 };
int cosparse_cuda_interface(void);

int cosparse_conv_basis(const struct cosparse_conv_basis_args* args, void* stream);

// What a code means, in English; never null.
const char* cosparse_cuda_error(int code);

// Whether the kernels in this library run on the CPU: 1 in the emulation that the tests build, else 0.
int cosparse_cuda_on_host(void);

#ifdef __cplusplus
}
#endif
