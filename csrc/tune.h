// How each layer is to run, found by measuring: its form and the width of its tiles.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "plan.h"

namespace cosparse {

// What one way of running a layer took.
struct Timing {
  Form form;
  int tile;
  double us;
};

// The way that a layer of this signature runs best on this machine, and what all ways took.
struct Measured {
  Form form = Form::cosparse;
  int tile = 0;
  std::vector<Timing> timings;
};

// Everything that a layer's times depend on besides the machine: op, sizes, geometry, input, batch, blocks kept.
std::string signature(const Node& node, const Shape& in);

// The signatures of conv and linear nodes, by node; `shapes` of all values.
using Kinds = std::map<int, std::string>;
Kinds kinds_of(const Graph& graph, const std::vector<Shape>& shapes);

// What was timed, by signature. Layers of one signature count together: of each form and tile, the least time.
using Found = std::map<std::string, std::vector<Timing>>;
void note(std::vector<Timing>& list, const Timing& timing);

constexpr double kChance = 0.03;  // two runs of the same differ by as much

// Picks from timings: the fastest, but the first unless another one beats it by more than chance does. `timings` is not empty.
Measured best_of(std::vector<Timing> timings);

// "measured: cosparse 112 us, spatial 310, dense 340": the best time of each form.
std::string reason(const Measured& measured);

}  // namespace cosparse
