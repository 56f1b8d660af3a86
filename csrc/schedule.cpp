// What a schedule says of its parts, and Engine::make_schedule.
#include "schedule.h"

#include <algorithm>
#include <cmath>

#include "engine.h"
#include "memory_limit.h"
#include "shape.h"
#include "tune.h"

namespace cosparse {

namespace {

constexpr int64_t kCachedFloats = 2 << 20;  // of activations that run together: a last-level cache holds them beside the weights

}  // namespace

std::string Schedule::text() const {
  std::string all;
  for (const Part& part : parts) {
    const int64_t images = part.plan->shapes[0].n;
    all += (all.empty() ? "" : "; ") + (part.times > 1 ? std::to_string(part.times) + " x " : "") + std::to_string(images) +
           (images == 1 ? " image" : " images") + (part.apart ? ", each on a thread of its own" : "");
  }
  return all + (choice.why.empty() ? "" : " (" + choice.why + ")");
}

std::vector<size_t> Schedule::rows_of(const Plan& plan) const {
  const std::vector<Step>& first = parts[0].plan->steps;
  std::vector<char> taken(first.size(), 0);
  std::vector<size_t> found;
  for (const Step& step : plan.steps) {
    size_t row = 0;
    while (row < first.size() && (taken[row] || first[row].node != step.node)) ++row;
    if (row < first.size()) taken[row] = 1;
    found.push_back(row);
  }
  return found;
}

std::vector<double> Schedule::counts(double Step::* count) const {
  std::vector<double> all(rows() + 1, 0);
  for (const Part& part : parts) {
    const std::vector<size_t> row = rows_of(*part.plan);
    for (size_t i = 0; i < row.size(); ++i) all[row[i]] += part.plan->steps[i].*count * (double)part.times;
  }
  all.pop_back();
  return all;
}

BatchChoice choose_batch(const BatchTimes& times) {
  return {times.apart < times.together * (1 - kChance),
          "measured: apart " + std::to_string(std::lround(times.apart)) + " us, together " + std::to_string(std::lround(times.together))};
}

std::vector<int64_t> batch_key(const std::vector<Shape>& inputs, int64_t images) {
  std::vector<int64_t> key{images};
  for (const Shape& s : inputs) key.insert(key.end(), {s.h, s.w});
  return key;
}

std::shared_ptr<const Schedule> Engine::make_schedule(const std::vector<Shape>& inputs, const Known& known, Batches how) const {
  const std::vector<Shape> shapes = infer_shapes(*graph_, inputs);  // refuses what the whole batch does not allow
  const auto plan_of = [&](int64_t images, int threads) {
    std::vector<Shape> part = inputs;
    for (Shape& s : part) s.n = images;
    Options with = options_;
    with.threads = threads;
    return make_plan(*graph_, with, prepared_for(infer_shapes(*graph_, part), known.layers), part);
  };
  auto schedule = std::make_shared<Schedule>();
  int64_t results = 0;
  for (int v : graph_->outputs) {
    schedule->outputs.push_back(shapes[v]);
    results += shapes[v].c * shapes[v].pixels() * (int64_t)sizeof(float);
  }
  require_memory("network '" + graph_->name + "'", "results", results, text_of(inputs[0]), options_.max_memory);

  const int threads = options_.threads;
  int64_t left = inputs[0].n;
  const auto one = plan_of(1, threads);
  const int64_t cached = std::max<int64_t>(1, kCachedFloats / std::max<int64_t>(1, one->arena_floats));
  if (how != Batches::together && threads > 1 && left >= threads) {
    const int64_t each = std::clamp<int64_t>(cached / threads, 1, left / threads), rounds = left / (each * threads);
    schedule->measured = left <= cached ? left : each * threads;
    const auto key = batch_key(inputs, schedule->measured);
    const auto chosen = known.batches.find(key);
    if (how == Batches::known) schedule->key = key;
    if (chosen != known.batches.end()) schedule->choice = chosen->second;
    if (how == Batches::apart || chosen == known.batches.end() || schedule->choice.apart) {
      const auto plan = plan_of(each, 1);
      const int64_t floats = (plan->arena_floats + plan->scratch_floats) * threads;
      const bool few_left = left % threads == 0 || left > 2 * threads;  // else what is left over together takes as long as the rest
      const bool small = options_.tune && few_left && weight_bytes() / (int64_t)sizeof(float) + floats <= kCachedFloats;
      if (chosen == known.batches.end()) schedule->choice.apart = small;
      schedule->choice.apart =
          (how == Batches::apart || schedule->choice.apart) && memory_allows(floats * (int64_t)sizeof(float), options_.max_memory);
      if (schedule->choice.apart) {
        schedule->parts.push_back({plan, rounds * threads, true});
        left -= rounds * threads * each;
      }
    }
  }
  if (const int64_t each = std::min(cached, left)) {
    schedule->parts.push_back({each == 1 ? one : plan_of(each, threads), left / each});
    if (left % each) schedule->parts.push_back({plan_of(left % each, threads), 1});
  }
  return schedule;
}

}  // namespace cosparse
