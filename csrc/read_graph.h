// The JSON of a network (docs/artifact.md, "Graph") -> names, nodes and references of a Graph, checked against the operator table.
#pragma once
#include <map>
#include <string>

#include "fields.h"
#include "graph.h"

namespace cosparse {

constexpr size_t kLongestName = 512;

// Fills inputs, nodes and outputs of `graph` from the parsed JSON of this version. Its tensors are there already, their data too.
void read_graph(const Json::Object& json, int64_t version, Graph& graph);

// One node without its inputs: op, attributes and tensors, each by its row in the version's operator table. Cross-field rules are check_node's.
Node read_node(const Json::Object& json, int64_t version, const std::map<std::string, const Tensor*>& tensors);
void check_node(const Node& node);

}  // namespace cosparse
