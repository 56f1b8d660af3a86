// Steps of max_pool, avg_pool, the adaptive pools and mean.
#include <algorithm>
#include <cmath>

#include "memory.h"
#include "plan.h"
#include "window_geometry.h"

namespace cosparse {

namespace {

// 1 / (cells that an average divides by) for each output pixel of one plane. Windows are cut at the far padding; `ceil` lets them start
// before it.
std::vector<float> average_factors(const Node& node, const Shape& in, const Shape& out) {
  const auto &k = node.list("kernel"), &s = node.list("stride"), &pad = node.list("pad");
  const bool count_pad = node.integer("count_pad");
  const int64_t divisor = node.integer("divisor");
  std::vector<float> factors(out.h * out.w);
  for (int64_t y = 0; y < out.h; ++y)
    for (int64_t x = 0; x < out.w; ++x) {
      const int64_t top = y * s[0] - pad[0], left = x * s[1] - pad[1];
      const int64_t bottom = std::min(top + k[0], in.h + pad[2]), right = std::min(left + k[1], in.w + pad[3]);
      const int64_t whole = (bottom - top) * (right - left);
      const int64_t inside = (std::min(bottom, in.h) - std::max<int64_t>(top, 0)) * (std::min(right, in.w) - std::max<int64_t>(left, 0));
      factors[y * out.w + x] = 1.f / (float)std::max<int64_t>(1, divisor ? divisor : count_pad ? whole : inside);
    }
  return factors;
}

Step plane_step(const Build& b, std::string kernel) {
  Step step;
  step.op = b.node().op, step.kernel = std::move(kernel);
  return step;
}

// y = mean of each image's plane, one value a channel and image.
std::function<void(const Run&)> plane_means(const Build& b) {
  return [x = b.at(0), y = b.to(), in = b.in(0), sum = b.spans().sum](const Run& run) {
    const int64_t plane = in.h * in.w;
    run.pool.each(in.c, [&](int64_t c, int) {
      for (int64_t n = 0; n < in.n; ++n)
        run.arena[y.offset + c * y.plane + n] = sum(run.arena + x.offset + c * x.plane + n * plane, plane) / (float)plane;
    });
  };
}

}  // namespace

void build_pool(const Build& b) {
  const Node& node = b.node();
  const auto geometry = std::make_shared<const Geometry>(node, b.in(0), b.out());
  const KernelRow& kernel = window_kernel(b.options.isa);
  const bool max = node.op == "max_pool";
  const auto factors = std::make_shared<const std::vector<float>>(max ? std::vector<float>() : average_factors(node, b.in(0), b.out()));
  Step step = plane_step(b, kernel.name);
  step.run = [geometry, factors, max, &kernel, x = b.at(0), y = b.to(), channels = (int)b.in(0).c, temporary = b.temporary,
              fused = b.fused](const Run& run) {
    if (geometry->copies) geometry->split_phases(run, x, temporary, channels, max ? -INFINITY : 0.f);
    WindowArgs a{};
    a.window = geometry->window(), a.op = max ? WindowOp::max : WindowOp::sum;
    a.x = run.arena + (geometry->copies ? temporary : x.offset), a.x_channel = geometry->channel_floats(x.plane);
    a.multiplier = 1, a.factor = factors->data();
    a.y = run.arena + y.offset, a.y_plane = y.plane;
    a.act = fused.act, a.alpha = fused.alpha, a.beta = fused.beta;
    run_window(run, kernel, a, channels);
  };
  b.plan.scratch_floats = std::max(b.plan.scratch_floats, conv_scratch(0, geometry->taps(), 1));
  b.plan.steps.push_back(std::move(step));
}

void build_adaptive_pool(const Build& b) {
  const bool max = b.node().op == "adaptive_max_pool";
  Step step = plane_step(b, "spans");
  if (!max && b.out().h == 1 && b.out().w == 1) {
    step.run = plane_means(b);
  } else {
    step.kernel = "plain";
    step.run = [max, x = b.at(0), y = b.to(), in = b.in(0), out = b.out()](const Run& run) {
      run.pool.each(in.c, [&](int64_t c, int) {
        float* to = run.arena + y.offset + c * y.plane;
        for (int64_t n = 0; n < in.n; ++n)
          for (int64_t oy = 0; oy < out.h; ++oy)
            for (int64_t ox = 0; ox < out.w; ++ox) {
              const float* from = run.arena + x.offset + c * x.plane + n * in.h * in.w;
              const int64_t top = oy * in.h / out.h, bottom = ((oy + 1) * in.h + out.h - 1) / out.h;
              const int64_t left = ox * in.w / out.w, right = ((ox + 1) * in.w + out.w - 1) / out.w;
              float value = max ? -INFINITY : 0.f;
              for (int64_t i = top; i < bottom; ++i)
                for (int64_t j = left; j < right; ++j) value = max ? std::max(value, from[i * in.w + j]) : value + from[i * in.w + j];
              *to++ = max ? value : value / (float)((bottom - top) * (right - left));
            }
      });
    };
  }
  b.plan.steps.push_back(std::move(step));
}

void build_mean(const Build& b) {
  const auto& axes = b.node().list("axes");
  Step step = plane_step(b, "spans");
  if (axes == std::vector<int64_t>{2, 3}) {
    step.run = plane_means(b);
  } else {
    step.kernel = "plain";
    step.run = [x = b.at(0), y = b.to(), in = b.in(0), out = b.out(), axes](const Run& run) {
      const auto over = [&](int64_t axis) { return std::find(axes.begin(), axes.end(), axis) != axes.end(); };
      const int64_t nc = over(1) ? in.c : 1, nh = over(2) ? in.h : 1, nw = over(3) ? in.w : 1;
      run.pool.each(out.c, [&](int64_t oc, int) {
        float* to = run.arena + y.offset + oc * y.plane;
        for (int64_t n = 0; n < in.n; ++n)
          for (int64_t oy = 0; oy < out.h; ++oy)
            for (int64_t ox = 0; ox < out.w; ++ox) {
              double sum = 0;
              for (int64_t c = 0; c < nc; ++c)
                for (int64_t h = 0; h < nh; ++h)
                  for (int64_t w = 0; w < nw; ++w)
                    sum += run.arena[x.offset + (over(1) ? c : oc) * x.plane + (n * in.h + (over(2) ? h : oy)) * in.w + (over(3) ? w : ox)];
              *to++ = (float)(sum / (double)(nc * nh * nw));
            }
      });
    };
  }
  b.plan.steps.push_back(std::move(step));
}

}  // namespace cosparse
