// conv_stem: 7x7 convolution with stride 2 and 3x3 max pool with stride 2 in one kernel (contract: conv_stem.h and kernels/gpu/stem.py).
//
// A block has `rows` rows of the result of one image and 64 filters: it brings the rows of the image that these need to shared memory at
// once, with zeros around them, and several blocks to a multiprocessor hide each other's waiting. A warp goes down 14 columns of the
// result, two convolved rows at a time, 32 pixels each: with stride 2 a word holds two taps of one pixel, which is what the left
// operand takes, and the second row's words are the first's of two rows of taps further on. Convolved pixels are pooled in registers and
// never in any memory.
#include "conv_stem.h"
#include "launch.h"

namespace {

using StemArgs = cosparse_conv_stem_args;
using Channel = cosparse_stem_channel;

struct StemCall {
  StemArgs a;
  int strips, image_rows, pitch;  // blocks of an image; rows of it that a block needs; bytes from one to the next in shared memory
};

constexpr int kStemThreads = 128, kStemBlocks = 2, kStemHead = 16, kMargin = 32, kSlackBytes = 512;  // kMargin: zeros left of each row
constexpr int kPooled = COSPARSE_STEM_POOLED;

// The taps of a lane's four pixels in one row and in the next. `mask`: ones where a word has taps; the pixel left of a window shares a word
// with its first, and zero times NaN would be NaN.
DEVICE void load_taps(const char* row, int pitch, uint32_t mask, Left& taps) {
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    taps[j / 2][j % 2] = *(const uint32_t*)(row + 4 * j) & mask;
    taps[j / 2][2 + j % 2] = *(const uint32_t*)(row + pitch + 4 * j) & mask;
  }
}

// The same of the seventh, and `next` in the place of another.
DEVICE void load_last_taps(const char* row, uint32_t mask, uint32_t next, Left& taps) {
#pragma unroll
  for (int j = 0; j < 4; ++j) taps[j / 2][j % 2] = *(const uint32_t*)(row + 4 * j) & mask, taps[j / 2][2 + j % 2] = next;
}

template <class T> KERNEL(kStemThreads, kStemBlocks) conv_stem(const StemCall call) {
  const StemArgs& a = call.a;
  const int thread = thread_index(), lane = thread % 32, warp = thread / 32;
  const int strip = block_index() % call.strips, image = block_index() / call.strips;
  const int y0 = strip * a.rows, group = block_group();
  char* const head = shared_memory();
  Meeting* const full = (Meeting*)head;
  const Channel* const weights = (const Channel*)(head + kStemHead);
  char* const rows = (char*)(weights + a.channels);
  const int all_rows = a.channels * call.image_rows, top = 4 * y0 - 2 - a.pad_top;  // the first of the image's rows

  if (thread == 0) make_meeting(full, kCopyArrivals * (kStemThreads / 32)), meetings_made();
  for (int i = thread; i < all_rows; i += kStemThreads) {
    const int h = top + i % call.image_rows;
    const bool inside = h >= 0 && h < a.height;
    char* const row = rows + i * call.pitch;
    for (int byte = 0; byte < (inside ? kMargin : call.pitch); byte += 16) *(uint4*)(row + byte) = make_uint4(0, 0, 0, 0);
  }
  for (int byte = thread * 16; byte < kSlackBytes; byte += kStemThreads * 16)
    *(uint4*)(rows + all_rows * call.pitch + byte) = make_uint4(0, 0, 0, 0);
  sync_block();
  release_next();
  await_previous();
  // Each warp promises and asks for every fourth row, and the first for the weights.
  int mine = 0;
  for (int i = warp; i < all_rows; i += kStemThreads / 32) {
    const int h = top + i % call.image_rows;
    mine += h >= 0 && h < a.height;
  }
  if (lane == 0) promise(full, mine * a.width * 2 + (warp == 0 ? a.channels * (int)sizeof(Channel) : 0));
  sync_warp();
  if (thread == 0) copy_run((char*)weights, a.weights + (int64_t)group * a.channels, a.channels * (int)sizeof(Channel), full);
  for (int i = warp + lane * (kStemThreads / 32); i < all_rows; i += kStemThreads) {
    const int channel = i / call.image_rows, h = top + i % call.image_rows;
    if (h < 0 || h >= a.height) continue;
    const uint16_t* const from = (const uint16_t*)a.x + channel * a.x_stride + ((int64_t)image * a.height + h) * a.width;
    copy_run(rows + i * call.pitch + kMargin, from, a.width * 2, full);
  }
  asked(full);
  wait_for(full, 0);

  const int end = y0 + a.rows < a.out_height ? y0 + a.rows : a.out_height;
  const int filter = group * 64 + lane % 4 * 2, filters = a.filters - filter;
  const uint32_t floor = a.act == 1 ? 0 : T::kLowest, mask = lane % 4 ? ~0u : 0xFFFF0000u;
#pragma unroll 1
  for (int across = 0; across < a.out_width; across += kPooled * (kStemThreads / 32)) {  // the same for all warps, which multiply together
    const int first = across + warp * kPooled, pixel = 2 * first - 1 + lane / 4 * 4;
    const bool at_edge = first == 0 || 2 * (first + kPooled) >= a.conv_width;  // pixels that are none may be in windows
    const int x = first + lane / 4 * 2, there = lane < 28 && x < a.out_width ? filters : 0;
    const char* const at = rows + kMargin + (pixel - a.pad_words + lane % 4) * 4;
    uint32_t before[8][4];  // the odd row above: of two filters beside each other, pixel by pixel
#pragma unroll 1
    for (int y = y0 - 1; y < end; ++y) {
      PixelSums even, odd;
      const bool first_row = y < y0;  // whose even row a block above has
      const char* row = at + (4 * (y - y0) + 2) * call.pitch;
#pragma unroll 1
      for (int c = 0; c < a.channels; ++c, row += call.image_rows * call.pitch) {
        const uint32_t ones = c == 0 && lane % 4 == 0 ? T::kOnes : 0;
        Left taps[5], last;
        if (!first_row) load_taps(row, call.pitch, mask, taps[0]);
#pragma unroll
        for (int s = 1; s < 4; ++s) load_taps(row + 2 * s * call.pitch, call.pitch, mask, taps[s]);
        load_last_taps(row + 8 * call.pitch, mask, ones, taps[4]);
#pragma unroll
        for (int j = 0; j < 4; ++j) last[j / 2][j % 2] = taps[3][j / 2][j % 2], last[j / 2][2 + j % 2] = ones;
        open_products();
        if (first_row) {
#pragma unroll
          for (int s = 0; s < 4; ++s) multiply_pixels<T>(odd, taps[s + 1], weights[c].rows[s], s == 0 && c == 0);
        } else {
#pragma unroll
          for (int s = 0; s < 4; ++s) {
            multiply_pixels<T>(even, s < 3 ? taps[s] : last, weights[c].rows[s], s == 0 && c == 0);
            multiply_pixels<T>(odd, taps[s + 1], weights[c].rows[s], s == 0 && c == 0);
          }
        }
        close_products();
        finish_products();
      }
      uint32_t below[8][4];
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        const float* const two = &odd[i % 4 / 2][i / 4][i % 2 * 2];
        below[i / 4][i % 4] = rounded2<T>(two[0], two[1]);
      }
      if (2 * y + 1 >= a.conv_height || y < 0) {
#pragma unroll
        for (int i = 0; i < 32; ++i) below[i / 4][i % 4] = T::kLowest;
      }
      if (!first_row) {
        char* to = (char*)a.y + (filter * a.y_stride + ((int64_t)image * a.out_height + y) * a.out_width + x) * 2;
#pragma unroll
        for (int n = 0; n < 8; ++n, to += a.y_stride * 16) {
          uint32_t v[4];
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            const uint32_t middle = rounded2<T>(even[j / 2][n][j % 2 * 2], even[j / 2][n][j % 2 * 2 + 1]);
            v[j] = most2<T>(most2<T>(before[n][j], middle), below[n][j]);
          }
          if (at_edge) {
#pragma unroll
            for (int j = 0; j < 4; ++j) v[j] = pixel + j >= 0 && pixel + j < a.conv_width ? v[j] : T::kLowest;
          }
          const uint32_t next = of_lane_behind(v[0], 4);
          uint32_t pooled[2] = {most2<T>(most2<T>(v[0], v[1]), v[2]), most2<T>(most2<T>(v[2], v[3]), next)};
#pragma unroll
          for (int i = 0; i < 2; ++i) pooled[i] = a.act == 2 ? clipped<T>(pooled[i], a.alpha, a.beta) : most2<T>(pooled[i], floor);
          if (8 * n < there) *(uint32_t*)to = lows(pooled[0], pooled[1]);
          if (8 * n + 1 < there) *(uint32_t*)(to + a.y_stride * 2) = highs(pooled[0], pooled[1]);
        }
      }
#pragma unroll
      for (int i = 0; i < 32; ++i) before[i / 4][i % 4] = below[i / 4][i % 4];
    }
  }
}

int64_t stem_bytes(const StemCall& call) {
  const int64_t weights = (int64_t)call.a.channels * (int64_t)sizeof(Channel);
  return kStemHead + weights + (int64_t)call.a.channels * call.image_rows * call.pitch + kSlackBytes;
}

}  // namespace

extern "C" int cosparse_conv_stem(const struct cosparse_conv_stem_args* args, void* stream) {
  StemCall call{*args, 0, 0, 0};
  const StemArgs& a = call.a;
  if (a.dtype != COSPARSE_FLOAT16 && a.dtype != COSPARSE_BFLOAT16) return COSPARSE_BAD_DTYPE;
  if (!activation_known(a.act)) return COSPARSE_BAD_ACTIVATION;
  if (!aligned(a.x, a.x_stride) || (uintptr_t)a.y % 4 || a.y_stride % 2 || a.width % 8 || a.out_width % 2) return COSPARSE_BAD_ALIGNMENT;
  if (a.rows < 1 || a.pad_words < 0 || a.pad_words > 4) return COSPARSE_NO_VARIANT;
  call.strips = (a.out_height + a.rows - 1) / a.rows, call.image_rows = 4 * a.rows + 7, call.pitch = kMargin + a.width * 2;
  const int64_t blocks = (int64_t)a.images * call.strips;
  if (blocks == 0 || a.filters == 0) return 0;
  Machine m;
  if (int code = machine(&m)) return code;
  const int64_t bytes = stem_bytes(call);
  if (bytes > m.shared_of_block || blocks > INT32_MAX || a.x_stride > INT32_MAX || a.y_stride > INT32_MAX) return COSPARSE_TOO_LARGE;
  const auto kernel = a.dtype == COSPARSE_FLOAT16 ? conv_stem<Half> : conv_stem<BFloat>;
  return run(kernel, call, (int)blocks, (a.filters + 63) / 64, kStemThreads, bytes, stream);
}
