#include "handles.h"

namespace cosparse {
namespace {

int64_t floats(const Shape& s) { return s.n * s.c * s.h * s.w; }

std::vector<const float*> arrays(const float* const* inputs, size_t count) {
  given(inputs, "inputs");
  for (size_t i = 0; i < count; ++i) given(inputs[i], "inputs[i]");
  return {inputs, inputs + count};
}

// Into a context's own memory, without making any.
void take(cosparse_context& context, const float* const* inputs) {
  given(inputs, "inputs");
  for (size_t i = 0; i < context.inputs.size(); ++i) context.inputs[i] = given(inputs[i], "inputs[i]");
}

}  // namespace
}  // namespace cosparse

using namespace cosparse;

extern "C" {

cosparse_status cosparse_warm_up(cosparse_engine* engine, const cosparse_shape* inputs, size_t input_count) {
  return guarded([&] {
    Engine& e = *given(engine, "engine")->engine;
    const std::vector<Shape> shapes = shapes_of(e, inputs, input_count);
    engine->warn(e.tune(shapes));
    const auto schedule = e.schedule(shapes);
    std::vector<std::vector<float>> in, out;
    std::vector<const float*> from;
    std::vector<float*> to;
    for (const Shape& s : shapes) from.push_back(in.emplace_back(floats(s)).data());
    for (const Shape& s : schedule->outputs) to.push_back(out.emplace_back(floats(s)).data());
    e.run(*schedule, from, to);
  });
}

cosparse_status cosparse_run(const cosparse_engine* engine, const cosparse_shape* shapes, const float* const* inputs, size_t input_count,
                             float* const* outputs, const size_t* output_floats, size_t output_count) {
  return guarded([&] {
    const Engine& e = *given(engine, "engine")->engine;
    const auto schedule = e.schedule(shapes_of(e, shapes, input_count));
    const std::vector<const float*> from = arrays(inputs, input_count);
    if (output_count != schedule->outputs.size())
      throw Error(Fault::usage, "output_count", std::to_string(schedule->outputs.size()), std::to_string(output_count),
                  "cosparse_output_count() tells");
    given(outputs, "outputs"), given(output_floats, "output_floats");
    for (size_t j = 0; j < output_count; ++j) {
      given(outputs[j], "outputs[j]");
      const int64_t need = floats(schedule->outputs[j]);
      if (output_floats[j] < static_cast<size_t>(need))
        throw Error(Fault::shape, "output '" + engine->names[j] + "'", std::to_string(need) + " floats", std::to_string(output_floats[j]),
                    "cosparse_output_shapes() tells how many");
    }
    e.run(*schedule, from, {outputs, outputs + output_count});
  });
}

cosparse_status cosparse_context_create(const cosparse_engine* engine, const cosparse_shape* inputs, size_t input_count,
                                        cosparse_context** context) {
  return guarded([&] {
    given(context, "context");
    auto made = std::make_unique<cosparse_context>();
    made->engine = given(engine, "engine")->engine;
    made->schedule = made->engine->schedule(shapes_of(*made->engine, inputs, input_count));
    made->memory = made->engine->make_context(*made->schedule);
    made->inputs.resize(input_count), made->outputs.resize(made->schedule->outputs.size());
    *context = made.release();
  });
}

void cosparse_context_free(cosparse_context* context) { delete context; }

cosparse_shape cosparse_context_output(const cosparse_context* context, size_t index) {
  if (!context || index >= context->schedule->outputs.size()) return {};
  return to_c(context->schedule->outputs[index], false);
}

cosparse_view cosparse_context_output_view(const cosparse_context* context, size_t index) {
  cosparse_view view = {};
  if (context && index < context->schedule->outputs.size())
    guarded([&] { view = to_view(context->engine->graph(), index, context->schedule->outputs[index]); });
  return view;
}

cosparse_status cosparse_context_run(cosparse_context* context, const float* const* inputs, float* const* outputs) {
  return guarded([&] {
    take(*given(context, "context"), inputs);
    given(outputs, "outputs");
    for (size_t j = 0; j < context->outputs.size(); ++j) context->outputs[j] = given(outputs[j], "outputs[j]");
    context->engine->run_in(*context->memory, *context->schedule, context->inputs, context->outputs);
  });
}

size_t cosparse_context_step_count(const cosparse_context* context) {
  return context ? context->schedule->rows() : 0;
}

cosparse_status cosparse_context_profile(cosparse_context* context, const float* const* inputs, int32_t repeat, cosparse_step* steps,
                                         size_t step_count) {
  return guarded([&] {
    take(*given(context, "context"), inputs);
    const auto& plan = context->schedule->parts[0].plan->steps;
    if (step_count != plan.size())
      throw Error(Fault::usage, "step_count", std::to_string(plan.size()), std::to_string(step_count), "cosparse_context_step_count() tells");
    given(steps, "steps");
    const std::vector<StepTime> times = context->engine->profile_in(*context->memory, *context->schedule, context->inputs, repeat);
    const cosparse::Schedule& schedule = *context->schedule;
    const auto flops = schedule.counts(&Step::flops), basis = schedule.counts(&Step::basis_flops), dense = schedule.counts(&Step::dense_flops);
    for (size_t i = 0; i < step_count; ++i) {
      const Step& s = plan[i];
      steps[i] = {s.name.c_str(),
                  s.op.c_str(),
                  s.kernel.c_str(),
                  s.why.c_str(),
                  times[i].median_us,
                  times[i].min_us,
                  s.density,
                  flops[i] + basis[i],
                  dense[i],
                  s.bytes};
    }
  });
}
}
