#include "ways.h"

#include <algorithm>
#include <random>

namespace cosparse {

namespace {

constexpr int kTiles[] = {0, 1, 2, 3, 4};
constexpr int kRounds = 4, kMostRounds = 64;
constexpr double kCheapSeconds = 0.02;  // short steps are disturbed the most, and cost little to run again
// On a machine that others share, rounds count as far as they were calm: that many, or so many seconds.
constexpr int kCalmRounds = 3;
constexpr double kCalm = 1.1, kUnsteadySeconds = 0.5;
constexpr int64_t kPattern = 4096;      // floats that are drawn; what lies behind repeats them

// Returns what all steps took together.
double time_steps(Way& way, const Run& run, const std::set<int>& only, bool count) {
  way.us.resize(way.plan->steps.size(), 1e30);
  std::vector<double> round(way.us.size(), 0.);
  double total = 0;
  for (size_t s = 0; s < way.us.size(); ++s) {
    if (!only.empty() && !only.count(way.plan->steps[s].node)) continue;
    const auto start = Clock::now();
    way.plan->steps[s](run);
    const double us = since(start) * 1e6;
    way.us[s] = count ? std::min(way.us[s], us) : way.us[s], round[s] = us, total += us;
  }
  if (count) way.rounds.push_back(std::move(round));
  return total;
}

// Whether the steps' least times are from rounds of which enough took little longer than these together.
bool calm(const Way& way, const std::vector<double>& rounds) {
  double least = 0;
  for (const double us : way.us) least += us < 1e30 ? us : 0;
  return std::count_if(rounds.begin(), rounds.end(), [&](double us) { return us <= kCalm * least; }) >= kCalmRounds;
}

// What step s takes of the rule's time: in the median of the rounds, or of the least times where these say more. The steps of all ways are the same.
double of_rule(const Way& way, const Way& rule, size_t s) {
  std::vector<double> ratios;
  for (size_t round = 0; round < way.rounds.size(); ++round) ratios.push_back(way.rounds[round][s] / std::max(rule.rounds[round][s], 1e-3));
  const auto middle = ratios.begin() + (int64_t)ratios.size() / 2;
  std::nth_element(ratios.begin(), middle, ratios.end());
  return std::max(*middle, way.us[s] / std::max(rule.us[s], 1e-3));
}

}  // namespace

bool once_more(int rounds, double spent, double seconds) {
  return rounds < 2 || (rounds < kRounds && spent < seconds) || (rounds < kMostRounds && spent < kCheapSeconds);
}

void time_ways(std::vector<Way>& ways, Pool& pool, double seconds, const std::set<int>& only) {
  const auto start = Clock::now();
  int64_t arena_floats = 0, scratch_floats = 0;
  for (const Way& way : ways) {
    arena_floats = std::max(arena_floats, way.plan->arena_floats);
    scratch_floats = std::max(scratch_floats, way.plan->scratch_floats * pool.threads());
  }
  Floats arena = allocate_floats(arena_floats), scratch = allocate_floats(scratch_floats);
  std::minstd_rand random(1);
  std::normal_distribution<float> normal;
  for (int64_t i = 0; i < arena_floats; ++i) arena[i] = i < kPattern ? normal(random) : arena[i - kPattern];
  std::fill_n(scratch.get(), scratch_floats, 0.f);
  std::vector<std::vector<double>> rounds(ways.size());  // what each took
  const auto unsteady = [&] {
    for (size_t w = 0; w < ways.size(); ++w)
      if (!calm(ways[w], rounds[w])) return true;
    return false;
  };
  for (int round = 0; once_more(round, since(start), seconds) || (seconds > 0 && since(start) < kUnsteadySeconds && unsteady()); ++round)
    for (size_t w = 0; w < ways.size(); ++w) {
      const double us = time_steps(ways[w], {arena.get(), scratch.get(), ways[w].plan->scratch_floats, pool}, only, round > 0);
      if (round > 0) rounds[w].push_back(us);
    }
}

void time_tiles(const Graph& graph, const Options& options, const Prepared& prepared, const std::vector<Shape>& inputs, const Kinds& kinds,
                Pool& pool, Found& found) {
  std::vector<Way> ways;
  int widest = 3;  // of blocks of eight
  for (const KernelRow& row : kernel_table())
    if (row.conv && row.isa <= options.isa && row.number == options.number && row.r == 8) widest = std::max(widest, row.t);
  for (const int tile : kTiles) {
    if (tile > widest) break;
    Options with = options;
    with.tile = tile, with.pairs = false;
    ways.push_back({tile, make_plan(graph, with, prepared, inputs)});
  }
  time_ways(ways, pool, kEachSeconds);
  for (const Way& way : ways)
    for (size_t s = 0; s < way.us.size(); ++s)
      if (const auto kind = kinds.find(way.plan->steps[s].node); kind != kinds.end())
        note(found[kind->second], {prepared.weights.at(kind->first)->form, way.tile, ways[0].us[s] * of_rule(way, ways[0], s)});
}

}  // namespace cosparse
