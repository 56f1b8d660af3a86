// A plan: the flat list of steps that runs one graph at one set of input shapes, and where each value lies in the arena.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "graph.h"
#include "kernels/table.h"
#include "memory.h"
#include "pool.h"
#include "weights.h"

namespace cosparse {

// Where a layer may run in Form::winograd: where that is measured to be the fastest; nowhere; wherever it can.
enum class Winograd : int { measured, never, always };

struct Options {
  int threads = 1;
  Isa isa = Isa::scalar;
  Number number = Number::f32;
  int tile = 0;         // 0: the plan chooses; else the vectors of a conv tile, for tests and measurements
  bool tune = false;    // measure at load how each layer runs best, or take it from the cache
  bool dense = false;   // every layer in a dense form, zeros and all: what sparsity is measured against
  bool poison = false;  // fill the arena and the scratch with NaN before each run: what a step fails to write shows (tests)
  int contexts = 0;     // calls that run at once, others wait; 0: as many as there are threads or available cores
  int64_t max_memory = 0;  // bytes of activations, and of packed weights; 0: as many as the machine has left
  std::vector<int> cores = {};  // that the workers stay on; the caller's thread goes where the caller wants it
  Winograd winograd = Winograd::measured;
  bool pairs = true;  // a convolution runs together with what reads its planes where that saves memory traffic (pair.h)
};

// Where a value lies: channel c, group g of kLanes pixels at arena + offset + c * plane + g * group. Planar values: plane = the pixels,
// rounded up, group = kLanes; tiled ones, which only convolutions touch: plane = a row, group = channels * plane (Rows in kernels/kernel.h), or
// for those whose basis step is in whole numbers planes of rows: group = a row. row_bits: as in Rows.
struct Place {
  int64_t offset = -1, plane = 0, group = kLanes;
  bool tiled = false;
  float inverse = 0, zero = 0;  // of a tiled int8 value
  int input = -1;               // which of the network's inputs it is, if any
  int row_bits = 0;
};

// What one execution of a plan works on. Nothing in it is shared between two executions.
struct Run {
  float* arena;
  float* scratch;  // threads * Plan::scratch_floats
  int64_t scratch_each;
  Pool& pool;
  const std::vector<const float*>* inputs = nullptr;  // where the caller has them, [N, C, H, W] each,
  int64_t first = 0;                                  // and from which image on
  float* scratch_of(int slot) const { return scratch + slot * scratch_each; }
};

// Where a value lies, as kernels want it.
template <class F> Rows<F> rows_at(const Run& run, const Place& at) {
  return {run.arena + at.offset, at.plane, at.group, at.tiled, at.inverse, at.zero, at.row_bits};
}

struct Step {
  std::string name, op, kernel, why;
  int node = -1;  // index of the node that computes
  double density = 1;
  double flops = 0, dense_flops = 0, basis_flops = 0;  // multiply-adds at the plan's batch: coefficients, all weights, basis step
  int64_t bytes = 0;                                   // weights as the kernel reads them
  std::function<void(const Run&)> run;                 // empty: the step before does it too (pair.h)
  void operator()(const Run& where) const {
    if (run) run(where);
  }
};

struct Plan {
  std::vector<Shape> shapes;  // of all values, by value id
  std::vector<Place> places;
  std::vector<Step> steps;
  std::vector<int> readers;  // of each input in the arena: without those that make a copy of their own, from where the caller has it
  int64_t arena_floats = 0, scratch_floats = 0;
};

// What a node's own step also does: the nodes after it that were folded into it.
struct Fused {
  int node;                     // index of the node that computes
  int output;                   // value id that the step writes
  int residual = -1;            // value id added before the activation
  std::vector<int> moves = {};  // slice, pad, channel_shuffle nodes that this one step does after `node`, itself one of them
  Act act = Act::none;
  float alpha = 0, beta = 0;
  bool into_next = false;  // the next step reads its output out of scratch (pair.h)
};

// What calibration keeps of a conv or linear node: the least and the greatest of each tap's maps, lane by lane, of what is added to its sums,
// and, where its maps are transforms, of its source.
struct Ranges {
  std::shared_ptr<float[]> low, high;      // [taps][kLanes]
  std::shared_ptr<float[]> added, source;  // least, greatest
};

// How one conv or linear node runs: the widest tile in groups for a plane of `pixels` (elsewhere, and where it is 0, the plan's rule), and why.
struct Choice {
  int tile = 0;
  int64_t pixels = 0;
  std::string why;
};

// What is known of how nodes run, by node and pixels of its output.
using Choices = std::map<std::pair<int, int64_t>, Choice>;

// What a plan is made of besides the graph and the shapes; by node index.
struct Prepared {
  std::map<int, std::shared_ptr<const Weights>> weights;
  std::map<int, Ranges> ranges;  // only where options.number is observe
  std::map<int, Choice> choices;
};

// Everything that a step builder may look at. Builders append to plan.steps.
struct Build {
  const Graph& graph;
  const Options& options;
  const Prepared& prepared;
  Plan& plan;
  Fused fused;
  int64_t temporary = -1;  // arena offset of temporary_floats(), for this step alone
  const Node& node() const { return graph.nodes[fused.node]; }
  const Shape& in(int i) const { return plan.shapes[node().inputs[i]]; }
  const Place& at(int i) const { return plan.places[node().inputs[i]]; }
  const Shape& out() const { return plan.shapes[fused.output]; }
  const Place& to() const { return plan.places[fused.output]; }
  const SpanKernels& spans() const { return span_kernels(options.isa); }
  std::string spans_name() const { return std::string("spans_f32__") + name_of(options.isa); }
  const float* parameter(const char* role) const { return node().tensor(role)->f32(); }
  void push(std::string kernel, std::function<void(const Run&)> run) const {
    Step step;
    step.op = node().op, step.kernel = std::move(kernel), step.run = std::move(run);
    plan.steps.push_back(std::move(step));
  }
};

// fuse.cpp: the steps to take, in order; every node is in one of them or a pure view.
std::vector<Fused> fuse(const Graph& graph, const std::vector<Shape>& shapes);

// Of the values that a node names, those whose numbers its step reads: of `constant` none, which takes the batch alone.
const std::vector<int>& read_by(const Node& node);
const char* name_of(Act);                 // as in docs/artifact.md
bool moves_along_axes(const Node& node);  // slice, pad, channel_shuffle: each output axis is a map of one input axis
bool pads_with_value(const Node& node);   // of which a step holds one value, so one such node

// arena.cpp: fills places, arena_floats and, for each step, the offset of its temporary memory.
// Channel slices and layout-free reshapes become views; producers write straight into the concatenation that joins them, and a convolution
// into the residual that it is the last to read.
std::vector<int64_t> place_values(const Graph& graph, const std::vector<Fused>& steps, const Prepared& prepared, int threads, Plan& plan);
bool is_view(const Graph& graph, int node, const std::vector<Shape>& shapes);

// layout.cpp: makes those values tiled that convolutions write and 1x1 convolutions read; `whole`: value ids that have their storage for
// themselves.
void choose_layouts(const Graph& graph, const std::vector<Fused>& steps, const std::vector<char>& whole, const Prepared& prepared,
                    int threads, Plan& plan);
// Whether a conv or linear node reads one source pixel for each output pixel, none of them padding.
bool pixelwise(const Node& node);
// Whether it reads them where they lie: pixelwise, and no stride.
bool reads_in_place(const Node& node);

// Builders (step_*.cpp).
// Whether the maps of all pixels are made before the product: on a small plane, whose few tiles would each fetch large weights anew.
bool maps_first(const Node& node, const Weights& weights, int64_t pixels);
// Bytes of scratch that Winograd's tiles take of a thread, whatever the size.
int64_t most_winograd_scratch(const Node& node);
// Temporary memory of a conv or linear step.
int64_t temporary_floats(const Node& node, const Weights& weights, const Shape& in, const Shape& out);
void build_conv(const Build&);
void build_depthwise(const Build&, Step& step);  // for build_conv, which has begun the step
void build_winograd(const Build&, Step& step);   // likewise
Step begin_conv(const Build&);                   // with its counts
// The widest tile that was asked for or found by measuring, 0: the rule's; adds to `why` what was found.
int chosen_tile(const Build&, Step& step);
void build_pool(const Build&);
void build_adaptive_pool(const Build&);
void build_reduction(const Build&);  // mean, sum, amax
void build_binary(const Build&);
void build_affine(const Build&);
void build_activation(const Build&);
void build_prelu(const Build&);
void build_norm(const Build&);  // layer_norm, softmax
void build_group_norm(const Build&);
void build_log_softmax(const Build&);
void build_concat(const Build&);
void build_constant(const Build&);
void build_copy(const Build&);  // slice, pad, reshape, permute, channel_shuffle, depth_to_space: values move, none changes
void build_axes(const Build&);  // of which slice, pad, channel_shuffle, and chains of them
void build_upsample(const Build&);

std::shared_ptr<const Plan> make_plan(const Graph& graph, const Options& options, const Prepared& prepared,
                                      const std::vector<Shape>& inputs);

}  // namespace cosparse
