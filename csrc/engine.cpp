#include "engine.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

#include "calibrate.h"
#include "cores.h"
#include "error.h"
#include "memory_limit.h"
#include "shape.h"

namespace cosparse {

namespace {

constexpr int64_t kCachedFloats = 2 << 20;  // of activations that run together: a last-level cache holds them beside the weights

Options checked(Options options) {
  if (options.threads < 1 || options.threads > 1024)
    throw Error(Fault::usage, "threads", "1 to 1024", std::to_string(options.threads), "leave it out to use one thread a core");
  if (options.tile < 0)
    throw Error(Fault::usage, "tile", "the widest tile of conv kernels, 0 for the plan's choice", std::to_string(options.tile), "");
  if (options.contexts < 0) throw Error(Fault::usage, "contexts", "at least 1, or 0 for as many as cores", std::to_string(options.contexts), "");
  if (options.contexts == 0) options.contexts = std::max(options.threads, (int)available_cores().size());
  check_cores(options.cores);
  if (options.max_memory < 0)
    throw Error(Fault::usage, "max_memory", "bytes, or 0 for what the machine has left", std::to_string(options.max_memory), "");
  return options;
}

// The largest value alone, before anything is packed in proportion to its channels. Plans know the rest.
void require_values(const Graph& graph, int64_t most) {
  std::vector<Shape> examples;
  for (const Input& input : graph.inputs) examples.push_back(input.example);
  const std::vector<Shape> shapes = infer_shapes(graph, examples);
  for (size_t v = 0; v < shapes.size(); ++v)
    require_memory("value '" + graph.value_name((int)v) + "'", "activations", shapes[v].c * shapes[v].pixels() * (int64_t)sizeof(float),
                   text_of(shapes[v]), most);
}

}  // namespace

Engine::Engine(std::shared_ptr<const Graph> graph, Options options, const std::map<int, Quantization>& steps)
    : Engine(std::move(graph), nullptr, options, steps) {}

Engine::Engine(std::unique_ptr<StoredWeights> stored, Options options, const std::map<int, Quantization>& steps)
    : Engine(stored->graph(), stored.get(), options, steps) {}

Engine::Engine(std::shared_ptr<const Graph> graph, StoredWeights* stored, Options options, const std::map<int, Quantization>& steps)
    : graph_(std::move(graph)), options_(checked(std::move(options))), pool_(options_.threads, options_.cores), contexts_(options_.contexts) {
  require_values(*graph_, options_.max_memory);
  const KeptOn here(options_.cores);  // what this thread packs lies beside the cores too
  std::map<int, Form> forms;
  if (options_.tune && !options_.dense) {
    forms = measure(steps);
  } else {
    for (int n = 0; n < (int)graph_->nodes.size(); ++n)
      if (is_weighted(graph_->nodes[n])) forms[n] = options_.dense ? Form::dense : cheapest_form(graph_->nodes[n]);
  }
  pack(forms, steps, stored);
}

void Engine::pack(const std::map<int, Form>& forms, const std::map<int, Quantization>& steps, StoredWeights* stored) {
  const std::vector<std::pair<int, Form>> layers(forms.begin(), forms.end());
  int64_t bytes = 0, most = 0;
  for (const auto& [n, form] : layers) {
    bytes += graph_->nodes[n].tensor("values")->bytes();
    most += most_coefficients(graph_->nodes[n], form) * (int64_t)sizeof(float);
  }
  require_memory("network '" + graph_->name + "'", "packed weights", most, std::to_string(layers.size()) + " layers", options_.max_memory);
  std::vector<Slab> slabs(options_.threads, Slab(bytes >= kManyBytes));  // one a thread, so that none waits for another
  std::vector<std::shared_ptr<const Weights>> packed(layers.size());
  std::vector<std::exception_ptr> failed(layers.size());
  pool_.each((int64_t)layers.size(), [&](int64_t i, int slot) {
    try {
      packed[i] = prepare(layers[i].first, layers[i].second, steps, slabs[slot]);
      if (stored) stored->give_up(graph_->nodes[layers[i].first]);
    } catch (...) {  // a body of the pool must not throw
      failed[i] = std::current_exception();
    }
  });
  for (size_t i = 0; i < layers.size(); ++i) {
    if (failed[i]) std::rethrow_exception(failed[i]);
    if (options_.number == Number::observe) prepared_.ranges[layers[i].first] = no_range(*packed[i]);
    prepared_.weights[layers[i].first] = std::move(packed[i]);
  }
}

std::shared_ptr<const Weights> Engine::prepare(int node, Form form, const std::map<int, Quantization>& steps, Slab& slab) const {
  Recipe recipe;
  recipe.form = form, recipe.number = options_.number, recipe.isa = options_.isa;
  if (options_.number == Number::int8) recipe.quantization = &steps.at(node);
  return prepare_weights(graph_->nodes[node], recipe, slab);
}

std::shared_ptr<const Schedule> Engine::schedule(const std::vector<Shape>& inputs) const {
  {
    std::lock_guard<std::mutex> guard(lock_);
    for (auto at = schedules_.begin(); at != schedules_.end(); ++at)
      if (at->first == inputs) {
        schedules_.splice(schedules_.begin(), schedules_, at);
        return schedules_.front().second;
      }
  }
  const auto known = choices();
  auto schedule = make_schedule(inputs, *known);
  std::lock_guard<std::mutex> guard(lock_);
  if (choices_ != known) return schedule;  // for this call; the next one shall have what has been measured meanwhile
  schedules_.emplace_front(inputs, schedule);
  if (schedules_.size() > kPlans) schedules_.pop_back();
  return schedule;
}

std::shared_ptr<const Schedule> Engine::make_schedule(const std::vector<Shape>& inputs, const Choices& choices) const {
  const std::vector<Shape> shapes = infer_shapes(*graph_, inputs);  // refuses what the whole batch does not allow
  const auto plan_of = [&](int64_t images) {
    std::vector<Shape> part = inputs;
    for (Shape& s : part) s.n = images;
    return make_plan(*graph_, options_, prepared_for(infer_shapes(*graph_, part), choices), part);
  };
  auto schedule = std::make_shared<Schedule>();
  int64_t results = 0;
  for (int v : graph_->outputs) {
    schedule->outputs.push_back(shapes[v]);
    results += shapes[v].c * shapes[v].pixels() * (int64_t)sizeof(float);
  }
  require_memory("network '" + graph_->name + "'", "results", results, text_of(inputs[0]), options_.max_memory);
  const int64_t batch = inputs[0].n;
  auto one = plan_of(1);
  const int64_t at_once = std::clamp<int64_t>(kCachedFloats / std::max<int64_t>(1, one->arena_floats), 1, batch);
  schedule->parts.push_back({at_once == 1 ? one : plan_of(at_once), batch / at_once});
  if (batch % at_once) schedule->parts.push_back({plan_of(batch % at_once), 1});
  return schedule;
}

std::unique_ptr<Context> Engine::make_context(const Schedule& schedule) const {
  auto context = std::make_unique<Context>();
  grow(*context, schedule);
  return context;
}

void Engine::grow(Context& context, const Schedule& schedule) const {
  const auto to = [](Floats& memory, int64_t& have, int64_t need) {
    if (have >= need) return;
    memory.reset();  // first, so that the peak is the new size alone
    have = 0;
    memory = allocate_floats(need);
    std::memset(memory.get(), 0,
                need * sizeof(float));  // what lies between planes is read (never used), so it must not be a signalling or denormal pattern
    have = need;
  };
  for (const Schedule::Part& part : schedule.parts) {
    to(context.arena, context.arena_floats, part.plan->arena_floats);
    to(context.scratch, context.scratch_floats, part.plan->scratch_floats * options_.threads);
  }
  const int64_t bytes = (context.arena_floats + context.scratch_floats) * (int64_t)sizeof(float);
  for (int64_t most = arena_bytes_; most < bytes && !arena_bytes_.compare_exchange_weak(most, bytes);) {}
}

void Engine::read_inputs(const Plan& plan, float* arena, const std::vector<const float*>& inputs, int64_t first) const {
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Shape& s = plan.shapes[i];
    const int64_t image = s.h * s.w;
    pool_.each(s.c, [&](int64_t c, int) {
      float* to = arena + plan.places[i].offset + c * plan.places[i].plane;
      for (int64_t n = 0; n < s.n; ++n) std::memcpy(to + n * image, inputs[i] + ((first + n) * s.c + c) * image, image * sizeof(float));
    });
  }
}

void Engine::write_outputs(const Plan& plan, const float* arena, const std::vector<float*>& outputs, int64_t first) const {
  for (size_t i = 0; i < outputs.size(); ++i) {
    const Shape& s = plan.shapes[graph_->outputs[i]];
    const Place& at = plan.places[graph_->outputs[i]];
    const int64_t image = s.h * s.w;
    pool_.each(s.c, [&](int64_t c, int) {
      const float* from = arena + at.offset + c * at.plane;
      for (int64_t n = 0; n < s.n; ++n) std::memcpy(outputs[i] + ((first + n) * s.c + c) * image, from + n * image, image * sizeof(float));
    });
  }
}

void Engine::run(const Schedule& schedule, const std::vector<const float*>& inputs, const std::vector<float*>& outputs) const {
  Contexts::Lease context(contexts_);
  grow(*context, schedule);
  run_in(*context, schedule, inputs, outputs);
}

void Engine::run_in(Context& context, const Schedule& schedule, const std::vector<const float*>& inputs,
                    const std::vector<float*>& outputs) const {
  if (options_.poison) {
    std::fill_n(context.arena.get(), context.arena_floats, NAN);
    std::fill_n(context.scratch.get(), context.scratch_floats, NAN);
  }
  int64_t first = 0;
  for (const Schedule::Part& part : schedule.parts) {
    const Run run{context.arena.get(), context.scratch.get(), part.plan->scratch_floats, pool_};
    for (int64_t i = 0; i < part.times; ++i, first += part.plan->shapes[0].n) {
      read_inputs(*part.plan, run.arena, inputs, first);
      for (const Step& step : part.plan->steps) step.run(run);
      write_outputs(*part.plan, run.arena, outputs, first);
    }
  }
}

std::vector<StepTime> Engine::profile(const Schedule& schedule, const std::vector<const float*>& inputs, int repeat) const {
  Contexts::Lease context(contexts_);
  grow(*context, schedule);
  return profile_in(*context, schedule, inputs, repeat);
}

std::vector<StepTime> Engine::profile_in(Context& context, const Schedule& schedule, const std::vector<const float*>& inputs,
                                         int repeat) const {
  if (repeat < 1) throw Error(Fault::usage, "repeat", "at least 1", std::to_string(repeat), "");
  const size_t steps = schedule.parts[0].plan->steps.size();
  std::vector<std::vector<double>> us(steps);
  for (int i = 0; i < repeat; ++i) {
    std::vector<double> spent(steps, 0);
    int64_t first = 0;
    for (const Schedule::Part& part : schedule.parts) {
      const Run run{context.arena.get(), context.scratch.get(), part.plan->scratch_floats, pool_};
      for (int64_t t = 0; t < part.times; ++t, first += part.plan->shapes[0].n) {
        read_inputs(*part.plan, run.arena, inputs, first);
        for (size_t s = 0; s < steps; ++s) {
          const auto start = std::chrono::steady_clock::now();
          part.plan->steps[s].run(run);
          spent[s] += std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
        }
      }
    }
    for (size_t s = 0; s < steps; ++s) us[s].push_back(spent[s]);
  }
  std::vector<StepTime> times;
  for (auto& t : us) {
    std::sort(t.begin(), t.end());
    times.push_back({t[t.size() / 2], t.front()});
  }
  return times;
}

int64_t Engine::weight_bytes() const {
  int64_t bytes = 0;
  for (const auto& [node, weights] : prepared_.weights) bytes += weights->bytes;
  return bytes;
}

}  // namespace cosparse
