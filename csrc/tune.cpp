#include "tune.h"

#include <algorithm>
#include <cmath>

#include "layer.h"

namespace cosparse {

std::string signature(const Node& node, const Shape& in) {
  const Layer l = describe(node);
  std::string text = node.op;
  const auto add = [&](const char* name, int64_t value) { text += std::string(" ") + name + std::to_string(value); };
  add("o", l.O), add("c", l.C), add("g", l.G);
  if (node.op == "conv")
    for (const char* key : {"kernel", "stride", "dilation", "pad"}) {
      text += std::string(" ") + key[0];
      for (size_t i = 0; i < node.list(key).size(); ++i) text += (i ? "x" : "") + std::to_string(node.list(key)[i]);
    }
  add("n", in.n), add("h", in.h), add("w", in.w), add("r", l.r);
  text += l.without_kernel() ? " taps" : l.dct ? " dct" : " identity";  // taps: no form works on the coefficients
  add("stored", l.values->count());
  return text;
}

Kinds kinds_of(const Graph& graph, const std::vector<Shape>& shapes) {
  Kinds kinds;
  for (int n = 0; n < (int)graph.nodes.size(); ++n)
    if (is_weighted(graph.nodes[n])) kinds[n] = signature(graph.nodes[n], shapes[graph.nodes[n].inputs[0]]);
  return kinds;
}

void note(std::vector<Timing>& list, const Timing& timing) {
  for (Timing& t : list)
    if (t.form == timing.form && t.tile == timing.tile) {
      t.us = std::min(t.us, timing.us);
      return;
    }
  list.push_back(timing);
}

Measured best_of(std::vector<Timing> timings) {
  const Timing* best = &timings[0];
  for (const Timing& t : timings)
    if (t.us < best->us * (best == &timings[0] ? 1 - kChance : 1.0)) best = &t;
  return {best->form, best->tile, timings};
}

std::string reason(const Measured& m) {
  std::string text = "measured:";
  for (const Form form : kForms) {
    double least = INFINITY;
    for (const Timing& t : m.timings)
      if (t.form == form) least = std::min(least, t.us);
    if (std::isfinite(least))
      text += (text.back() == ':' ? " " : ", ") + std::string(name_of(form)) + " " + std::to_string(std::lround(least)) + " us";
  }
  return text;
}

}  // namespace cosparse
