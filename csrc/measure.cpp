// Engine::measure: every conv and linear layer in each form it has and with each width of tile, timed inside the running network.
#include <algorithm>
#include <chrono>
#include <random>
#include <set>

#include "engine.h"
#include "layer.h"
#include "tune.h"
#include "tune_cache.h"

namespace cosparse {

namespace {

constexpr double kMostSeconds = 4;  // then what has been measured decides
constexpr int kRounds = 4;          // the first one warms up
constexpr int kTiles[] = {0, 1, 2, 3};

using Clock = std::chrono::steady_clock;
double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// One way to run the whole network, and the least time of each of its steps so far.
struct Way {
  Form form;
  int tile;
  std::shared_ptr<const Plan> plan;
  std::vector<double> us;
};

void time_steps(Way& way, const Run& run, bool count) {
  way.us.resize(way.plan->steps.size(), 1e30);
  for (size_t s = 0; s < way.us.size(); ++s) {
    const auto start = Clock::now();
    way.plan->steps[s].run(run);
    if (count) way.us[s] = std::min(way.us[s], since(start) * 1e6);
  }
}

}  // namespace

std::map<int, Form> Engine::measure(const std::map<int, Quantization>& steps) {
  TuneCache cache(options_);
  cache_ = cache.path();
  std::vector<Shape> inputs;
  for (const Input& input : graph_->inputs) inputs.push_back(input.example);
  const std::vector<Shape> shapes = infer_shapes(*graph_, inputs);
  std::map<int, std::string> signatures;
  for (int n = 0; n < (int)graph_->nodes.size(); ++n)
    if (is_weighted(graph_->nodes[n])) signatures[n] = signature(graph_->nodes[n], shapes[graph_->nodes[n].inputs[0]]);

  const bool known = std::all_of(signatures.begin(), signatures.end(), [&](const auto& s) { return cache.find(s.second); });
  if (!known) {
    const auto start = Clock::now();
    std::map<Form, std::map<int, std::shared_ptr<const Weights>>> forms;
    Slab slab(true);
    std::map<int, std::shared_ptr<const Weights>> base;
    for (const auto& [n, text] : signatures)
      base[n] = forms[cheapest_form(graph_->nodes[n])][n] = prepare(n, cheapest_form(graph_->nodes[n]), steps, slab);
    std::vector<Way> ways;
    int64_t arena_floats = 0, scratch_floats = 0;
    const auto add = [&](Form form, int tile, const Prepared& prepared) {
      Options options = options_;
      options.tile = tile;
      ways.push_back({form, tile, make_plan(*graph_, options, prepared, inputs), {}});
      arena_floats = std::max(arena_floats, ways.back().plan->arena_floats);
      scratch_floats = std::max(scratch_floats, ways.back().plan->scratch_floats);
    };
    for (const int tile : kTiles) add(Form::cosparse, tile, {base, {}, {}});  // stands for each layer's cheapest form
    for (const Form form : {Form::cosparse, Form::spatial, Form::dense}) {
      if (options_.number == Number::int8 || since(start) > kMostSeconds / 2) break;  // int8's steps were taken for one form
      Prepared prepared{base, {}, {}};
      bool differs = false;
      for (const auto& [n, text] : signatures) {
        const std::vector<Form> has = forms_of(graph_->nodes[n]);
        if (base[n]->form == form || std::find(has.begin(), has.end(), form) == has.end()) continue;
        prepared.weights[n] = forms[form][n] = prepare(n, form, steps, slab), differs = true;
      }
      if (differs) add(form, 0, prepared);
    }

    Floats arena = allocate_floats(arena_floats), scratch = allocate_floats(scratch_floats * options_.threads);
    std::minstd_rand random(1);
    std::normal_distribution<float> normal;
    std::generate_n(arena.get(), arena_floats, [&] { return normal(random); });  // whatever is read is an ordinary number
    std::fill_n(scratch.get(), scratch_floats * options_.threads, 0.f);
    for (int round = 0; round < kRounds && (round < 2 || since(start) < kMostSeconds); ++round)
      for (Way& way : ways) time_steps(way, {arena.get(), scratch.get(), way.plan->scratch_floats, pool_}, round > 0);

    std::map<std::string, std::vector<Timing>> found;  // layers of one signature together, each way's least time
    for (size_t w = 0; w < ways.size(); ++w)
      for (size_t s = 0; s < ways[w].us.size(); ++s) {
        const int n = ways[w].plan->steps[s].node;
        if (!signatures.count(n)) continue;
        const bool cheapest = w < std::size(kTiles);
        if (!cheapest && !forms[ways[w].form].count(n)) continue;
        const Timing timing{cheapest ? base[n]->form : ways[w].form, ways[w].tile, ways[w].us[s]};
        if (!cheapest && timing.form == base[n]->form) continue;
        auto& list = found[signatures[n]];
        const auto same =
            std::find_if(list.begin(), list.end(), [&](const Timing& t) { return t.form == timing.form && t.tile == timing.tile; });
        if (same == list.end())
          list.push_back(timing);
        else
          same->us = std::min(same->us, timing.us);
      }
    for (auto& [text, timings] : found)
      if (!cache.find(text)) cache.put(text, best_of(std::move(timings))), ++measured_;
    cache.save();
  }
  if (!cache.warning().empty()) warnings_.push_back(cache.warning());

  std::map<int, Form> best;
  for (const auto& [n, text] : signatures) {
    const Measured* m = cache.find(text);
    const std::vector<Form> has = forms_of(graph_->nodes[n]);
    const bool free = options_.number != Number::int8 && m && std::find(has.begin(), has.end(), m->form) != has.end();
    best[n] = free ? m->form : cheapest_form(graph_->nodes[n]);  // int8's steps were taken for this one, whatever a file says
    if (m && !describe(graph_->nodes[n]).depthwise())
      prepared_.choices[n] = {m->tile, shapes[graph_->inputs.size() + n].pixels(), reason(*m)};
  }
  return best;
}

}  // namespace cosparse
