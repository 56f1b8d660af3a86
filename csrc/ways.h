// Ways to run one network, timed step by step while the network runs: each layer finds the caches as its neighbours leave them.
#pragma once
#include <chrono>
#include <memory>
#include <set>
#include <vector>

#include "tune.h"

namespace cosparse {

using Clock = std::chrono::steady_clock;
inline double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Whether what takes turns is to be run once more, after `rounds` that took `spent` seconds: once to warm up and once timed in any case, some
// times more as long as `seconds` have not passed, and many times where that is cheap.
bool once_more(int rounds, double spent, double seconds);

struct Way {
  int tile;
  std::shared_ptr<const Plan> plan;
  std::vector<double> us = {};  // [plan->steps], microseconds: the least time so far
  std::vector<std::vector<double>> rounds = {};  // [timed rounds][plan->steps], the same of each round; 0: not run
};

// Runs the ways in turn, so that what slows the machine down slows all of them, as often as once_more() says. In memory of its own, of
// ordinary numbers. `only`: the nodes whose steps are run; empty: all.
void time_ways(std::vector<Way>& ways, Pool& pool, double seconds, const std::set<int>& only = {});

// Adds to `found` what the layers in `prepared` take with each width of tile, and with the plan's rule (tile 0), which comes first: the rule's
// least time, and that times what another width takes of it. On a machine that others share, least times are those of whoever had the calmest
// moment, and of few rounds the median is no better: another width must gain in both.
void time_tiles(const Graph& graph, const Options& options, const Prepared& prepared, const std::vector<Shape>& inputs, const Kinds& kinds,
                Pool& pool, Found& found);
constexpr double kEachSeconds = 2;  // for the ways of one call, where two rounds do not take longer

}  // namespace cosparse
