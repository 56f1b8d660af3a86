#include "window_geometry.h"

#include <algorithm>

#include "memory.h"

namespace cosparse {

namespace {

constexpr int kFewTaps = 9, kFewChannels = 8;

int floor_div(int a, int b) { return a / b - (a % b < 0); }

}  // namespace

Geometry::Geometry(const Node& node, const Shape& in, const Shape& out) : in_(in) {
  const auto pair = [&](const char* key, int i) { return node.attrs.count(key) ? (int)node.list(key)[i] : key[0] == 'p' ? 0 : 1; };
  const int rows = pair("kernel", 0), cols = pair("kernel", 1);
  for (int i : {0, 1}) stride_[i] = pair("stride", i);
  copies = (stride_[0] > 1 || stride_[1] > 1) && (rows * cols > kFewTaps || (rows * cols > 1 && in.c <= kFewChannels));
  const int split[2] = {copies ? stride_[0] : 1, copies ? stride_[1] : 1};  // into so many phases
  window_ = {in.n,
             (int)out.h,
             (int)out.w,
             (int)((in.h + split[0] - 1) / split[0]),
             (int)((in.w + split[1] - 1) / split[1]),
             rows,
             cols,
             copies ? 1 : stride_[0],
             copies ? 1 : stride_[1],
             nullptr,
             nullptr,
             nullptr};
  plane = round_up(in.n * window_.hi * window_.wi, kLanes);
  std::vector<int> row_phase, col_phase;
  for (int r = 0; r < rows; ++r) {
    const int d = r * pair("dilation", 0) - pair("pad", 0);
    dy_.push_back(floor_div(d, split[0])), row_phase.push_back(d - dy_.back() * split[0]);
  }
  for (int s = 0; s < cols; ++s) {
    const int d = s * pair("dilation", 1) - pair("pad", 1);
    dx_.push_back(floor_div(d, split[1])), col_phase.push_back(d - dx_.back() * split[1]);
  }
  for (int r = 0; r < rows; ++r)
    for (int s = 0; s < cols; ++s) {
      const std::pair<int, int> phase{row_phase[r], col_phase[s]};
      auto at = std::find(phases.begin(), phases.end(), phase);
      if (at == phases.end()) at = phases.insert(phases.end(), phase);
      offset_.push_back((at - phases.begin()) * plane + (int64_t)dy_[r] * window_.wi + dx_[s]);
    }
}

Window Geometry::window() const {
  Window w = window_;
  w.dy = dy_.data(), w.dx = dx_.data(), w.offset = offset_.data();
  return w;
}

void Geometry::split_phases(const Run& run, const Place& x, int64_t to, int channels) const {
  const int hq = window_.hi, wq = window_.wi, count = (int)phases.size();
  run.pool.each((int64_t)channels * count, [&](int64_t i, int) {  // a network's first layer has few channels
    const int64_t c = i / count;
    float* out = run.arena + to + i * plane;
    const auto [fy, fx] = phases[i % count];
    const int have = fx < in_.w ? std::min<int>(wq, (int)((in_.w - fx + stride_[1] - 1) / stride_[1])) : 0;
    for (int64_t n = 0; n < in_.n; ++n)
      for (int q = 0; q < hq; ++q, out += wq) {
        const int64_t row = (int64_t)q * stride_[0] + fy;
        const int here = row < in_.h ? have : 0;
        const float* in = run.arena + x.offset + c * x.plane + (n * in_.h + row) * in_.w + fx;
        if (stride_[1] == 2)
          for (int k = 0; k < here; ++k) out[k] = in[2 * k];
        else
          for (int k = 0; k < here; ++k) out[k] = in[(int64_t)k * stride_[1]];
        std::fill(out + here, out + wq, 0.f);
      }
  });
}

}  // namespace cosparse
