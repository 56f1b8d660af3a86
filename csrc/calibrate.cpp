#include "calibrate.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "engine.h"
#include "error.h"
#include "shape.h"

namespace cosparse {

namespace {

constexpr float kLeastStep = 1e-30f;  // 1 / step must be finite, and below all is zero anyway

// Step and zero for numbers in low..high: all 256 upwards of 0 where nothing is negative, else 128 on either side.
std::pair<float, float> step_for(float low, float high) {
  const bool seen = low <= high, negative = seen && low < 0;
  const float step = !seen ? 0.f : negative ? std::max(-low / 128, high / 127) : high / 255;
  if (!std::isfinite(step))
    throw Error(Fault::usage, "calibration", "samples whose values stay finite in every layer", "infinity", "look for it in the samples");
  return {step < kLeastStep ? 0.f : step, negative ? 128.f : 0.f};
}

Quantization steps_for(const Ranges& ranges, int taps) {
  Quantization q;
  for (int tap = 0; tap < taps; ++tap) {
    const auto [step, zero] = step_for(*std::min_element(&ranges.low[tap * kLanes], &ranges.low[(tap + 1) * kLanes]),
                                       *std::max_element(&ranges.high[tap * kLanes], &ranges.high[(tap + 1) * kLanes]));
    q.step.push_back(step), q.zero.push_back(zero);
  }
  std::tie(q.added_step, q.added_zero) = step_for(ranges.added[0], ranges.added[1]);
  if (ranges.source[0] >= 0) q.source_step = step_for(ranges.source[0], ranges.source[1]).first;
  return q;
}

}  // namespace

void require_numbers(const std::string& value, const float* x, int64_t count) {
  if (std::any_of(x, x + count, [](float number) { return std::isnan(number); }))
    throw Error(Fault::usage, "calibration", "samples that are numbers in every layer", "NaN in '" + value + "'",
                "leave out what is no number in the samples, or find the layer that makes NaN of them in float32");
}

Ranges no_range(const Weights& w) {
  const int64_t floats = (int64_t)w.kernel[0] * w.kernel[1] * kLanes;
  Ranges ranges{allocate_floats(floats), allocate_floats(floats), allocate_floats(2), allocate_floats(2)};
  std::fill_n(ranges.low.get(), floats, INFINITY), std::fill_n(ranges.high.get(), floats, -INFINITY);
  for (const auto& of : {ranges.added, ranges.source}) of[0] = INFINITY, of[1] = -INFINITY;
  return ranges;
}

std::map<int, Quantization> Engine::calibrated() const {
  std::map<int, Quantization> steps;
  // By value: all 1x1 readers of one value share its steps, whatever channels each of them uses, and with what reads it as a residual.
  std::map<int, std::pair<float, float>> seen;
  for (const auto& [node, ranges] : prepared_.ranges)
    if (pixelwise(graph_->nodes[node]) && ranges.low) {
      auto& [low, high] = seen.try_emplace(graph_->nodes[node].inputs[0], INFINITY, -INFINITY).first->second;
      low = std::min(low, *std::min_element(&ranges.low[0], &ranges.low[kLanes]));
      high = std::max(high, *std::max_element(&ranges.high[0], &ranges.high[kLanes]));
    }
  for (const Fused& step : fuse(*graph_, infer_shapes(*graph_, example_shapes(*graph_))))
    if (const auto value = seen.find(step.residual); value != seen.end())
      if (const auto ranges = prepared_.ranges.find(step.node); ranges != prepared_.ranges.end() && ranges->second.added) {
        auto& [low, high] = value->second;
        low = std::min(low, ranges->second.added[0]), high = std::max(high, ranges->second.added[1]);
      }
  for (const auto& [node, ranges] : prepared_.ranges) {
    const Weights& w = *prepared_.weights.at(node);
    const int taps = w.kernel[0] * w.kernel[1];
    if (w.basis == Basis::taps && ranges.low) {  // one source's values, but for the rim: with one step they can be read in place
      const float low = *std::min_element(&ranges.low[0], &ranges.low[taps * kLanes]);
      const float high = *std::max_element(&ranges.high[0], &ranges.high[taps * kLanes]);
      std::fill_n(ranges.low.get(), taps * kLanes, low), std::fill_n(ranges.high.get(), taps * kLanes, high);
    }
    if (pixelwise(graph_->nodes[node])) {
      const auto& [low, high] = seen.at(graph_->nodes[node].inputs[0]);
      std::fill_n(ranges.low.get(), kLanes, low), std::fill_n(ranges.high.get(), kLanes, high);
    }
    steps[node] = steps_for(ranges, taps);
  }
  return steps;
}

std::map<int, Quantization> calibrate(std::shared_ptr<const Graph> graph, Options options, const std::vector<std::vector<Sample>>& samples) {
  if (samples.empty())
    throw Error(Fault::usage, "calibration", "sample inputs, from which int8 takes its steps", "none",
                "pass calibration=, some real inputs");
  options.threads = 1, options.number = Number::observe, options.tile = 0, options.tune = options.poison = false;
  const Engine twin(std::move(graph), options);
  for (const std::vector<Sample>& sample : samples) {
    std::vector<Shape> shapes;
    std::vector<const float*> from;
    for (const Sample& input : sample) shapes.push_back(input.shape), from.push_back(input.data);
    const auto schedule = twin.schedule(shapes);
    std::vector<Floats> outputs;
    std::vector<float*> to;
    const auto count = [](const Shape& s) { return s.c * s.pixels(); };
    for (const Shape& s : schedule->outputs) outputs.push_back(allocate_floats(count(s))), to.push_back(outputs.back().get());
    twin.run(*schedule, from, to);
    for (size_t i = 0; i < from.size(); ++i) require_numbers(twin.graph().inputs[i].name, from[i], count(shapes[i]));
    for (size_t i = 0; i < to.size(); ++i)
      require_numbers(twin.graph().value_name(twin.graph().outputs[i]), to[i], count(schedule->outputs[i]));
  }
  return twin.calibrated();
}

}  // namespace cosparse
