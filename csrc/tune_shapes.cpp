// Engine::tune: the widths of tiles for shapes other than the example's. The forms stay: weights are packed, and shared by all shapes.
#include "engine.h"
#include "layer.h"
#include "tune_cache.h"
#include "ways.h"

namespace cosparse {

namespace {

// Apart from what is found at load, where all forms are timed: this form alone.
Kinds in_their_forms(Kinds kinds, const Prepared& prepared) {
  for (auto& [n, kind] : kinds) kind += std::string(" as ") + name_of(prepared.weights.at(n)->form);
  return kinds;
}

std::vector<Shape> inputs_of(const Graph& graph, const Plan& plan) {
  return {plan.shapes.begin(), plan.shapes.begin() + (int64_t)graph.inputs.size()};
}

}  // namespace

std::shared_ptr<const Choices> Engine::choices() const {
  std::lock_guard<std::mutex> guard(lock_);
  return choices_;
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

std::string Engine::tune(const std::vector<Shape>& inputs) {
  if (!options_.tune || options_.dense) return "";
  std::lock_guard<std::mutex> one(pool_.turn());
  TuneCache cache(options_);
  Choices known = *choices();
  const auto planned = schedule(inputs);
  for (const Schedule::Part& part : planned->parts) {
    const Kinds kinds = in_their_forms(kinds_of(*graph_, part.plan->shapes), prepared_);
    const auto pixels = [&](int n) { return part.plan->shapes[graph_->inputs.size() + n].pixels(); };
    Kinds missing;  // neither timed at load nor before
    for (const auto& [n, kind] : kinds)
      if (!describe(graph_->nodes[n]).depthwise() && !known.count({n, pixels(n)}) && !cache.find(kind)) missing[n] = kind;
    if (!missing.empty()) {
      Found found;
      time_tiles(*graph_, options_, {prepared_.weights, {}, {}}, inputs_of(*graph_, *part.plan), missing, pool_, found);
      measured_ += cache.keep(std::move(found));
    }
    for (const auto& [n, kind] : kinds)
      if (const Measured* m = cache.find(kind); m && !describe(graph_->nodes[n]).depthwise())
        known.try_emplace({n, pixels(n)}, Choice{m->tile, pixels(n), reason(*m)});
  }
  std::lock_guard<std::mutex> guard(lock_);
  choices_ = std::make_shared<const Choices>(std::move(known));
  schedules_.clear();  // those in use live on with their callers
  return cache.warning();
}

}  // namespace cosparse
