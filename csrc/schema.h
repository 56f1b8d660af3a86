// The operator table of docs/artifact.md as data: what the reader checks, what shape inference calls, what Python lists.
// A new operator is one row here, one shape rule (shape.h) and, where its attributes depend on each other, one check (check.h).
#pragma once
#include <string>
#include <vector>

#include "graph.h"

namespace cosparse {

constexpr int64_t kVersion = 3;  // of the artifact: the highest that the reader takes

struct AttrRule {
  enum class Type { integer, number, choice, list };
  std::string name;
  Type type;
  double lowest = 0, highest = 0;    // of an integer, a number, each item of a list; inclusive
  size_t shortest = 0, longest = 0;  // of a list
  std::vector<std::string> choices = {};
  bool optional = false;
};

struct TensorRule {
  std::string role;
  std::vector<Dtype> dtypes;
  size_t rank = 0;  // 0: depends on the attributes, the check of the op holds it
  bool optional = false;
};

struct OpRule {
  std::string op;
  size_t fewest_inputs, most_inputs;
  std::vector<AttrRule> attrs;
  std::vector<TensorRule> tensors;
  void (*check)(const Node&);  // rules among attributes and tensors; nullptr where there are none
  Shape (*infer)(const Node&, const std::vector<Shape>&);
};

// The table of one version, 1..kVersion.
const std::vector<OpRule>& schema(int64_t version = kVersion);
const OpRule& rule_of(const std::string& op, const std::string& about, int64_t version = kVersion);  // throws Error(Fault::unsupported)

}  // namespace cosparse
