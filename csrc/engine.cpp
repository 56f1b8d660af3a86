#include "engine.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

#include "error.h"

namespace cosparse {

namespace {

Options checked(Options options) {
  if (options.threads < 1 || options.threads > 1024)
    throw Error(Fault::usage, "threads", "1 to 1024", std::to_string(options.threads), "leave it out to use one thread a core");
  if (options.tile < 0)
    throw Error(Fault::usage, "tile", "the widest tile of conv kernels, 0 for the plan's choice", std::to_string(options.tile), "");
  return options;
}

}  // namespace

Engine::Engine(std::shared_ptr<const Graph> graph, Options options)
    : graph_(std::move(graph)), options_(checked(options)), pool_(options_.threads) {
  for (size_t n = 0; n < graph_->nodes.size(); ++n)
    if (const std::string& op = graph_->nodes[n].op; op == "conv" || op == "linear") {
      Recipe recipe;
      recipe.form = cheapest_form(graph_->nodes[n]), recipe.number = options_.number;
      weights_[(int)n] = prepare_weights(graph_->nodes[n], recipe);
    }
}

std::shared_ptr<const Plan> Engine::plan(const std::vector<Shape>& inputs) const {
  {
    std::lock_guard<std::mutex> guard(lock_);
    for (auto at = plans_.begin(); at != plans_.end(); ++at)
      if (at->first == inputs) {
        plans_.splice(plans_.begin(), plans_, at);
        return plans_.front().second;
      }
  }
  auto plan = make_plan(*graph_, options_, weights_, inputs);
  std::lock_guard<std::mutex> guard(lock_);
  plans_.emplace_front(inputs, plan);
  if (plans_.size() > kPlans) plans_.pop_back();
  return plan;
}

std::unique_ptr<Engine::Context> Engine::take_context(const Plan& plan) const {
  std::unique_ptr<Context> context;
  {
    std::lock_guard<std::mutex> guard(lock_);
    if (!contexts_.empty()) context = std::move(contexts_.back()), contexts_.pop_back();
  }
  if (!context) context = std::make_unique<Context>();
  const auto grow = [](Floats& memory, int64_t& have, int64_t need) {
    if (have >= need) return;
    memory.reset();  // first, so that the peak is the new size alone
    have = 0;
    memory = allocate_floats(need);
    std::memset(memory.get(), 0,
                need * sizeof(float));  // what lies between planes is read (never used), so it must not be a signalling or denormal pattern
    have = need;
  };
  grow(context->arena, context->arena_floats, plan.arena_floats);
  grow(context->scratch, context->scratch_floats, plan.scratch_floats * options_.threads);
  if (options_.poison) {
    std::fill_n(context->arena.get(), context->arena_floats, NAN);
    std::fill_n(context->scratch.get(), context->scratch_floats, NAN);
  }
  return context;
}

void Engine::give_back(std::unique_ptr<Context> context) const {
  std::lock_guard<std::mutex> guard(lock_);
  contexts_.push_back(std::move(context));
}

void Engine::read_inputs(const Plan& plan, float* arena, const std::vector<const float*>& inputs) const {
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Shape& s = plan.shapes[i];
    const int64_t image = s.h * s.w;
    pool_.each(s.c, [&](int64_t c, int) {
      float* to = arena + plan.places[i].offset + c * plan.places[i].plane;
      for (int64_t n = 0; n < s.n; ++n) std::memcpy(to + n * image, inputs[i] + (n * s.c + c) * image, image * sizeof(float));
    });
  }
}

void Engine::run(const Plan& plan, const std::vector<const float*>& inputs, const std::vector<float*>& outputs) const {
  std::unique_ptr<Context> context = take_context(plan);
  float* arena = context->arena.get();
  read_inputs(plan, arena, inputs);
  const Run run{arena, context->scratch.get(), plan.scratch_floats, pool_};
  for (const Step& step : plan.steps) step.run(run);
  for (size_t i = 0; i < outputs.size(); ++i) {
    const Shape& s = plan.shapes[graph_->outputs[i]];
    const Place& at = plan.places[graph_->outputs[i]];
    const int64_t image = s.h * s.w;
    for (int64_t c = 0; c < s.c; ++c)
      for (int64_t n = 0; n < s.n; ++n)
        std::memcpy(outputs[i] + (n * s.c + c) * image, arena + at.offset + c * at.plane + n * image, image * sizeof(float));
  }
  give_back(std::move(context));
}

std::vector<StepTime> Engine::profile(const Plan& plan, const std::vector<const float*>& inputs, int repeat) const {
  std::unique_ptr<Context> context = take_context(plan);
  const Run run{context->arena.get(), context->scratch.get(), plan.scratch_floats, pool_};
  std::vector<std::vector<double>> us(plan.steps.size());
  for (int i = 0; i < repeat; ++i) {
    read_inputs(plan, context->arena.get(), inputs);
    for (size_t s = 0; s < plan.steps.size(); ++s) {
      const auto start = std::chrono::steady_clock::now();
      plan.steps[s].run(run);
      us[s].push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count());
    }
  }
  give_back(std::move(context));
  std::vector<StepTime> times;
  for (auto& t : us) {
    std::sort(t.begin(), t.end());
    times.push_back({t[t.size() / 2], t.front()});
  }
  return times;
}

int64_t Engine::weight_bytes() const {
  int64_t bytes = 0;
  for (const auto& [node, weights] : weights_) bytes += weights->bytes;
  return bytes;
}

}  // namespace cosparse
