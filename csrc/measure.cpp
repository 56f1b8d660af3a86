// Engine::measure: every conv and linear layer in each form it has and with each width of tile, timed inside the running network. In memory
// at the same time: the layers in their cheapest forms, and of one other form a group that takes no more than these.
#include <algorithm>
#include <set>

#include "engine.h"
#include "error.h"
#include "layer.h"
#include "memory_limit.h"
#include "tune_cache.h"
#include "ways.h"

namespace cosparse {

namespace {

constexpr double kMostSeconds = 4;        // then what has been measured decides; but Winograd's tiles, which gain the most, come first
constexpr double kLongRun = 50e3;         // microseconds of all kinds of layer, from which their neighbours leave nothing in the caches
constexpr int64_t kLeastGroup = 8 << 20;  // bytes
constexpr int64_t kHopeless = 64;         // times the cheapest form's coefficients: no kernel is so much faster at them
constexpr double kClose = 1.25;           // times of two forms of which one timed round does not tell the faster

bool contains(const std::vector<Form>& forms, Form form) { return std::find(forms.begin(), forms.end(), form) != forms.end(); }

// Whether a layer may be faster in `form` than in its cheapest one. A coefficient of Winograd's is multiplied once for a tile of pixels.
bool may_gain(const Node& node, Form form, Form cheapest) {
  const int64_t least = most_coefficients(node, cheapest), most = most_coefficients(node, form);
  return form == Form::winograd ? most / (kWinogradTile * kWinogradTile) < least : most / kHopeless <= least;
}

// What was measured of all forms that a layer may take but Winograd's.
Measured without_winograd(const Measured& m, const std::vector<Form>& forms) {
  std::vector<Timing> others;
  for (const Timing& t : m.timings)
    if (t.form != Form::winograd && contains(forms, t.form)) others.push_back(t);
  return others.empty() ? Measured{forms[0], 0, {}} : best_of(std::move(others));
}

double time_of(const Way& way, int node) {
  for (size_t s = 0; s < way.us.size(); ++s)
    if (way.plan->steps[s].node == node) return way.us[s];
  return 1e30;
}

}  // namespace

// What was measured with other forms to choose from counts apart.
Kinds Engine::as_offered(Kinds kinds) const {
  for (auto& [n, kind] : kinds) {
    const Node& node = graph_->nodes[n];
    const std::vector<Form> forms = forms_for(node);
    if (options_.dense) kind += " whole";
    if (forms[0] == Form::winograd) kind += " winograd";
    if (options_.number == Number::f32 && has_winograd(node) && !contains(forms, Form::winograd)) kind += " without winograd";
  }
  return kinds;
}

// One layer of each signature that has this form besides its cheapest one and may gain by it, in groups whose weights take at most `bytes` (or
// are one layer).
std::vector<std::vector<int>> Engine::groups_of(const Kinds& kinds, Form form, int64_t bytes) const {
  std::vector<std::vector<int>> groups;
  std::set<std::string> seen;
  int64_t used = 0;
  for (const auto& [n, kind] : kinds) {
    const Node& node = graph_->nodes[n];
    const std::vector<Form> forms = forms_for(node);
    if (forms[0] == form || !contains(forms, form) || !may_gain(node, form, forms[0]) || !seen.insert(kind).second) continue;
    const int64_t own = most_coefficients(node, form) * (int64_t)sizeof(float);
    if (!memory_allows(own, options_.max_memory)) continue;
    if (groups.empty() || used + own > bytes) groups.emplace_back(), used = 0;
    groups.back().push_back(n), used += own;
  }
  return groups;
}

// `group` in another form and in the cheapest one, in turn. The machine may have been faster or slower when the tiles were timed, so what
// counts is the ratio, times what the cheapest form took then.
void Engine::time_form(Form form, const std::vector<int>& group, const Prepared& cheapest, const std::map<int, Quantization>& steps,
                       const Kinds& kinds, Found& found) {
  Slab slab(true);
  Prepared other{cheapest.weights, {}, {}};
  for (const int n : group) other.weights[n] = prepare(n, form, steps, slab);
  const std::vector<Shape> inputs = example_shapes(*graph_);
  Options alone = options_;
  alone.pairs = false;
  std::vector<Way> ways{{0, make_plan(*graph_, alone, cheapest, inputs)}};
  try {
    ways.push_back({0, make_plan(*graph_, alone, other, inputs)});
  } catch (const Error& error) {
    if (error.fault == Fault::memory) return;  // of its scratch: the layer does without
    throw;
  }
  const auto ratio = [&](int n) { return time_of(ways[1], n) / time_of(ways[0], n); };
  double us = 0;
  for (const auto& [kind, list] : found) us += list.front().us;
  const std::set<int> only = us > kLongRun ? std::set<int>(group.begin(), group.end()) : std::set<int>{};
  time_ways(ways, pool_, 0, only);
  if (std::any_of(group.begin(), group.end(), [&](int n) { return ratio(n) < kClose; })) time_ways(ways, pool_, kEachSeconds, only);
  for (const int n : group) {
    std::vector<Timing>& list = found[kinds.at(n)];  // of the cheapest form, tile 0 first
    note(list, {form, 0, list.front().us * ratio(n)});
  }
}

Found Engine::time_forms(const Kinds& kinds, const std::map<int, Quantization>& steps) {
  const auto start = Clock::now();
  Slab slab(true);
  Prepared cheapest;
  std::map<int, Form> forms;
  for (const auto& [n, kind] : kinds) forms[n] = forms_for(graph_->nodes[n])[0];
  require_weights(forms);
  int64_t bytes = 0;
  for (const auto& [n, form] : forms) {
    cheapest.weights[n] = prepare(n, form, steps, slab);
    bytes += cheapest.weights[n]->bytes;
  }
  Found found;
  time_tiles(*graph_, options_, cheapest, example_shapes(*graph_), kinds, pool_, found);
  if (options_.number == Number::int8) return found;  // its steps were taken for one form
  for (const Form form : {Form::winograd, Form::cosparse, Form::spatial, Form::dense})
    for (const std::vector<int>& group : groups_of(kinds, form, std::max(bytes, kLeastGroup)))
      if (form == Form::winograd || since(start) < kMostSeconds) time_form(form, group, cheapest, steps, kinds, found);
  return found;
}

std::map<int, Form> Engine::measure(const std::map<int, Quantization>& steps) {
  TuneCache cache(options_);
  cache_ = cache.path();
  const std::vector<Shape> shapes = infer_shapes(*graph_, example_shapes(*graph_));
  const Kinds kinds = as_offered(kinds_of(*graph_, shapes));
  if (!std::all_of(kinds.begin(), kinds.end(), [&](const auto& kind) { return cache.find(kind.second); }))
    measured_ = cache.keep(time_forms(kinds, steps));
  if (!cache.warning().empty()) warnings_.push_back(cache.warning());

  std::map<int, Form> best;
  std::map<int, Measured> found;
  for (const auto& [n, kind] : kinds) {
    const std::vector<Form> forms = forms_for(graph_->nodes[n]);
    const Measured* m = cache.find(kind);
    const bool free = options_.number != Number::int8 && m && contains(forms, m->form);
    best[n] = free ? m->form : forms[0];  // int8's steps were taken for this one, whatever a file says
    if (m) found[n] = *m;
  }
  if (options_.winograd == Winograd::measured && !memory_allows(most_bytes(best), options_.max_memory))
    for (auto& [n, form] : best)  // Winograd's weights are the largest
      if (form == Form::winograd) found[n] = without_winograd(found[n], forms_for(graph_->nodes[n])), form = found[n].form;
  Known known;
  for (const auto& [n, m] : found)
    if (const int64_t pixels = shapes[graph_->inputs.size() + n].pixels(); !describe(graph_->nodes[n]).depthwise())
      known.layers[{n, pixels}] = {m.tile, pixels, reason(m)};
  known_ = std::make_shared<const Known>(std::move(known));
  return best;
}

}  // namespace cosparse
