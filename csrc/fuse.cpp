// Which nodes one step computes: a convolution takes the addition and the activation behind it, element-wise nodes the activation.
#include <algorithm>
#include <set>

#include "error.h"
#include "plan.h"

namespace cosparse {

namespace {

const std::map<std::string, Act> kActs = {{"relu", Act::relu},
                                          {"clip", Act::clip},
                                          {"leaky_relu", Act::leaky_relu},
                                          {"elu", Act::elu},
                                          {"sigmoid", Act::sigmoid},
                                          {"silu", Act::silu},
                                          {"tanh", Act::tanh},
                                          {"gelu", Act::gelu},
                                          {"gelu_tanh", Act::gelu_tanh},
                                          {"hardswish", Act::hardswish},
                                          {"hardsigmoid", Act::hardsigmoid},
                                          {"softplus", Act::softplus},
                                          {"mish", Act::mish},
                                          {"sqrt", Act::sqrt},
                                          {"abs", Act::abs},
                                          {"exp", Act::exp},
                                          {"log", Act::log},
                                          {"pow", Act::pow}};

bool takes_activation(const std::string& op) {
  static const std::set<std::string> ops = {"conv", "linear", "affine", "add", "sub", "mul", "div", "maximum", "minimum", "max_pool", "avg_pool"};
  return ops.count(op) > 0;
}

}  // namespace

const std::vector<int>& read_by(const Node& node) {
  static const std::vector<int> none;
  return node.op == "constant" ? none : node.inputs;
}

const char* name_of(Act act) {
  for (const auto& [name, kind] : kActs)
    if (kind == act) return name.c_str();
  return "none";
}

std::vector<Fused> fuse(const Graph& graph, const std::vector<Shape>& shapes) {
  const int inputs = (int)graph.inputs.size(), count = (int)graph.nodes.size();
  std::vector<std::vector<int>> consumers(count);
  std::vector<char> is_output(count, 0), taken(count, 0);
  for (int n = 0; n < count; ++n)
    for (int v : read_by(graph.nodes[n]))
      if (v >= inputs) consumers[v - inputs].push_back(n);
  for (int v : graph.outputs)
    if (v >= inputs) is_output[v - inputs] = 1;
  const auto only_consumer = [&](int n) { return consumers[n].size() == 1 && !is_output[n] ? consumers[n][0] : -1; };
  const auto set_activation = [&](Fused& f, int n) {
    const Node& node = graph.nodes[n];
    f.act = kActs.at(node.text("kind"));
    f.alpha = (float)node.number("alpha"), f.beta = (float)node.number("beta");
  };

  std::vector<Fused> steps;
  for (int n = 0; n < count; ++n) {
    if (taken[n] || is_view(graph, n, shapes)) continue;
    Fused f{n, inputs + n};
    const std::string& op = graph.nodes[n].op;
    if (op == "activation") set_activation(f, n);
    int last = n, next = takes_activation(op) ? only_consumer(n) : -1;
    if (next >= 0 && taken[next]) next = -1;  // an addition of two convolutions goes to the first of them
    if (next >= 0 && (op == "conv" || op == "linear") && graph.nodes[next].op == "add") {
      const Node& add = graph.nodes[next];
      const int other = add.inputs[0] == inputs + n ? add.inputs[1] : add.inputs[0];
      if (other != inputs + n && shapes[other] == shapes[inputs + n]) {  // the epilogue does not broadcast
        f.residual = other, last = next, taken[next] = 1;
        next = only_consumer(next);
      } else {
        next = -1;
      }
    }
    if (moves_along_axes(graph.nodes[n])) {
      bool padded = pads_with_value(graph.nodes[n]);
      for (int m = only_consumer(n); m >= 0 && moves_along_axes(graph.nodes[m]) && !is_view(graph, m, shapes); m = only_consumer(m)) {
        if (padded && pads_with_value(graph.nodes[m])) break;
        padded |= pads_with_value(graph.nodes[m]);
        f.moves.push_back(m), last = m, taken[m] = 1;
      }
    }
    if (next >= 0 && graph.nodes[next].op == "activation") set_activation(f, next), last = next, taken[next] = 1;
    f.output = inputs + last;
    steps.push_back(f);
  }
  // A step runs where the last of its nodes stands: by then the other operand of its addition is there, and nobody else waits for what is
  // between.
  std::sort(steps.begin(), steps.end(), [](const Fused& a, const Fused& b) { return a.output < b.output; });
  return steps;
}

}  // namespace cosparse
