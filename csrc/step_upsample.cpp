// Step of upsample: nearest and bilinear, sampling positions as in PyTorch (computed in float, as there).
#include <algorithm>
#include <cmath>

#include "plan.h"
#include "plane_rows.h"

namespace cosparse {

namespace {

// The neighbours of every output place along one axis, and the memory that an Interpolation points to.
struct Samples {
  int in, out;
  std::vector<int> low, high;
  std::vector<float> share;  // empty: nearest

  Samples(int64_t in_size, int64_t out_size, int64_t factor, bool bilinear, bool align_corners) : in((int)in_size), out((int)out_size) {
    const float scale = align_corners ? (out > 1 ? (float)(in - 1) / (float)(out - 1) : 0.f)
                        : factor > 0  ? (float)(1.0 / (double)factor)
                                      : (float)in / (float)out;
    for (int i = 0; i < out; ++i) {
      if (!bilinear) {
        const int nearest = in == out ? i : std::min((int)std::floor((float)i * scale), in - 1);
        low.push_back(nearest), high.push_back(nearest);
      } else {
        const float at = align_corners ? scale * (float)i : std::max(0.f, scale * ((float)i + 0.5f) - 0.5f);
        low.push_back(std::min((int)at, in - 1)), high.push_back(std::min(low.back() + 1, in - 1));
        share.push_back(std::clamp(at - (float)low.back(), 0.f, 1.f));
      }
    }
    low.resize(out + kLanes, in - 1), high.resize(out + kLanes, in - 1);
    if (bilinear) share.resize(out + kLanes, 0.f);
  }

  Interpolation view(int lanes) const {
    bool close = true;
    for (int i = 0; i < out; ++i) close = close && high[std::min(i + lanes, out) - 1] - low[i] < lanes;
    return {in, out, low.data(), high.data(), share.empty() ? nullptr : share.data(), close};
  }
};

}  // namespace

void build_upsample(const Build& b) {
  const Node& node = b.node();
  const Shape in = b.in(0), out = b.out();
  const bool bilinear = node.text("mode") == "bilinear", corners = node.integer("align_corners");
  const auto& factor = node.list("factor");  // 0: the ratio of the sizes
  const auto rows = std::make_shared<const Samples>(in.h, out.h, factor[0], bilinear, corners);
  const auto columns = std::make_shared<const Samples>(in.w, out.w, factor[1], bilinear, corners);
  const KernelRow& kernel = upsample_kernel(b.options.isa);
  const UpsampleArgs args{rows->view(kernel.lanes), columns->view(kernel.lanes)};
  Step step;
  step.op = node.op, step.kernel = kernel.name, step.why = node.text("mode");
  step.run = [in, out, rows, columns, args, run_rows = kernel.upsample, x = b.at(0), y = b.to()](const Run& run) {
    each_rows(run, out.c * out.n, out.h, [&](int64_t plane, int begin, int end, int slot) {
      run_rows(args, image_plane(run, x, in, plane), image_plane(run, y, out, plane), begin, end, run.scratch_of(slot));
    });
  };
  b.plan.scratch_floats = std::max(b.plan.scratch_floats, upsample_scratch(args));
  b.plan.steps.push_back(std::move(step));
}

}  // namespace cosparse
