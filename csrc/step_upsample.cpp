// Step of upsample: nearest and bilinear, sampling positions as in PyTorch (computed in float, as there).
#include <algorithm>
#include <cmath>

#include "plan.h"

namespace cosparse {

namespace {

struct Sample {  // value = (1 - t) * in[low] + t * in[high]
  int64_t low, high;
  float t;
};

std::vector<Sample> samples(int64_t in, int64_t out, int64_t factor, bool bilinear, bool align_corners) {
  std::vector<Sample> all(out);
  const float scale = align_corners ? (out > 1 ? (float)(in - 1) / (float)(out - 1) : 0.f)
                      : factor > 0  ? (float)(1.0 / (double)factor)
                                    : (float)in / (float)out;
  for (int64_t i = 0; i < out; ++i) {
    if (!bilinear) {
      const int64_t nearest = in == out ? i : std::min((int64_t)std::floor((float)i * scale), in - 1);
      all[i] = {nearest, nearest, 0.f};
    } else {
      const float at = align_corners ? scale * (float)i : std::max(0.f, scale * ((float)i + 0.5f) - 0.5f);
      const int64_t low = std::min((int64_t)at, in - 1), high = std::min(low + 1, in - 1);
      all[i] = {low, high, std::clamp(at - (float)low, 0.f, 1.f)};
    }
  }
  return all;
}

}  // namespace

void build_upsample(const Build& b) {
  const Node& node = b.node();
  const Shape in = b.in(0), out = b.out();
  const bool bilinear = node.text("mode") == "bilinear", corners = node.integer("align_corners");
  const int64_t fy = node.list("factor")[0], fx = node.list("factor")[1];  // 0: the ratio of the sizes
  Step step;
  step.op = node.op, step.kernel = bilinear ? "bilinear" : "nearest";
  step.run = [=, x = b.at(0), y = b.to(), rows = samples(in.h, out.h, fy, bilinear, corners),
              cols = samples(in.w, out.w, fx, bilinear, corners)](const Run& run) {
    run.pool.each(out.c, [&](int64_t c, int) {
      float* to = run.arena + y.offset + c * y.plane;
      for (int64_t n = 0; n < out.n; ++n) {
        const float* plane = run.arena + x.offset + c * x.plane + n * in.h * in.w;
        for (const Sample& row : rows) {
          const float *low = plane + row.low * in.w, *high = plane + row.high * in.w;
          if (!bilinear) {
            for (const Sample& s : cols) *to++ = low[s.low];
            continue;
          }
          for (const Sample& s : cols) {
            const float top = (1.f - s.t) * low[s.low] + s.t * low[s.high], bottom = (1.f - s.t) * high[s.low] + s.t * high[s.high];
            *to++ = (1.f - row.t) * top + row.t * bottom;
          }
        }
      }
    });
  };
  b.plan.steps.push_back(std::move(step));
}

}  // namespace cosparse
