#include "shape.h"

#include "check.h"
#include "container.h"
#include "message.h"
#include "schema.h"
#include "view.h"

namespace cosparse {
namespace {

bool has_elements(const Shape& shape) {
  int64_t count = 1;
  for (int64_t size : {shape.n, shape.c, shape.h, shape.w}) {
    if (size < 1 || size > kMostElements) return false;
    count *= size;
    if (count > kMostElements) return false;
  }
  return true;
}

void check_input(const Input& input, const Shape& shape, const Shape& first) {
  const auto wrong = [&](const std::string& want) { throw Error(Fault::shape, "input " + quoted(input.name), want, text_of(shape), ""); };
  if (shape.rank != input.example.rank) wrong(input.example.rank == 4 ? "[N, C, H, W]" : "[N, F]");
  if (shape.c != input.example.c) wrong(std::to_string(input.example.c) + (shape.rank == 4 ? " channels" : " features"));
  if (!has_elements(shape)) wrong("1 to 2147483647 elements");
  const auto within = [&](const SizeRange& sizes, int64_t size, const std::string& what) {
    if (size >= sizes.least && size <= sizes.most) return;
    const std::string least = std::to_string(sizes.least), most = std::to_string(sizes.most);
    throw Error(Fault::shape, "input " + quoted(input.name),
                "a " + what + (sizes.most == kMostSize ? " of at least " + least : sizes.least == sizes.most ? " of " + least : " from " + least + " to " + most),
                text_of(shape), "the artifact holds the network for these sizes alone: export it with an example of this one");
  };
  within(input.heights, shape.h, "height"), within(input.widths, shape.w, "width");
  if (shape.n != first.n) wrong("the batch of the first input, " + std::to_string(first.n));
}

}  // namespace

std::string text_of(const Shape& shape) {
  std::vector<int64_t> sizes = {shape.n, shape.c};
  if (shape.rank == 4) sizes.insert(sizes.end(), {shape.h, shape.w});
  return text_of(sizes);
}

void misfit(const Node& node, const std::string& want, const std::vector<Shape>& inputs) {
  std::vector<std::string> shapes;
  for (const Shape& shape : inputs) {
    shapes.push_back(shapes.size() < 8 ? text_of(shape) : "...");
    if (shapes.size() > 8) break;
  }
  throw Error(Fault::shape, about(node), want, "input " + joined(shapes), "");
}

void expect_rank(const Node& node, const std::vector<Shape>& inputs, int rank) {
  for (const Shape& x : inputs) {
    if (x.rank != rank) misfit(node, "rank " + std::to_string(rank), inputs);
  }
}

Shape infer_shape(const Node& node, const std::vector<Shape>& inputs) {
  const Shape out = rule_of(node.op, about(node)).infer(node, inputs);
  if (!has_elements(out)) misfit(node, "an output of 1 to 2147483647 elements (" + text_of(out) + " is not)", inputs);
  return out;
}

std::vector<Shape> example_shapes(const Graph& graph) {
  std::vector<Shape> shapes;
  for (const Input& input : graph.inputs) shapes.push_back(input.example);
  return shapes;
}

std::vector<Shape> infer_shapes(const Graph& graph, const std::vector<Shape>& inputs) {
  if (inputs.size() != graph.inputs.size()) {
    throw Error(Fault::shape, "inputs", std::to_string(graph.inputs.size()), std::to_string(inputs.size()), "");
  }
  std::vector<Shape> shapes;
  shapes.reserve(graph.inputs.size() + graph.nodes.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    check_input(graph.inputs[i], inputs[i], inputs[0]);
    shapes.push_back(inputs[i]);
  }
  for (const Node& node : graph.nodes) {
    std::vector<Shape> of_node;
    for (int value : node.inputs) of_node.push_back(shapes[static_cast<size_t>(value)]);
    shapes.push_back(infer_shape(node, of_node));
  }
  for (size_t i = 0; i < graph.views.size(); ++i) view_sizes(graph, i, shapes[static_cast<size_t>(graph.outputs[i])]);
  return shapes;
}

}  // namespace cosparse
