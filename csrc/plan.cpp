#include "plan.h"

#include "error.h"
#include "memory_limit.h"
#include "pair.h"
#include "shape.h"

namespace cosparse {

namespace {

using Builder = void (*)(const Build&);

const std::map<std::string, Builder>& builders() {
  static const std::map<std::string, Builder> table = {{"conv", build_conv},
                                                       {"linear", build_conv},
                                                       {"affine", build_affine},
                                                       {"activation", build_activation},
                                                       {"prelu", build_prelu},
                                                       {"add", build_binary},
                                                       {"sub", build_binary},
                                                       {"mul", build_binary},
                                                       {"div", build_binary},
                                                       {"maximum", build_binary},
                                                       {"minimum", build_binary},
                                                       {"max_pool", build_pool},
                                                       {"avg_pool", build_pool},
                                                       {"adaptive_avg_pool", build_adaptive_pool},
                                                       {"adaptive_max_pool", build_adaptive_pool},
                                                       {"mean", build_reduction},
                                                       {"sum", build_reduction},
                                                       {"amax", build_reduction},
                                                       {"concat", build_concat},
                                                       {"constant", build_constant},
                                                       {"slice", build_copy},
                                                       {"pad", build_copy},
                                                       {"reshape", build_copy},
                                                       {"permute", build_copy},
                                                       {"channel_shuffle", build_copy},
                                                       {"depth_to_space", build_copy},
                                                       {"upsample", build_upsample},
                                                       {"layer_norm", build_norm},
                                                       {"group_norm", build_group_norm},
                                                       {"log_softmax", build_log_softmax},
                                                       {"softmax", build_norm}};
  return table;
}

// The nodes behind the step's own that it computes too: "+add +relu".
std::string folded(const Graph& graph, const Fused& step) {
  std::string names;
  const auto add = [&](const std::string& name) { names += (names.empty() ? "+" : " +") + name; };
  if (step.residual >= 0) add("add");
  for (int n : step.moves) add(graph.nodes[n].op);
  if (step.act != Act::none && graph.nodes[step.node].op != "activation") add(name_of(step.act));
  return names;
}

}  // namespace

std::shared_ptr<const Plan> make_plan(const Graph& graph, const Options& options, const Prepared& prepared,
                                      const std::vector<Shape>& inputs) {
  auto plan = std::make_shared<Plan>();
  plan->shapes = infer_shapes(graph, inputs);
  plan->places.resize(plan->shapes.size());
  plan->readers.resize(inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) plan->places[i].input = (int)i;
  const auto reads = [&](int value) {
    if (value < (int)inputs.size()) ++plan->readers[value];
  };
  for (const Node& node : graph.nodes)
    for (int v : read_by(node)) reads(v);
  for (int v : graph.outputs) reads(v);
  std::vector<Fused> steps = fuse(graph, plan->shapes);
  join_pairs(graph, options, prepared, plan->shapes, steps);
  const std::vector<int64_t> temporary = place_values(graph, steps, prepared, options.threads, *plan);
  const auto require = [&](int64_t floats) {
    require_memory("network '" + graph.name + "'", "activations", floats * (int64_t)sizeof(float), text_of(inputs[0]), options.max_memory);
  };
  const auto name = [&](size_t step, size_t row) {
    Step& made = plan->steps[row];
    made.name = graph.nodes[steps[step].node].name, made.node = steps[step].node;
    made.why += (made.why.empty() ? "" : " ") + folded(graph, steps[step]);
  };
  require(plan->arena_floats);  // before the steps, which take time and memory in proportion
  for (size_t i = 0; i < steps.size(); ++i) {
    const Node& node = graph.nodes[steps[i].node];
    const auto builder = builders().find(node.op);
    if (builder == builders().end())
      throw Error(Fault::unsupported, "node '" + node.name + "'", "an operator with a CPU step", node.op, "");
    const auto build_of = [&](size_t step) { return Build{graph, options, prepared, *plan, steps[step], temporary[step]}; };
    if (steps[i].into_next) {
      build_pair(build_of(i), build_of(i + 1));
      name(i, plan->steps.size() - 2), name(++i, plan->steps.size() - 1);
      continue;
    }
    const size_t before = plan->steps.size();
    builder->second(build_of(i));
    for (size_t s = before; s < plan->steps.size(); ++s) name(i, s);
  }
  plan->scratch_floats = (plan->scratch_floats + kLanes - 1) / kLanes * kLanes;
  require(plan->arena_floats + plan->scratch_floats * options.threads);
  return plan;
}

}  // namespace cosparse
