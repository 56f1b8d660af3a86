// Steps of max_pool, avg_pool, the adaptive pools, mean, sum and amax.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "pair.h"
#include "plane_rows.h"

namespace cosparse {

namespace {

// NaN where either is, as the kernels' V::larger.
float larger(float a, float b) { return a > b || std::isnan(a) ? a : b; }

// 1 / (cells that an average divides by) for each output pixel of one plane. Windows are cut at the far padding; `ceil` lets them start
// before it.
std::vector<float> average_factors(const Node& node, const Shape& in, const Shape& out) {
  const auto &k = node.list("kernel"), &s = node.list("stride"), &pad = node.list("pad");
  const bool count_pad = node.integer("count_pad");
  const int64_t divisor = node.integer("divisor");
  std::vector<float> factors(out.h * out.w + kLanes);
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

void push_pool(const Build& b, const PoolArgs& args, std::vector<float> factors) {
  const KernelRow& kernel = pool_kernel(b.options.isa);
  Step step = plane_step(b, kernel.name);
  Shape in = b.in(0), out = b.out();
  PoolArgs joined = args;
  if (args.max && args.pad[0] == 0 && args.dilation[0] == 1 && args.kernel[0] <= args.stride[0] && in.h == out.h * args.stride[0]) {
    in.h *= in.n, out.h *= out.n, in.n = out.n = 1;  // no window meets two images: those of a channel are one tall plane
    joined.h = (int)in.h, joined.ho = (int)out.h;
  }
  b.plan.scratch_floats = std::max(b.plan.scratch_floats, pool_scratch(joined));
  step.run = [args = joined, factors = std::move(factors), pool = kernel.pool, x = b.at(0), y = b.to(), in, out](const Run& run) {
    PoolArgs a = args;
    a.factor = factors.data();
    each_rows(run, out.c * out.n, out.h, [&](int64_t plane, int begin, int end, int slot) {
      pool(a, image_plane(run, x, in, plane), image_plane(run, y, out, plane), begin, end, run.scratch_of(slot));
    });
  };
  b.plan.steps.push_back(std::move(step));
}

constexpr int64_t kTogether = 4;  // channels, whose tiles of bytes are a cache line

// max_pool of a source in planes of steps, to tiles or planes of the same (choose_layouts).
void push_pool_steps(const Build& b, const PoolArgs& args) {
  const Place x = b.at(0), y = b.to();
  const KernelRow& kernel = *pool_steps_kernel(b.options.isa, (int)x.group);
  const Shape in = b.in(0), out = b.out();
  const int64_t image_in = in.h * in.w, image_out = out.h * out.w, number = kernel.floats * (int64_t)sizeof(float) / kLanes;
  const int64_t room = pool_steps_scratch(args), made_floats = whole_vectors(image_out);
  b.plan.scratch_floats = std::max(b.plan.scratch_floats, room + kTogether * made_floats);
  Step step = plane_step(b, kernel.name);
  step.run = [=, pool = kernel.pool_steps](const Run& run) {
    const Rows<const float> from_rows = rows_at<const float>(run, x);
    const Rows<float> to_rows = rows_at<float>(run, y);
    const auto place = [&](int64_t c, int64_t pixel) {  // of the output
      return reinterpret_cast<char*>(to_rows.at(c, pixel / kLanes)) + pixel % kLanes * number;
    };
    each_rows(run, (out.c + kTogether - 1) / kTogether * out.n, out.h, [&](int64_t plane, int begin, int end, int slot) {
      const int64_t first = plane / out.n * kTogether, n = plane % out.n, channels = std::min(kTogether, out.c - first);
      float *const scratch = run.scratch_of(slot), *const made = scratch + room;
      for (int64_t k = 0; k < channels; ++k) {
        const char* const from = reinterpret_cast<const char*>(from_rows.at(first + k, 0)) + n * image_in * number;
        pool(args, reinterpret_cast<const float*>(from), made + k * made_floats, begin, end, scratch);
      }
      for (int64_t at = begin * out.w, count = 0; at < end * out.w; at += count) {
        const int64_t pixel = n * image_out + at;
        count = std::min(end * out.w - at, kLanes - pixel % kLanes);
        for (int64_t k = 0; k < channels; ++k) {
          const char* const those = reinterpret_cast<const char*>(made + k * made_floats) + at * number;
          if (count == kLanes && number == 1)  // a copy without a call
            std::memcpy(place(first + k, pixel), those, kLanes);
          else
            std::memcpy(place(first + k, pixel), those, count * number);
        }
      }
    });
  };
  b.plan.steps.push_back(std::move(step));
}

// y = sum of each image's plane over `count`, one value a channel and image.
std::function<void(const Run&)> plane_sums(const Build& b, int64_t count) {
  return [count, x = b.at(0), y = b.to(), in = b.in(0), out = b.out(), sum = b.spans().sum](const Run& run) {
    const int64_t pixels = in.h * in.w;
    each_rows(run, in.c * in.n, 1, [&](int64_t plane, int, int, int) {
      *image_plane(run, y, out, plane) = sum(image_plane(run, x, in, plane), pixels) / (float)count;
    });
  };
}

// y = sum over some of channels, rows and columns, over `count`, or the largest (count 0); the axes stay, of size 1. What lies side by side
// in the source is taken by whole rows.
std::function<void(const Run&)> reduce_axes(const Build& b, bool channels, bool rows, bool columns, float count) {
  return [=, x = b.at(0), y = b.to(), in = b.in(0), out = b.out(), spans = b.spans()](const Run& run) {
    const bool most = count == 0;
    each_rows(run, out.c * out.n, out.h, [&](int64_t plane, int begin, int end, int) {
      float* const to = image_plane(run, y, out, plane);
      const int64_t first = channels ? 0 : plane / out.n, beyond = channels ? in.c : first + 1;
      const auto each_source = [&](int64_t row, auto use) {  // that lands in row `row`
        for (int64_t c = first; c < beyond; ++c)
          for (int64_t h = rows ? 0 : row; h < (rows ? in.h : row + 1); ++h)
            use(image_plane(run, x, in, c * in.n + plane % out.n) + h * in.w);
      };
      if (columns) {
        for (int64_t row = begin; row < end; ++row) {
          double sum = 0;
          float largest = -INFINITY;
          each_source(row, [&](const float* from) {
            if (!most) sum += spans.sum(from, in.w);
            for (int64_t w = 0; most && w < in.w; ++w) largest = larger(largest, from[w]);
          });
          to[row] = most ? largest : (float)(sum / count);
        }
        return;
      }
      float* const at = to + begin * in.w;
      const int64_t n = (end - begin) * in.w;  // rows that stay lie side by side
      bool started = false;
      each_source(begin, [&](const float* from) {
        started ? spans.binary(most ? Binary::maximum : Binary::add, at, 1, from, 1, at, n)
                : (void)std::memcpy(at, from, n * sizeof(float));
        started = true;
      });
      if (!most && count != 1) spans.binary(Binary::div, at, 1, &count, 0, at, n);
    });
  };
}

PoolArgs window_of(const Build& b) {
  const Node& node = b.node();
  const Shape in = b.in(0), out = b.out();
  const auto pair = [&](const char* key, int i) { return (int)node.list(key)[i]; };
  PoolArgs args{};
  args.max = node.op == "max_pool";
  args.h = (int)in.h, args.w = (int)in.w, args.ho = (int)out.h, args.wo = (int)out.w;
  for (int i : {0, 1}) {
    args.kernel[i] = pair("kernel", i), args.stride[i] = pair("stride", i), args.pad[i] = pair("pad", i);
    args.dilation[i] = args.max ? pair("dilation", i) : 1;
  }
  args.act = b.fused.act, args.alpha = b.fused.alpha, args.beta = b.fused.beta;
  return args;
}

}  // namespace

void build_pool(const Build& b) {
  const PoolArgs args = window_of(b);
  if (b.at(0).tiled) return push_pool_steps(b, args);
  push_pool(b, args, args.max ? std::vector<float>() : average_factors(b.node(), b.in(0), b.out()));
}

PlaneReader pool_reader(const Build& b, Step& step) {
  const PoolArgs args = window_of(b);
  const KernelRow& kernel = pool_kernel(b.options.isa);
  step = plane_step(b, kernel.name);
  return {pool_scratch(args),
          [args, pool = kernel.pool, y = b.to(), out = b.out()](const Run& run, int64_t c, int64_t image, const float* from, int begin, int end,
                                                                float* scratch) {
            pool(args, from, image_plane(run, y, out, c * out.n + image), begin, end, scratch);
          }};
}

void build_adaptive_pool(const Build& b) {
  const bool max = b.node().op == "adaptive_max_pool";
  const Shape in = b.in(0), out = b.out();
  if (in.h % out.h == 0 && in.w % out.w == 0 && (max || out.h * out.w > 1)) {  // cells of one size: windows that touch
    PoolArgs args{};
    args.max = max;
    args.h = (int)in.h, args.w = (int)in.w, args.ho = (int)out.h, args.wo = (int)out.w;
    args.kernel[0] = args.stride[0] = args.h / args.ho, args.kernel[1] = args.stride[1] = args.w / args.wo;
    args.dilation[0] = args.dilation[1] = 1;
    const float factor = 1.f / (float)(args.kernel[0] * args.kernel[1]);
    return push_pool(b, args, std::vector<float>(max ? 0 : out.h * out.w + kLanes, factor));
  }
  Step step = plane_step(b, "spans");
  if (!max && out.h == 1 && out.w == 1) {
    step.run = plane_sums(b, in.h * in.w);
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
                for (int64_t j = left; j < right; ++j) value = max ? larger(value, from[i * in.w + j]) : value + from[i * in.w + j];
              *to++ = max ? value : value / (float)((bottom - top) * (right - left));
            }
      });
    };
  }
  b.plan.steps.push_back(std::move(step));
}

void build_reduction(const Build& b) {
  const Node& node = b.node();
  const Shape in = b.in(0);
  const auto over = [&](int64_t axis) {
    return std::find(node.list("axes").begin(), node.list("axes").end(), axis) != node.list("axes").end();
  };
  const bool channels = over(1), rows = over(2), columns = over(3);
  const int64_t all = (channels ? in.c : 1) * (rows ? in.h : 1) * (columns ? in.w : 1);
  const int64_t count = node.op == "mean" ? all : node.op == "sum" ? 1 : 0;
  Step step = plane_step(b, "spans");
  step.run = !channels && rows && columns && count ? plane_sums(b, count) : reduce_axes(b, channels, rows, columns, (float)count);
  b.plan.steps.push_back(std::move(step));
}

}  // namespace cosparse
