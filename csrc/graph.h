// The network as the runtime sees it: a checked list of nodes in topological order (docs/artifact.md).
// Whoever holds a Graph may rely on every rule of that page; nothing downstream checks them again.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace cosparse {

enum class Dtype { f32, u16, u32 };
size_t size_of(Dtype);

// A tensor with memory of its own, 64-byte aligned, which is shared with the arrays that Python makes of it.
struct Tensor {
  std::string name;
  Dtype dtype;
  std::vector<int64_t> shape;
  std::shared_ptr<const std::byte> data;  // nullptr once an engine has packed it (StoredWeights)
  int64_t count() const;                  // number of elements
  int64_t bytes() const { return count() * (int64_t)size_of(dtype); }
  const float* f32() const { return reinterpret_cast<const float*>(data.get()); }
  const uint16_t* u16() const { return reinterpret_cast<const uint16_t*>(data.get()); }
  const uint32_t* u32() const { return reinterpret_cast<const uint32_t*>(data.get()); }
};

using Attr = std::variant<int64_t, double, std::string, std::vector<int64_t>>;

struct Node {
  std::string name, op;
  std::vector<int> inputs;  // value ids; value v < graph.inputs.size() is a graph input, else nodes[v - inputs.size()]
  std::map<std::string, Attr> attrs;
  std::map<std::string, const Tensor*> tensors;  // role -> tensor
  int64_t integer(const std::string& key) const { return std::get<int64_t>(attrs.at(key)); }
  double number(const std::string& key) const { return std::get<double>(attrs.at(key)); }
  const std::string& text(const std::string& key) const { return std::get<std::string>(attrs.at(key)); }
  const std::vector<int64_t>& list(const std::string& key) const { return std::get<std::vector<int64_t>>(attrs.at(key)); }
  const Tensor* tensor(const std::string& role) const;  // nullptr where the node has none
};

// [n, c, h, w]; rank 2 values have h = w = 1.
struct Shape {
  int64_t n = 0, c = 0, h = 0, w = 0;
  int rank = 4;
  int64_t pixels() const { return n * h * w; }
  bool operator==(const Shape& o) const { return n == o.n && c == o.c && h == o.h && w == o.w && rank == o.rank; }
};

constexpr int64_t kMostSize = 2147483647;  // of an axis

// Heights or widths that a network takes.
struct SizeRange {
  int64_t least = 1, most = kMostSize;
};

struct Input {
  std::string name;
  Shape example;              // n = 1
  SizeRange heights, widths;      // for which the network computes what its source did
};

// An axis behind the batch of an output as the caller has it: a size, the size of an axis of the stored value, or what the others leave.
struct ViewAxis {
  int64_t size = 0;
  int axis = 0;
  bool is_rest() const { return size == 0 && axis == 0; }
};
using View = std::vector<ViewAxis>;

struct Graph {
  std::string name, file;
  std::vector<Input> inputs;
  std::vector<Node> nodes;
  std::vector<int> outputs;  // value ids
  std::string json;          // the GRAPH string of the file, for Python (inspect, metadata)
  std::vector<std::unique_ptr<Tensor>> tensors;
  int64_t file_bytes = 0;
  std::vector<std::optional<View>> views;  // of the outputs, in their order; empty: each is given as it is stored
  const std::string& value_name(int v) const { return v < (int)inputs.size() ? inputs[v].name : nodes[v - inputs.size()].name; }
};

// Reads and checks everything that docs/artifact.md demands, shapes at the example's size included. Throws Error (Fault::artifact;
// Fault::unsupported for an unknown op or version).
std::shared_ptr<Graph> read_artifact(const std::string& path);
std::shared_ptr<Graph> parse_artifact(const std::string& name, const std::byte* bytes, int64_t count);

// Output shape of one node; throws Error(Fault::shape) that names the node.
Shape infer_shape(const Node& node, const std::vector<Shape>& inputs);
// Shapes of all values for the given input shapes, in value-id order; checks rank and channels of the inputs too, and views of the outputs.
std::vector<Shape> infer_shapes(const Graph& graph, const std::vector<Shape>& inputs);
// The inputs' shapes of the example that the network was exported with.
std::vector<Shape> example_shapes(const Graph& graph);

}  // namespace cosparse
