#include "window_geometry.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "bf16.h"
#include "kernels/table.h"
#include "memory.h"

namespace cosparse {

namespace {

constexpr int kFewTaps = 9, kFewChannels = 8;
constexpr int kSmallCopies = 16 * 1024;  // floats of a channel

int floor_div(int a, int b) { return a / b - (a % b < 0); }

// Whether copies with the padding are of about the source's size (a kernel may be dilated far beyond it), and 32 bits count their numbers.
bool padding_is_small(const Node& node, const Shape& in, const Shape& out) {
  const auto side = [&](int i, int64_t size) {
    const double stride = (double)node.list("stride")[i];
    return ((double)size + 1) * stride + (double)(node.list("kernel")[i] - 1) * (double)node.list("dilation")[i];
  };
  const double floats = (double)in.n * side(0, out.h) * side(1, out.w);
  return floats <= std::max(4.0 * in.n * in.h * in.w, (double)kSmallCopies) && floats * in.c <= INT32_MAX;
}

// Whether the product may read a row of maps from any number on: not by matrix registers, and in int8 only where it has instructions of its
// own and all taps of a pixel have the same steps.
bool read_anywhere(const Weights& w) {
  const auto alike = [](const std::vector<float>& of_taps) {
    return std::all_of(of_taps.begin(), of_taps.end(), [&](float tap) { return tap == of_taps[0]; });
  };
  if (w.number == Number::observe || reads_tiles(*conv_kernels(w.isa, w.number, w.r)[0])) return false;
  return w.number != Number::int8 || (w.floats < kLanes && alike(w.inverse) && alike(w.zero));
}

// How many columns of a step a place of the copies holds. In bfloat16 one: what a step does not need would be multiplied by 0, and 0 times infinity
// is no number.
int numbers_of_place(const Weights& w) {
  const KernelRow& kernel = *conv_kernels(w.isa, w.number, w.r)[0];
  return kernel.narrow || w.number != Number::int8 ? 1 : kernel.columns;
}

// n places of four bytes: out of every `step`th of the line, `along` from one to the next.
void join_row(const uint8_t* line, int64_t step, int64_t along, int64_t n, uint32_t* out) {
  if (along == 1) {
    for (int64_t k = 0; k < n; ++k) std::memcpy(&out[k], line + step * k, sizeof(uint32_t));
    return;
  }
  for (int64_t k = 0; k < n; ++k) {
    uint8_t numbers[4];
    for (int i = 0; i < 4; ++i) numbers[i] = line[step * k + along * i];
    std::memcpy(&out[k], numbers, sizeof numbers);
  }
}

// n numbers of a row, each made of every `step`th of `in`.
template <class T, class Make>
inline __attribute__((always_inline)) void make_row(const float* in, int64_t step, int64_t n, T* out, const Make& make) {
  if (step == 1)
    for (int64_t k = 0; k < n; ++k) out[k] = make(in[k]);
  else if (step == 2)
    for (int64_t k = 0; k < n; ++k) out[k] = make(in[2 * k]);
  else
    for (int64_t k = 0; k < n; ++k) out[k] = make(in[step * k]);
}

// int8's steps, rounded as the kernels round them, whose maps these are: a fused multiplication and addition.
template <class T>
#if defined(__x86_64__)
__attribute__((target("avx2,fma")))
#endif
void steps_row(const float* in, int64_t step, int64_t n, float inverse, float zero, T* out) {
  constexpr float kRounder = 0x1.8p23f;  // leaves a float's whole number in its lowest bits, ties to even
  const auto make = [=](float value) __attribute__((always_inline)) {
    const float exact = __builtin_fmaf(value, inverse, zero);
    const float least = exact > 0 ? exact : 0.f;  // no number: 0
    const float rounded = (least < 255 ? least : 255.f) + kRounder;
    uint32_t bits;
    __builtin_memcpy(&bits, &rounded, sizeof bits);
    return (T)bits;
  };
  make_row(in, step, n, out, make);
}

}  // namespace

Geometry::Geometry(const Node& node, const Weights& weights, const Shape& in, const Shape& out) : in_(in) {
  const auto pair = [&](const char* key, int i) { return node.attrs.count(key) ? (int)node.list(key)[i] : key[0] == 'p' ? 0 : 1; };
  const int rows = pair("kernel", 0), cols = pair("kernel", 1);
  for (int i : {0, 1}) stride_[i] = pair("stride", i);
  along_ = pair("dilation", 1);
  const bool windowed = rows * cols > 1, few = windowed && in.c <= kFewChannels, strided = stride_[0] > 1 || stride_[1] > 1;
  const bool can_pad =
      windowed && weights.basis == Basis::taps && read_anywhere(weights) && out.w % kLanes == 0 && padding_is_small(node, in, out);
  copies = (strided && (rows * cols > kFewTaps || few)) || (can_pad && few);
  padded = copies && can_pad;
  if (padded) number_ = weights.number, floats_ = weights.floats, joined = numbers_of_place(weights);
  if (number_ == Number::int8) inverse_ = weights.inverse[0], zero_ = weights.zero[0];
  const int split[2] = {copies ? stride_[0] : 1, copies ? stride_[1] : 1};  // into so many phases
  std::vector<int> row_phase, col_phase;
  for (int r = 0; r < rows; ++r) {
    const int d = r * pair("dilation", 0) - pair("pad", 0);
    dy_.push_back(floor_div(d, split[0])), row_phase.push_back(d - dy_.back() * split[0]);
  }
  for (int s = 0; s < cols; ++s) {
    const int d = s * along_ - pair("pad", 1);
    dx_.push_back(floor_div(d, split[1])), col_phase.push_back(d - dx_.back() * split[1]);
  }
  int hi = (int)((in.h + split[0] - 1) / split[0]), wi = (int)((in.w + split[1] - 1) / split[1]);
  if (padded) {  // offsets ascend
    first_[0] = dy_.front(), hi = (int)out.h + dy_.back() - dy_.front();
    first_[1] = dx_.front(), wi = (int)out.w + dx_.back() - dx_.front();
  }
  window_ = {in.n, (int)out.h, (int)out.w, hi, wi, rows, cols, copies ? 1 : stride_[0], copies ? 1 : stride_[1], nullptr, nullptr, nullptr};
  plane = round_up(in.n * hi * wi, kLanes);
  for (int r = 0; r < rows; ++r)
    for (int s = 0; s < cols; ++s) {
      if (s % joined) {
        offset_.push_back(offset_.back());
        continue;
      }
      const std::pair<int, int> phase{row_phase[r], col_phase[s]};
      auto at = std::find(phases.begin(), phases.end(), phase);
      if (at == phases.end()) at = phases.insert(phases.end(), phase);
      offset_.push_back((at - phases.begin()) * plane + (int64_t)(dy_[r] - first_[0]) * wi + dx_[s] - first_[1]);
    }
}

Window Geometry::window() const {
  Window w = window_;
  w.dy = dy_.data(), w.dx = dx_.data(), w.offset = offset_.data();
  return w;
}

void Geometry::split_phases(const Run& run, const Place& x, int64_t to, int channels) const {
  float* const out = run.arena + to;
  const auto copy_steps = [&](auto* steps) {
    using T = std::remove_pointer_t<decltype(steps)>;
    copy_phases(run, x, steps, channels, (T)zero_,
                [this](const float* in, int64_t step, int64_t n, T* row) { steps_row(in, step, n, inverse_, zero_, row); });
  };
  if (number_ == Number::int8)
    return floats_ == kLanes / 4 ? copy_steps(reinterpret_cast<uint8_t*>(out)) : copy_steps(reinterpret_cast<uint16_t*>(out));
  if (number_ == Number::bf16 && floats_ < kLanes)
    return copy_phases(run, x, reinterpret_cast<uint16_t*>(out), channels, (uint16_t)0,
                       [](const float* in, int64_t step, int64_t n, uint16_t* row) { make_row(in, step, n, row, to_bf16); });
  if (number_ == Number::bf16)
    return copy_phases(run, x, out, channels, 0.f,
                       [](const float* in, int64_t step, int64_t n, float* row) { make_row(in, step, n, row, round_bf16); });
  copy_phases(run, x, out, channels, 0.f, [](const float* in, int64_t step, int64_t n, float* row) {
    make_row(in, step, n, row, [](float value) { return value; });
  });
}

template <class T, class Row>
void Geometry::copy_phases(const Run& run, const Place& x, T* to, int channels, T outside, const Row& make) const {
  const int hq = window_.hi, wq = window_.wi, count = (int)phases.size();
  const int64_t image = in_.h * in_.w;
  const float* from = run.arena + x.offset;
  int64_t channel = x.plane, next = image;  // from one channel, and one image, to the next
  if (x.input >= 0 && run.inputs) from = (*run.inputs)[x.input] + run.first * in_.c * image, channel = image, next = in_.c * image;
  run.pool.each((int64_t)channels * count, [&](int64_t i, int slot) {  // a network's first layer has few channels
    const int64_t c = i / count, y = phases[i % count].first + (int64_t)first_[0] * stride_[0];
    const int64_t left = phases[i % count].second + (int64_t)first_[1] * stride_[1];
    // The n numbers at columns left, left + step, .. of an image's row.
    const auto put_row = [&](int64_t n, int64_t row, int64_t step, T* out, int64_t numbers) {
      if (row < 0 || row >= in_.h) return (void)std::fill(out, out + numbers, outside);
      // numbers begin..end-1 are in the source: those with 0 <= left + number * step < in_.w
      const int64_t begin = std::clamp<int64_t>((step - 1 - left) / step, 0, numbers);
      const int64_t end = std::clamp<int64_t>((in_.w - left + step - 1) / step, begin, numbers);
      std::fill(out, out + begin, outside);
      make(from + c * channel + n * next + row * in_.w + left + step * begin, step, end - begin, out + begin);
      std::fill(out + end, out + numbers, outside);
    };
    T* out = to + i * plane;
    uint32_t* places = reinterpret_cast<uint32_t*>(to) + i * plane;
    T* const line = reinterpret_cast<T*>(run.scratch_of(slot));
    for (int64_t n = 0; n < in_.n; ++n)
      for (int q = 0; q < hq; ++q, out += wq, places += wq) {
        const int64_t row = (int64_t)q * stride_[0] + y;
        if (joined == 1) {
          put_row(n, row, stride_[1], out, wq);
          continue;
        }
        put_row(n, row, 1, line, line_numbers());
        if constexpr (sizeof(T) == 1) join_row(line, stride_[1], along_, wq, places);
      }
  });
}

}  // namespace cosparse
