// The engine: an artifact, ready to run on this machine's CPU.
//
// Thread contract: one Engine may be called from any number of threads at once. Weights and plans are shared and never change (tune() makes
// new plans); every call works in a context of its own, so answers are bitwise the same whoever calls beside. Contexts come from a pool that
// grows to options.contexts; further calls wait for one. Who keeps a Context of his own neither waits nor allocates.
#pragma once
#include <atomic>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "contexts.h"
#include "fork.h"
#include "memory.h"
#include "plan.h"
#include "schedule.h"
#include "stored_weights.h"
#include "tune.h"

namespace cosparse {

class TuneCache;

struct StepTime {
  double median_us, min_us;
};

// The options with their defaults filled in; throws Error (Fault::usage) for what is out of range.
Options checked(Options options);

class Engine {
 public:
  // Throws Error: usage as checked(); memory where values or weights exceed max_memory; unsupported for a layer that no kernel takes.
  // `steps`: for int8, of every conv and linear node (calibrated()).
  Engine(std::shared_ptr<const Graph> graph, Options options, const std::map<int, Quantization>& steps = {});
  // The engine that alone reads the graph's tensors: gives up what is stored of a layer as soon as that is packed.
  Engine(std::unique_ptr<StoredWeights> stored, Options options, const std::map<int, Quantization>& steps = {});

  const Graph& graph() const { return *graph_; }
  const Options& options() const { return options_; }

  // The schedule for these input shapes; kept for the next call (the latest kPlans of them).
  std::shared_ptr<const Schedule> schedule(const std::vector<Shape>& inputs) const;
  // inputs[i], outputs[i]: dense row-major [N, C, H, W] (or [N, F]) floats.
  void run(const Schedule& schedule, const std::vector<const float*>& inputs, const std::vector<float*>& outputs) const;
  // A context that is large enough for this schedule, and a run in it.
  std::unique_ptr<Context> make_context(const Schedule& schedule) const;
  void run_in(Context& context, const Schedule& schedule, const std::vector<const float*>& inputs,
              const std::vector<float*>& outputs) const;
  // Times the tiles of every layer at these input shapes, and whether a batch had better run apart, or takes that from the tuning cache;
  // later schedules have it. Does nothing for an engine that was made without options.tune. Any thread, beside calls; some seconds at the
  // most where one run does not take longer. Returns a warning about the cache, or nothing. tune_shapes.cpp
  std::string tune(const std::vector<Shape>& inputs);
  // Times every step over `repeat` runs.
  std::vector<StepTime> profile(const Schedule& schedule, const std::vector<const float*>& inputs, int repeat) const;
  std::vector<StepTime> profile_in(Context& context, const Schedule& schedule, const std::vector<const float*>& inputs, int repeat) const;
  // What the runs so far saw (Number::observe): the steps that int8 needs.
  std::map<int, Quantization> calibrated() const;
  // The tuning cache's file (empty: none), and how many kinds of layer were measured rather than found in it.
  const std::string& cache() const { return cache_; }
  int measured() const { return measured_; }
  // What went not quite as it should while loading, for a person to read.
  const std::vector<std::string>& warnings() const { return warnings_; }
  // Bytes of packed weights.
  int64_t weight_bytes() const;
  // Bytes of activations and scratch that a call works in; the most so far.
  int64_t arena_bytes() const { return arena_bytes_; }

 private:
  static constexpr size_t kPlans = 16;

  Engine(std::shared_ptr<const Graph> graph, StoredWeights* stored, Options options, const std::map<int, Quantization>& steps);
  std::shared_ptr<const Weights> prepare(int node, Form form, const std::map<int, Quantization>& steps, Slab& slab) const;
  // The forms that a layer may take here, the cheapest first.
  std::vector<Form> forms_for(const Node& node) const;
  // Bytes of packed weights at the most; throws Error (Fault::memory) where they are more than the machine or the caller allows.
  int64_t most_bytes(const std::map<int, Form>& forms) const;
  void require_weights(const std::map<int, Form>& forms) const;
  // measure.cpp. The forms that layers run best in, from the tuning cache or measured; sets known_.
  std::map<int, Form> measure(const std::map<int, Quantization>& steps);
  Found time_forms(const Kinds& kinds, const std::map<int, Quantization>& steps);
  std::vector<std::vector<int>> groups_of(const Kinds& kinds, Form form, int64_t bytes) const;
  Kinds as_offered(Kinds kinds) const;
  void time_form(Form form, const std::vector<int>& group, const Prepared& cheapest, const std::map<int, Quantization>& steps,
                 const Kinds& kinds, Found& found);
  // Sets prepared_.weights and ranges. `stored`: gives up each layer's; nullptr: others may need them.
  void pack(const std::map<int, Form>& forms, const std::map<int, Quantization>& steps, StoredWeights* stored);
  // schedule.cpp. Parts run apart or together as was measured, else by a rule; or as asked for, as far as possible.
  enum class Batches { known, together, apart };
  std::shared_ptr<const Schedule> make_schedule(const std::vector<Shape>& inputs, const Known& known, Batches how = Batches::known) const;
  // tune_shapes.cpp
  void tune_tiles(const Schedule& schedule, TuneCache& cache, Known& known);
  void tune_batch(const std::vector<Shape>& inputs, TuneCache& cache, Known& known);
  BatchTimes time_batch(const std::vector<Shape>& inputs, const Known& known) const;
  // What a plan for these shapes (of all values) is made of.
  Prepared prepared_for(const std::vector<Shape>& shapes, const Choices& choices) const;
  std::shared_ptr<const Known> known() const;
  void grow(Context& context, const Schedule& schedule) const;
  void keep_choice(const Schedule& schedule) const;
  template <class Steps> void run_parts(Context& context, const Schedule& schedule, const std::vector<const float*>& inputs,
                                        const std::vector<float*>& outputs, const Steps& steps) const;
  void read_inputs(const Plan& plan, const Run& run, const std::vector<const float*>& inputs, int64_t first) const;
  void write_outputs(const Plan& plan, const Run& run, const std::vector<float*>& outputs, int64_t first) const;

  std::shared_ptr<const Graph> graph_;
  Options options_;
  int64_t value_bytes_ = 0;  // of all values of the example: more than a plan for it takes for them
  Prepared prepared_;  // but for its choices, which depend on the shapes
  std::vector<std::string> warnings_;
  std::string cache_;
  std::atomic<int> measured_{0};
  mutable Pool pool_;
  mutable Pool alone_{1};   // for parts of a batch that each thread runs by itself
  mutable ForkMutex lock_;  // guards known_ (what it points to never changes) and schedules_
  mutable std::shared_ptr<const Known> known_ = std::make_shared<const Known>();
  mutable std::list<std::pair<std::vector<Shape>, std::shared_ptr<const Schedule>>> schedules_;
  mutable Contexts contexts_;
  mutable std::atomic<int64_t> arena_bytes_{0};
};

}  // namespace cosparse
