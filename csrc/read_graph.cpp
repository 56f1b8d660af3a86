#include "read_graph.h"

#include <set>

#include "check.h"
#include "view.h"

namespace cosparse {
namespace {

constexpr size_t kMostNodes = 65536;
constexpr size_t kMostValues = 65536;  // inputs, and outputs

using Names = std::map<std::string, int>;  // of values, to their ids

void add_name(Names& ids, const std::string& name, const std::string& about) {
  expect_name(name, about, kLongestName);
  const int id = static_cast<int>(ids.size());
  if (!ids.emplace(name, id).second) refuse(about, "a name of its own", "the name " + quoted(name) + " twice");
}

int64_t read_size(const Json& json, const std::string& about) {
  const int64_t size = expect<int64_t>(json, about, "integers after the first size");
  if (size < 1 || size > 2147483647) refuse(about, "sizes from 1 to 2147483647", std::to_string(size));
  return size;
}

// [least, most] around the example's size.
SizeRange read_sizes(const Json& json, int64_t example, const std::string& about) {
  const auto& range = expect<Json::Array>(json, about, "sizes as two pairs");
  if (range.size() != 2) refuse(about, "sizes as two pairs", std::to_string(range.size()) + " numbers");
  const SizeRange sizes{read_size(range[0], about), read_size(range[1], about)};
  if (example < sizes.least || example > sizes.most)
    refuse(about, "sizes from " + std::to_string(sizes.least) + " to " + std::to_string(sizes.most), std::to_string(example) + ", the example's");
  return sizes;
}

Input read_input(const Json& json, int64_t version) {
  const auto& fields = expect<Json::Object>(json, "graph: inputs", "objects");
  const bool limited = version >= 3 && find(fields, "sizes");
  expect_fields(fields, limited ? std::vector<std::string>{"name", "shape", "dtype", "sizes"} : std::vector<std::string>{"name", "shape", "dtype"},
                "graph: inputs");
  Input input;
  input.name = expect<std::string>(*find(fields, "name"), "graph: inputs", "a name");
  const std::string about = "input " + quoted(input.name);
  const std::string& dtype = expect<std::string>(*find(fields, "dtype"), about, "a dtype");
  if (dtype != "float32") refuse(about, "dtype 'float32'", quoted(dtype));
  const auto& shape = expect<Json::Array>(*find(fields, "shape"), about, "a shape");
  if (shape.size() != 2 && shape.size() != 4) refuse(about, "shape [null, C, H, W] or [null, F]", "rank " + std::to_string(shape.size()));
  expect<std::nullptr_t>(shape[0], about, "null (the batch) as the first size");
  input.example = {1, read_size(shape[1], about), 1, 1, static_cast<int>(shape.size())};
  if (shape.size() == 4) input.example.h = read_size(shape[2], about), input.example.w = read_size(shape[3], about);
  if (limited) {
    const auto& pairs = expect<Json::Array>(*find(fields, "sizes"), about, "sizes as two pairs");
    if (pairs.size() != 2 || shape.size() != 4)
      refuse(about, "sizes as two pairs, of a shape of rank 4", std::to_string(pairs.size()) + ", of rank " + std::to_string(shape.size()));
    input.heights = read_sizes(pairs[0], input.example.h, about), input.widths = read_sizes(pairs[1], input.example.w, about);
  }
  return input;
}

// The names in "inputs" of a node or in "outputs" of the graph, as value ids.
std::vector<int> read_references(const Json& json, const Names& ids, const std::string& about, const std::string& what) {
  std::vector<int> out;
  for (const Json& item : expect<Json::Array>(json, about, what + " as a list of names")) {
    const std::string& name = expect<std::string>(item, about, what + " as a list of names");
    const auto found = ids.find(name);
    if (found == ids.end()) refuse(about, what + " that name graph inputs or nodes", quoted(name) + ", which there is not");
    out.push_back(found->second);
  }
  return out;
}

// A node reads one that stands later. Either no order would do, for there is a cycle through it, or the list is in the wrong order.
[[noreturn]] void refuse_order(const Graph& graph, int reader, int read) {
  const int first = static_cast<int>(graph.inputs.size());
  std::map<int, int> reached = {{read, reader}};  // value -> the node that led to it
  std::vector<int> open = {read};
  while (!open.empty() && reached.count(reader) == 0) {
    const int value = open.back();
    open.pop_back();
    if (value < first) continue;
    for (int input : graph.nodes[static_cast<size_t>(value - first)].inputs) {
      if (reached.emplace(input, value).second) open.push_back(input);
    }
  }
  const std::string about = cosparse::about(graph.nodes[static_cast<size_t>(reader - first)]);
  if (reached.count(reader) == 0 && reader != read) {
    refuse(about, "inputs that stand earlier in the list", quoted(graph.value_name(read)) + ", which stands later");
  }
  std::string path = quoted(graph.value_name(reader));
  if (reader != read) {
    std::vector<int> back;
    for (int value = reader; value != read; value = reached.at(value)) back.push_back(value);
    path += " -> " + quoted(graph.value_name(read));
    for (size_t i = back.size(); i-- > 1 && path.size() < 500;) path += " -> " + quoted(graph.value_name(back[i]));
  }
  refuse(about, "a graph without cycles", "the cycle " + path + " -> " + quoted(graph.value_name(reader)) + " (each reads the next)");
}

void read_nodes(const Json& json, int64_t version, Graph& graph, Names& ids) {
  const auto& list = expect<Json::Array>(json, "graph: nodes", "a list");
  if (list.size() > kMostNodes) refuse("graph: nodes", "at most 65536 nodes", std::to_string(list.size()));
  std::map<std::string, const Tensor*> tensors;
  for (const auto& tensor : graph.tensors) tensors[tensor->name] = tensor.get();
  for (const Json& item : list) {
    const std::string about = "node " + std::to_string(graph.nodes.size()) + " of the list";
    const auto& fields = expect<Json::Object>(item, about, "an object");
    expect_fields(fields, {"name", "op", "inputs", "attrs", "tensors"}, about);
    add_name(ids, expect<std::string>(*find(fields, "name"), about, "a name"), about);
    graph.nodes.push_back(read_node(fields, version, tensors));
  }
  for (size_t i = 0; i < list.size(); ++i) {
    graph.nodes[i].inputs = read_references(*find(*list[i].as<Json::Object>(), "inputs"), ids, about(graph.nodes[i]), "inputs");
  }
}

void check_order(const Graph& graph) {
  int id = static_cast<int>(graph.inputs.size());
  for (const Node& node : graph.nodes) {
    for (int value : node.inputs) {
      if (value >= id) refuse_order(graph, id, value);
    }
    ++id;
  }
}

void check_tensors_used(const Graph& graph) {
  std::set<const Tensor*> used;
  for (const Node& node : graph.nodes) {
    for (const auto& [role, tensor] : node.tensors) used.insert(tensor);
  }
  for (const auto& tensor : graph.tensors) {
    if (used.count(tensor.get()) == 0) refuse("tensor " + quoted(tensor->name), "a node that uses it", "none");
  }
}

void expect_few(size_t count, const std::string& what) {
  if (count > kMostValues) refuse("graph", "at most " + std::to_string(kMostValues) + " " + what, std::to_string(count));
}

}  // namespace

void read_graph(const Json::Object& json, int64_t version, Graph& graph) {
  graph.name = expect<std::string>(*find(json, "name"), "graph", "a name");
  expect_name(graph.name, "graph: name", kLongestName);
  for (const std::string field : {"preprocessing", "provenance"}) expect<Json::Object>(*find(json, field), "graph: " + field, "an object");
  Names ids;
  const auto& inputs = expect<Json::Array>(*find(json, "inputs"), "graph: inputs", "a list");
  if (inputs.empty()) refuse("graph: inputs", "at least one", "none");
  expect_few(inputs.size(), "inputs");
  for (const Json& item : inputs) {
    graph.inputs.push_back(read_input(item, version));
    add_name(ids, graph.inputs.back().name, "graph: inputs");
  }
  read_nodes(*find(json, "nodes"), version, graph, ids);
  check_order(graph);
  expect_few(expect<Json::Array>(*find(json, "outputs"), "graph", "outputs as a list of names").size(), "outputs");
  graph.outputs = read_references(*find(json, "outputs"), ids, "graph", "outputs");
  if (graph.outputs.empty()) refuse("graph: outputs", "at least one", "none");
  if (const Json* views = find(json, "views")) graph.views = read_views(*views, graph);
  for (const Node& node : graph.nodes) check_node(node);
  check_tensors_used(graph);
}

}  // namespace cosparse
