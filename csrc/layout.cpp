// Which values are tiled. A 1x1 convolution that reads planes would touch as many memory pages as it has channels, and so copies its tile
// first; tiles it reads where they lie. Only convolutions know the layout, so a value is tiled where they are all that touches it.
#include <algorithm>

#include "plan.h"

namespace cosparse {

bool pixelwise(const Node& node) {
  if (node.op == "linear") return true;
  const auto all = [&](const char* key, int64_t is) {
    const auto& list = node.list(key);
    return std::all_of(list.begin(), list.end(), [&](int64_t x) { return x == is; });
  };
  return node.op == "conv" && all("kernel", 1) && all("stride", 1) && all("pad", 0);
}

void choose_layouts(const Graph& graph, const std::vector<Fused>& steps, const std::vector<char>& whole, Plan& plan) {
  const auto convolves = [](const Node& node) {
    return node.op == "linear" ||
           (node.op == "conv" && !(node.integer("groups") > 1 && node.integer("groups") == node.integer("channels")));
  };
  std::vector<char> allowed = whole, wanted(whole.size(), 0);
  for (size_t v = 0; v < allowed.size(); ++v)
    if (v >= graph.inputs.size() && is_view(graph, (int)(v - graph.inputs.size()), plan.shapes)) allowed[v] = 0;
  for (int v : graph.outputs) allowed[v] = 0;
  for (const Fused& f : steps) {
    const Node& node = graph.nodes[f.node];
    if (!convolves(node)) allowed[f.output] = 0;
    for (int v : node.inputs)  // of which `add` may be folded into the step before: that one reads it as its residual
      if (convolves(node) && pixelwise(node)) wanted[v] = 1;
      else allowed[v] = 0;
    if (f.residual >= 0 && !convolves(node)) allowed[f.residual] = 0;
  }
  for (int n = 0; n < (int)graph.nodes.size(); ++n)
    if (is_view(graph, n, plan.shapes))
      for (int v : graph.nodes[n].inputs) allowed[v] = 0;
  for (size_t v = 0; v < allowed.size(); ++v)
    if (allowed[v] && wanted[v]) plan.places[v].plane = kLanes, plan.places[v].group = plan.shapes[v].c * kLanes;
}

}  // namespace cosparse
