// Engine::tune: the widths of tiles for shapes other than the example's, and how batches run. The forms stay: weights are packed, and shared by
// all shapes.
#include <algorithm>

#include "checksum.h"
#include "engine.h"
#include "layer.h"
#include "shape.h"
#include "tune_cache.h"
#include "ways.h"

namespace cosparse {

namespace {

constexpr double kBatchSeconds = 1;  // for a batch that runs apart and together, where two rounds do not take longer

// Apart from what is found at load, where all forms are timed: this form alone.
Kinds in_their_forms(Kinds kinds, const Prepared& prepared) {
  for (auto& [n, kind] : kinds) kind += std::string(" as ") + name_of(prepared.weights.at(n)->form);
  return kinds;
}

std::vector<Shape> inputs_of(const Graph& graph, const Plan& plan) {
  return {plan.shapes.begin(), plan.shapes.begin() + (int64_t)graph.inputs.size()};
}

// Networks of one name are told apart by their layers.
std::string batch_signature(const Graph& graph, const std::vector<Shape>& inputs, const Prepared& prepared, bool dense) {
  Blake2b hash;
  std::string sizes;
  for (const auto& [n, kind] : in_their_forms(kinds_of(graph, infer_shapes(graph, inputs)), prepared)) hash.update(kind.data(), kind.size());
  for (const Shape& s : inputs) sizes += " " + text_of(s);
  return graph.name + " " + hash.hex().substr(0, 16) + sizes + (dense ? " dense" : "");
}

}  // namespace

std::shared_ptr<const Known> Engine::known() const {
  std::lock_guard<std::mutex> guard(lock_);
  return known_;
}

Prepared Engine::prepared_for(const std::vector<Shape>& shapes, const Choices& choices) const {
  Prepared prepared{prepared_.weights, prepared_.ranges, {}};
  for (const auto& [n, weights] : prepared_.weights) {
    const int64_t pixels = shapes[graph_->inputs.size() + n].pixels();
    const auto same = choices.find({n, pixels}), any = choices.lower_bound({n, 0});
    if (same != choices.end())
      prepared.choices[n] = same->second;
    else if (any != choices.end() && any->first.first == n)
      prepared.choices[n] = {0, 0, any->second.why + " at " + std::to_string(any->first.second) + " pixels; tile by rule"};
  }
  return prepared;
}

void Engine::tune_tiles(const Schedule& schedule, TuneCache& cache, Known& known) {
  for (const Schedule::Part& part : schedule.parts) {
    const Kinds kinds = in_their_forms(kinds_of(*graph_, part.plan->shapes), prepared_);
    const auto pixels = [&](int n) { return part.plan->shapes[graph_->inputs.size() + n].pixels(); };
    Kinds missing;  // neither timed at load nor before
    for (const auto& [n, kind] : kinds)
      if (!describe(graph_->nodes[n]).depthwise() && !known.layers.count({n, pixels(n)}) && !cache.find(kind)) missing[n] = kind;
    if (!missing.empty()) {
      Found found;
      time_tiles(*graph_, options_, {prepared_.weights, {}, {}}, inputs_of(*graph_, *part.plan), missing, pool_, found);
      measured_ += cache.keep(std::move(found));
    }
    for (const auto& [n, kind] : kinds)
      if (const Measured* m = cache.find(kind); m && !describe(graph_->nodes[n]).depthwise())
        known.layers.try_emplace({n, pixels(n)}, Choice{m->tile, pixels(n), reason(*m)});
  }
}

// Apart, and together, in turn.
BatchTimes Engine::time_batch(const std::vector<Shape>& inputs, const Known& known) const {
  std::vector<Floats> arrays;
  const auto array = [&](const Shape& s) {
    const int64_t floats = s.c * s.pixels();
    arrays.push_back(allocate_floats(floats));
    std::fill_n(arrays.back().get(), floats, 0.f);
    return arrays.back().get();
  };
  std::vector<const float*> from;
  std::vector<float*> to;
  for (const Shape& s : inputs) from.push_back(array(s));
  const std::shared_ptr<const Schedule> ways[] = {make_schedule(inputs, known, Batches::apart),
                                                  make_schedule(inputs, known, Batches::together)};
  for (const Shape& s : ways[0]->outputs) to.push_back(array(s));
  Context context;
  for (const auto& way : ways) grow(context, *way);
  double us[] = {1e30, 1e30};
  const auto start = Clock::now();
  for (int round = 0; once_more(round, since(start), kBatchSeconds); ++round)
    for (int way = 0; way < 2; ++way) {
      const auto begin = Clock::now();
      run_in(context, *ways[way], from, to);
      if (round > 0) us[way] = std::min(us[way], since(begin) * 1e6);
    }
  return {us[0], us[1]};
}

void Engine::tune_batch(const std::vector<Shape>& inputs, TuneCache& cache, Known& known) {
  const auto key = batch_key(inputs, inputs[0].n);
  if (known.batches.count(key)) return;
  const std::string signature = batch_signature(*graph_, inputs, prepared_, options_.dense);
  if (!cache.find_batch(signature)) {
    cache.put_batch(signature, time_batch(inputs, known));
    cache.save();
  }
  known.batches[key] = choose_batch(*cache.find_batch(signature));
}

std::string Engine::tune(const std::vector<Shape>& inputs) {
  if (!options_.tune) return "";
  std::lock_guard<std::mutex> one(pool_.turn());
  TuneCache cache(options_);
  Known found = *known();
  tune_tiles(*make_schedule(inputs, found, Batches::together), cache, found);
  if (const auto apart = make_schedule(inputs, found, Batches::apart); apart->apart()) {
    tune_tiles(*apart, cache, found);
    std::vector<Shape> measured = inputs;
    for (Shape& s : measured) s.n = apart->measured;
    tune_batch(measured, cache, found);
  }
  std::lock_guard<std::mutex> guard(lock_);
  for (const auto& [key, choice] : known_->batches) found.batches[key] = choice;  // calls have run so meanwhile
  known_ = std::make_shared<const Known>(std::move(found));
  schedules_.clear();  // those in use live on with their callers
  return cache.warning();
}

}  // namespace cosparse
