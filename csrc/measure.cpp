// Engine::measure: every conv and linear layer in each form it has and with each width of tile, timed inside the running network. In memory
// at the same time: the layers in their cheapest forms, and of one other form a group that takes no more than these.
#include <algorithm>
#include <set>

#include "engine.h"
#include "layer.h"
#include "tune_cache.h"
#include "ways.h"

namespace cosparse {

namespace {

constexpr double kMostSeconds = 4;        // then what has been measured decides
constexpr int64_t kLeastGroup = 8 << 20;  // bytes
constexpr int64_t kHopeless = 64;         // times the cheapest form's coefficients: no kernel is so much faster at them
constexpr double kClose = 1.25;           // times of two forms of which one timed round does not tell the faster

std::vector<Shape> example_of(const Graph& graph) {
  std::vector<Shape> inputs;
  for (const Input& input : graph.inputs) inputs.push_back(input.example);
  return inputs;
}

bool has_form(const Node& node, Form form) {
  const std::vector<Form> has = forms_of(node);
  return std::find(has.begin(), has.end(), form) != has.end();
}

// One layer of each signature that has this form besides its cheapest one and may gain by it, in groups whose weights take at most `bytes` (or are one layer).
std::vector<std::vector<int>> groups_of(const Graph& graph, const Kinds& kinds, Form form, int64_t bytes) {
  std::vector<std::vector<int>> groups;
  std::set<std::string> seen;
  int64_t used = 0;
  for (const auto& [n, kind] : kinds) {
    const Node& node = graph.nodes[n];
    if (cheapest_form(node) == form || !has_form(node, form) || !seen.insert(kind).second) continue;
    if (most_coefficients(node, form) / kHopeless > most_coefficients(node, cheapest_form(node))) continue;
    const int64_t own = most_coefficients(node, form) * (int64_t)sizeof(float);
    if (groups.empty() || used + own > bytes) groups.emplace_back(), used = 0;
    groups.back().push_back(n), used += own;
  }
  return groups;
}

double time_of(const Way& way, int node) {
  for (size_t s = 0; s < way.us.size(); ++s)
    if (way.plan->steps[s].node == node) return way.us[s];
  return 1e30;
}

}  // namespace

// `group` in another form and in the cheapest one, in turn. The machine may have been faster or slower when the tiles were timed, so what
// counts is the ratio, times what the cheapest form took then.
void Engine::time_form(Form form, const std::vector<int>& group, const Prepared& cheapest, const std::map<int, Quantization>& steps,
                       const Kinds& kinds, Found& found) {
  Slab slab(true);
  Prepared other{cheapest.weights, {}, {}};
  for (const int n : group) other.weights[n] = prepare(n, form, steps, slab);
  const std::vector<Shape> inputs = example_of(*graph_);
  Options alone = options_;
  alone.pairs = false;
  std::vector<Way> ways{{0, make_plan(*graph_, alone, cheapest, inputs)}, {0, make_plan(*graph_, alone, other, inputs)}};
  const auto ratio = [&](int n) { return time_of(ways[1], n) / time_of(ways[0], n); };
  time_ways(ways, pool_, 0);
  if (std::any_of(group.begin(), group.end(), [&](int n) { return ratio(n) < kClose; })) time_ways(ways, pool_, kEachSeconds);
  for (const int n : group) {
    std::vector<Timing>& list = found[kinds.at(n)];  // of the cheapest form, tile 0 first
    note(list, {form, 0, list.front().us * ratio(n)});
  }
}

Found Engine::time_forms(const Kinds& kinds, const std::map<int, Quantization>& steps) {
  const auto start = Clock::now();
  Slab slab(true);
  Prepared cheapest;
  int64_t bytes = 0;
  for (const auto& [n, kind] : kinds) {
    cheapest.weights[n] = prepare(n, cheapest_form(graph_->nodes[n]), steps, slab);
    bytes += cheapest.weights[n]->bytes;
  }
  Found found;
  time_tiles(*graph_, options_, cheapest, example_of(*graph_), kinds, pool_, found);
  if (options_.number == Number::int8) return found;  // its steps were taken for one form
  for (const Form form : {Form::cosparse, Form::spatial, Form::dense})
    for (const std::vector<int>& group : groups_of(*graph_, kinds, form, std::max(bytes, kLeastGroup)))
      if (since(start) < kMostSeconds) time_form(form, group, cheapest, steps, kinds, found);
  return found;
}

std::map<int, Form> Engine::measure(const std::map<int, Quantization>& steps) {
  TuneCache cache(options_);
  cache_ = cache.path();
  const std::vector<Shape> shapes = infer_shapes(*graph_, example_of(*graph_));
  const Kinds kinds = kinds_of(*graph_, shapes);
  if (!std::all_of(kinds.begin(), kinds.end(), [&](const auto& kind) { return cache.find(kind.second); }))
    measured_ = cache.keep(time_forms(kinds, steps));
  if (!cache.warning().empty()) warnings_.push_back(cache.warning());

  std::map<int, Form> best;
  Known known;
  for (const auto& [n, kind] : kinds) {
    const Node& node = graph_->nodes[n];
    const Measured* m = cache.find(kind);
    const bool free = options_.number != Number::int8 && m && has_form(node, m->form);
    best[n] = free ? m->form : cheapest_form(node);  // int8's steps were taken for this one, whatever a file says
    const int64_t pixels = shapes[graph_->inputs.size() + n].pixels();
    if (m && !describe(node).depthwise()) known.layers[{n, pixels}] = {m->tile, pixels, reason(*m)};
  }
  known_ = std::make_shared<const Known>(std::move(known));
  return best;
}

}  // namespace cosparse
