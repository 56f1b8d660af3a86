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

Options checked(Options options) {
  if (options.threads < 1 || options.threads > 1024)
    throw Error(Fault::usage, "threads", "1 to 1024", std::to_string(options.threads), "leave it out to use one thread a core");
  if (options.tile < 0)
    throw Error(Fault::usage, "tile", "the widest tile of conv kernels, 0 for the plan's choice", std::to_string(options.tile), "");
  if (options.contexts < 0 || options.contexts > 4096)
    throw Error(Fault::usage, "contexts", "1 to 4096, or 0 for as many as cores", std::to_string(options.contexts),
                "each call that runs takes one, and a thread of the caller's");
  if (options.contexts == 0) options.contexts = std::max(options.threads, (int)available_cores().size());
  check_cores(options.cores);
  if (options.max_memory < 0)
    throw Error(Fault::usage, "max_memory", "bytes, or 0 for what the machine has left", std::to_string(options.max_memory), "");
  return options;
}

namespace {

// The largest value alone, before anything is packed in proportion to its channels. Plans know the rest. Returns the bytes of all.
int64_t require_values(const Graph& graph, int64_t most) {
  int64_t all = 0;
  const std::vector<Shape> shapes = infer_shapes(graph, example_shapes(graph));
  for (size_t v = 0; v < shapes.size(); ++v) {
    const int64_t bytes = shapes[v].c * shapes[v].pixels() * (int64_t)sizeof(float);
    require_memory("value '" + graph.value_name((int)v) + "'", "activations", bytes, text_of(shapes[v]), most);
    all += bytes;
  }
  return all;
}

}  // namespace

Engine::Engine(std::shared_ptr<const Graph> graph, Options options, const std::map<int, Quantization>& steps)
    : Engine(std::move(graph), nullptr, options, steps) {}

Engine::Engine(std::unique_ptr<StoredWeights> stored, Options options, const std::map<int, Quantization>& steps)
    : Engine(stored->graph(), stored.get(), options, steps) {}

Engine::Engine(std::shared_ptr<const Graph> graph, StoredWeights* stored, Options options, const std::map<int, Quantization>& steps)
    : graph_(std::move(graph)),
      options_(checked(std::move(options))),
      pool_(options_.threads, options_.cores),
      contexts_(options_.contexts) {
  value_bytes_ = require_values(*graph_, options_.max_memory);
  const KeptOn here(options_.cores);  // what this thread packs lies beside the cores too
  std::map<int, Form> forms;
  if (options_.tune) {
    forms = measure(steps);
  } else {
    for (int n = 0; n < (int)graph_->nodes.size(); ++n)
      if (is_weighted(graph_->nodes[n])) forms[n] = forms_for(graph_->nodes[n])[0];
  }
  pack(forms, steps, stored);
}

std::vector<Form> Engine::forms_for(const Node& node) const {
  const bool winograd = options_.winograd != Winograd::never && options_.number == Number::f32 && has_winograd(node) &&
                        memory_allows(value_bytes_ + options_.threads * most_winograd_scratch(node), options_.max_memory);
  if (winograd && options_.winograd == Winograd::always) return {Form::winograd};
  std::vector<Form> forms{options_.dense ? Form::dense : cheapest_form(node)};
  if (!options_.dense)
    for (const Form form : forms_of(node))
      if (form != forms[0]) forms.push_back(form);
  if (winograd) forms.push_back(Form::winograd);
  return forms;
}

int64_t Engine::most_bytes(const std::map<int, Form>& forms) const {
  int64_t bytes = 0;
  for (const auto& [n, form] : forms) bytes += most_coefficients(graph_->nodes[n], form) * (int64_t)sizeof(float);
  return bytes;
}

void Engine::require_weights(const std::map<int, Form>& forms) const {
  require_memory("network '" + graph_->name + "'", "packed weights", most_bytes(forms), std::to_string(forms.size()) + " layers",
                 options_.max_memory);
}

void Engine::pack(const std::map<int, Form>& forms, const std::map<int, Quantization>& steps, StoredWeights* stored) {
  const std::vector<std::pair<int, Form>> layers(forms.begin(), forms.end());
  require_weights(forms);
  int64_t bytes = 0;
  for (const auto& [n, form] : layers) bytes += graph_->nodes[n].tensor("values")->bytes();
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
  std::unique_lock<std::mutex> guard(lock_);
  for (;;) {
    for (auto at = schedules_.begin(); at != schedules_.end(); ++at)
      if (at->first == inputs) {
        schedules_.splice(schedules_.begin(), schedules_, at);
        return schedules_.front().second;
      }
    const auto before = known_;
    guard.unlock();
    auto schedule = make_schedule(inputs, *before);
    guard.lock();
    if (known_ != before) continue;  // with what has been measured, or kept, meanwhile
    schedules_.emplace_front(inputs, schedule);
    if (schedules_.size() > kPlans) schedules_.pop_back();
    return schedule;
  }
}

void Engine::keep_choice(const Schedule& schedule) const {
  if (schedule.key.empty() || schedule.kept) return;
  std::lock_guard<std::mutex> guard(lock_);
  if (!known_->batches.count(schedule.key)) {
    auto more = std::make_shared<Known>(*known_);
    more->batches.emplace(schedule.key, schedule.choice);
    known_ = std::move(more);
  }
  schedule.kept = true;
}

std::unique_ptr<Context> Engine::make_context(const Schedule& schedule) const {
  keep_choice(schedule);
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
    to(context.arena, context.arena_floats, part.plan->arena_floats * (part.apart ? options_.threads : 1));
    to(context.scratch, context.scratch_floats, part.plan->scratch_floats * options_.threads);
  }
  const int64_t bytes = (context.arena_floats + context.scratch_floats) * (int64_t)sizeof(float);
  for (int64_t most = arena_bytes_; most < bytes && !arena_bytes_.compare_exchange_weak(most, bytes);) {}
}

void Engine::read_inputs(const Plan& plan, const Run& run, const std::vector<const float*>& inputs, int64_t first) const {
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (plan.readers[i] == 0) continue;
    const Shape& s = plan.shapes[i];
    const int64_t image = s.h * s.w;
    run.pool.each(s.c, [&](int64_t c, int) {
      float* to = run.arena + plan.places[i].offset + c * plan.places[i].plane;
      for (int64_t n = 0; n < s.n; ++n) std::memcpy(to + n * image, inputs[i] + ((first + n) * s.c + c) * image, image * sizeof(float));
    });
  }
}

void Engine::write_outputs(const Plan& plan, const Run& run, const std::vector<float*>& outputs, int64_t first) const {
  for (size_t i = 0; i < outputs.size(); ++i) {
    const Shape& s = plan.shapes[graph_->outputs[i]];
    const Place& at = plan.places[graph_->outputs[i]];
    const int64_t image = s.h * s.w;
    run.pool.each(s.c, [&](int64_t c, int) {
      const float* from = run.arena + at.offset + c * at.plane;
      for (int64_t n = 0; n < s.n; ++n) std::memcpy(outputs[i] + ((first + n) * s.c + c) * image, from + n * image, image * sizeof(float));
    });
  }
}

// steps(plan, run, slot) for every run of every part; slot: of the thread, 0 where all threads share the run.
template <class Steps> void Engine::run_parts(Context& context, const Schedule& schedule, const std::vector<const float*>& inputs,
                                              const std::vector<float*>& outputs, const Steps& steps) const {
  keep_choice(schedule);
  int64_t first = 0;
  for (const Schedule::Part& part : schedule.parts) {
    const Plan& plan = *part.plan;
    const int64_t images = plan.shapes[0].n;
    const auto once = [&](int64_t time, int slot, Pool& pool) {
      const Run run{context.arena.get() + slot * plan.arena_floats,
                    context.scratch.get() + slot * plan.scratch_floats,
                    plan.scratch_floats,
                    pool,
                    &inputs,
                    first + time * images};
      read_inputs(plan, run, inputs, first + time * images);
      steps(plan, run, slot);
      write_outputs(plan, run, outputs, first + time * images);
    };
    if (part.apart)
      pool_.each(part.times, [&](int64_t time, int slot) { once(time, slot, alone_); });
    else
      for (int64_t time = 0; time < part.times; ++time) once(time, 0, pool_);
    first += part.times * images;
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
  run_parts(context, schedule, inputs, outputs, [](const Plan& plan, const Run& run, int) {
    for (const Step& step : plan.steps) step(run);
  });
}

std::vector<StepTime> Engine::profile(const Schedule& schedule, const std::vector<const float*>& inputs, int repeat) const {
  Contexts::Lease context(contexts_);
  grow(*context, schedule);
  return profile_in(*context, schedule, inputs, repeat);
}

std::vector<StepTime> Engine::profile_in(Context& context, const Schedule& schedule, const std::vector<const float*>& inputs,
                                         int repeat) const {
  if (repeat < 1) throw Error(Fault::usage, "repeat", "at least 1", std::to_string(repeat), "");
  const size_t steps = schedule.rows();
  std::map<const Plan*, std::vector<size_t>> rows;
  for (const Schedule::Part& part : schedule.parts) rows[part.plan.get()] = schedule.rows_of(*part.plan);
  std::vector<std::vector<double>> us(steps);
  for (int i = 0; i < repeat; ++i) {
    std::vector<std::vector<double>> spent(options_.threads, std::vector<double>(steps + 1, 0));  // by the thread that ran a part
    run_parts(context, schedule, inputs, {}, [&](const Plan& plan, const Run& run, int slot) {
      const double share = &run.pool == &alone_ ? options_.threads : 1;  // of the time that passes, where each thread has a run of its own
      const std::vector<size_t>& row = rows.at(&plan);
      for (size_t s = 0; s < row.size(); ++s) {
        if (!plan.steps[s].run) continue;
        const auto start = std::chrono::steady_clock::now();
        plan.steps[s].run(run);
        spent[slot][row[s]] += std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count() / share;
      }
    });
    for (size_t s = 0; s < steps; ++s) {
      double all = 0;
      for (const auto& own : spent) all += own[s];
      us[s].push_back(all);
    }
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
