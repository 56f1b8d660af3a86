// The C interface of conv_stem: a 7x7 convolution with stride 2 and the 3x3 max pool with stride 2 behind it; kernels/gpu/stem.py packs for
// it.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { COSPARSE_STEM_KERNEL = 7, COSPARSE_STEM_POOLED = 14 };  // rows of taps; columns of the result that a warp makes

// The taps of 64 filters in one channel, rows of eight of which some are zeros, two rows after the other; what stands for row 7 are zeros
// but in channel 0, whose row 7 begins with each filter's bias in two parts, rounded and the rest.
struct cosparse_stem_channel {
  uint16_t rows[4][8][2][8][8];  // [of two rows][of 8 filters][row][filter][tap]
};

// y[o,p] = act(max over the pool's window of (bias[o] + sum over c,i,j of W[o,c,i,j] x[c, taps])), taps outside the image zero, convolved
// pixels outside theirs left out; act rises, so that it may follow the pool.
struct cosparse_conv_stem_args {
  const void* x;                                // [channels][x_stride], pixel (n, h, w) at (n height + h) width + w; width a multiple of 8
  void* y;                                      // [filters][y_stride]
  const struct cosparse_stem_channel* weights;  // [groups of 64 filters][channels]
  int64_t x_stride, y_stride;                   // in numbers
  int32_t images, channels, height, width, conv_height, conv_width, out_height, out_width, filters;
  int32_t pad_top, pad_words;  // rows above an image; words of two numbers left of it, of which `pad_words` x 2 - pad taps are zeros
  int32_t act;                 // kernels/gpu/epilogue.py
  float alpha, beta;
  int32_t dtype;
  int32_t rows;  // of the result that a block makes
};

int cosparse_conv_stem(const struct cosparse_conv_stem_args* args, void* stream);

#ifdef __cplusplus
}
#endif
