// Steps of layer_norm, group_norm, softmax and log_softmax.
#include <algorithm>
#include <cmath>

#include "plan.h"

namespace cosparse {

namespace {

// The sum of (x[i] - mean)^2.
double squares(const SpanKernels& spans, const float* x, float mean, int64_t n) {
  constexpr int64_t kAtOnce = 512;
  float part[kAtOnce];
  double sum = 0;
  for (int64_t i = 0; i < n; i += kAtOnce) {
    const int64_t count = std::min(kAtOnce, n - i);
    spans.binary(Binary::sub, x + i, 1, &mean, 0, part, count);
    spans.binary(Binary::mul, part, 1, part, 1, part, count);
    sum += spans.sum(part, count);
  }
  return sum;
}

}  // namespace

void build_norm(const Build& b) {
  const bool layer = b.node().op == "layer_norm";
  const float eps = layer ? (float)b.node().number("eps") : 0;
  const float *scale = layer ? b.parameter("scale") : nullptr, *shift = layer ? b.parameter("shift") : nullptr;
  b.push(b.spans_name(), [=, x = b.at(0), y = b.to(), shape = b.in(0), spans = b.spans()](const Run& run) {
    run.pool.each(x.plane / kLanes, [&](int64_t i, int) {
      const float* from = run.arena + x.offset;
      float* to = run.arena + y.offset;
      if (layer)
        spans.layer_norm(from, x.plane, (int)shape.c, scale, shift, eps, to, y.plane, i * kLanes);
      else
        spans.softmax(from, x.plane, (int)shape.c, to, y.plane, i * kLanes);
    });
  });
}

// Each image's channels, group by group, over all their pixels.
void build_group_norm(const Build& b) {
  b.push(b.spans_name(), [x = b.at(0), y = b.to(), shape = b.in(0), spans = b.spans(), groups = b.node().integer("groups"),
           eps = b.node().number("eps"), scale = b.parameter("scale"), shift = b.parameter("shift")](const Run& run) {
    const int64_t channels = shape.c / groups, pixels = shape.h * shape.w;
    run.pool.each(shape.n * groups, [&](int64_t i, int) {
      const int64_t first = i % groups * channels, image = i / groups * pixels;
      const float* const from = run.arena + x.offset + first * x.plane + image;
      float* const to = run.arena + y.offset + first * y.plane + image;
      const double count = (double)(channels * pixels);
      double sum = 0, deviation = 0;
      for (int64_t c = 0; c < channels; ++c) sum += spans.sum(from + c * x.plane, pixels);
      const float mean = (float)(sum / count);
      for (int64_t c = 0; c < channels; ++c) deviation += squares(spans, from + c * x.plane, mean, pixels);
      const double inverse = 1 / std::sqrt(deviation / count + eps);
      for (int64_t c = 0; c < channels; ++c) {
        const double factor = scale[first + c] * inverse;
        spans.affine(from + c * x.plane, (float)factor, (float)(shift[first + c] - mean * factor), to + c * y.plane, pixels);
      }
    });
  });
}

// x - log of the sum of e^x over the channels of each pixel, the greatest taken out first. Not by way of softmax, which underflows.
void build_log_softmax(const Build& b) {
  b.push("plain", [x = b.at(0), y = b.to(), shape = b.in(0)](const Run& run) {
    run.pool.each(shape.pixels(), [&](int64_t pixel, int) {
      const float* const from = run.arena + x.offset + pixel;
      float* const to = run.arena + y.offset + pixel;
      float most = from[0];
      for (int64_t c = 1; c < shape.c; ++c) most = std::max(most, from[c * x.plane]);
      double sum = 0;
      for (int64_t c = 0; c < shape.c; ++c) sum += std::exp((double)(from[c * x.plane] - most));
      const float log = (float)std::log(sum);
      for (int64_t c = 0; c < shape.c; ++c) to[c * y.plane] = from[c * x.plane] - most - log;
    });
  });
}

}  // namespace cosparse
