// The engine: an artifact, ready to run on this machine's CPU.
//
// Thread contract: one Engine may be called from any number of threads at once. Weights and plans are shared and never change; every call
// works in a context of its own (taken from a pool that grows to the number of concurrent calls), so answers are bitwise the same whoever
// calls beside.
#pragma once
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "memory.h"
#include "plan.h"

namespace cosparse {

struct StepTime {
  double median_us, min_us;
};

class Engine {
 public:
  // Throws Error (Fault::usage) for threads < 1 or an unknown isa.
  Engine(std::shared_ptr<const Graph> graph, Options options);

  const Graph& graph() const { return *graph_; }
  const Options& options() const { return options_; }

  // The plan for these input shapes; kept for the next call (the latest kPlans of them).
  std::shared_ptr<const Plan> plan(const std::vector<Shape>& inputs) const;
  // inputs[i], outputs[i]: dense row-major [N, C, H, W] (or [N, F]) floats.
  void run(const Plan& plan, const std::vector<const float*>& inputs, const std::vector<float*>& outputs) const;
  // Times every step over `repeat` runs.
  std::vector<StepTime> profile(const Plan& plan, const std::vector<const float*>& inputs, int repeat) const;
  // Bytes of packed weights, and of the contexts that are alive.
  int64_t weight_bytes() const;

 private:
  struct Context {
    Floats arena, scratch;
    int64_t arena_floats = 0, scratch_floats = 0;
  };
  static constexpr size_t kPlans = 16;

  std::unique_ptr<Context> take_context(const Plan& plan) const;
  void give_back(std::unique_ptr<Context> context) const;
  void read_inputs(const Plan& plan, float* arena, const std::vector<const float*>& inputs) const;

  std::shared_ptr<const Graph> graph_;
  Options options_;
  std::map<int, std::shared_ptr<const Weights>> weights_;
  mutable Pool pool_;
  mutable std::mutex lock_;  // guards plans_ and contexts_
  mutable std::list<std::pair<std::vector<Shape>, std::shared_ptr<const Plan>>> plans_;
  mutable std::vector<std::unique_ptr<Context>> contexts_;
};

}  // namespace cosparse
