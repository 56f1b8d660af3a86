#include "view.h"

#include "shape.h"

namespace cosparse {
namespace {

constexpr size_t kMostAxes = 7;  // behind the batch
const std::string kWant = "a view of sizes from 1 to 2147483647, {\"axis\": 1..3} and at most one null";

// (Unqualified, <filesystem> would offer std::quoted.)
std::string about(const Graph& graph, size_t index) { return "output " + cosparse::quoted(graph.value_name(graph.outputs[index])); }

ViewAxis read_axis(const Json& json, const std::string& about) {
  if (json.as<std::nullptr_t>()) return {};
  if (const auto* fields = json.as<Json::Object>()) {
    expect_fields(*fields, {"axis"}, about + ": view");
    const int64_t axis = expect<int64_t>(*find(*fields, "axis"), about, kWant);
    if (axis < 1 || axis > 3) refuse(about, kWant, "axis " + std::to_string(axis));
    return {0, static_cast<int>(axis)};
  }
  const int64_t size = expect<int64_t>(json, about, kWant);
  if (size < 1 || size > kMostSize) refuse(about, kWant, std::to_string(size));
  return {size, 0};
}

View read_view(const Json& json, const std::string& about) {
  const auto& list = expect<Json::Array>(json, about, "a view as a list, or null");
  if (list.size() > kMostAxes) refuse(about, "a view of at most 7 axes behind the batch", std::to_string(list.size()));
  View view;
  int rest = 0;
  for (const Json& item : list) {
    view.push_back(read_axis(item, about));
    rest += view.back().is_rest();
  }
  if (rest > 1) refuse(about, kWant, std::to_string(rest) + " of null");
  return view;
}

std::string text_of(const View& view) {
  std::vector<std::string> words = {"N"};
  for (const ViewAxis& a : view) words.push_back(a.is_rest() ? "null" : a.axis ? "axis " + std::to_string(a.axis) : std::to_string(a.size));
  return "[" + joined(words) + "]";
}

}  // namespace

std::vector<std::optional<View>> read_views(const Json& json, const Graph& graph) {
  const auto& list = expect<Json::Array>(json, "graph: views", "a list");
  if (list.size() != graph.outputs.size()) {
    refuse("graph: views", "one for each of the " + std::to_string(graph.outputs.size()) + " outputs", std::to_string(list.size()));
  }
  std::vector<std::optional<View>> views(list.size());
  for (size_t i = 0; i < list.size(); ++i) {
    if (!list[i].as<std::nullptr_t>()) views[i] = read_view(list[i], about(graph, i));
  }
  return views;
}

std::vector<int64_t> view_sizes(const Graph& graph, size_t index, const Shape& stored) {
  const std::vector<int64_t> own = {stored.n, stored.c, stored.h, stored.w};
  if (index >= graph.views.size() || !graph.views[index]) return {own.begin(), own.begin() + stored.rank};
  const View& view = *graph.views[index];
  const auto misfit = [&](const std::string& want) { throw Error(Fault::shape, about(graph, index), want, cosparse::text_of(stored), ""); };
  const int64_t count = stored.c * stored.h * stored.w;  // of one image, below 2^31
  int64_t product = 1;
  std::vector<int64_t> sizes = {stored.n};
  size_t rest = 0;
  for (const ViewAxis& a : view) {
    if (a.axis >= stored.rank) misfit("a value that has axis " + std::to_string(a.axis) + ", for the view " + text_of(view));
    sizes.push_back(a.is_rest() ? 1 : a.axis ? own[static_cast<size_t>(a.axis)] : a.size);
    if (a.is_rest()) rest = sizes.size() - 1;
    if (product > count / sizes.back()) misfit("as many numbers as the view " + text_of(view) + " has");
    product *= sizes.back();
  }
  if (rest) sizes[rest] = count / product;
  if (product * (rest ? sizes[rest] : 1) != count) misfit("as many numbers as the view " + text_of(view) + " has");
  return sizes;
}

}  // namespace cosparse
