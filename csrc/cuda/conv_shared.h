// The C interface of conv_shared: 3x3 convolutions whose weights are sparse in the DCT of their taps, with maps that several groups of
// filters share; kernels/gpu/conv_shared.py packs for it.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// A channel and which of its maps are made: bit 3 u + v of `mask`; they lie in slots beside each other, in this order, from `slot` on.
struct cosparse_shared_visit {
  int32_t channel;
  uint16_t slot, mask;
};

// y[o,p] = act(bias[o] + residual[o,p] + sum over the columns k of o's group of S[o,k] xhat[k,p]). Channels come in chunks of `visits`, and
// the columns of a chunk in steps of sixteen for each group, as many for all groups of a team.
struct cosparse_conv_shared_args {
  const void* x;          // [channels][x_stride], pixel (n, h, w) at (n height + h) width + w
  const void* residual;   // [filters][residual_stride], pixels as in y; or null
  void* y;                // [filters][y_stride], as many pixels as x
  const float* bias;      // [filters], or null
  const void* weights;    // [steps][groups][8 of 8 filters][2 of 8 columns][filter][column]
  const uint16_t* slots;  // [steps][groups][16]: where a step's maps lie; `slots_of_chunk` names one of zeros
  const struct cosparse_shared_visit* channel_list;  // [teams][chunks][visits]
  const int32_t* starts;                             // [teams][chunks + 1]: the first step of each chunk, and the end
  int64_t x_stride, residual_stride, y_stride;       // in numbers
  int32_t images, height, width, filters;
  int32_t act;  // kernels/gpu/epilogue.py
  float alpha, beta;
  int32_t dtype;
  int32_t groups;  // of 64 filters, that share maps: a team of 1, 2 or 4
  int32_t chunks, visits, slots_of_chunk, steps_of_chunk;  // the last two: the most of any chunk
  int32_t backwards;                                       // not 0: the last pixels first
};

int cosparse_conv_shared(const struct cosparse_conv_shared_args* args, void* stream);

#ifdef __cplusplus
}
#endif
