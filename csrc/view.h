// The shape in which an output is given to whoever calls from Python or over the network: [N, ...] of any rank, over the stored value's
// numbers as they lie.
#pragma once
#include <optional>

#include "fields.h"
#include "graph.h"

namespace cosparse {

// The field "views" (docs/artifact.md), one entry for each of graph.outputs. Whether a view fits its value is view_sizes'.
std::vector<std::optional<View>> read_views(const Json& json, const Graph& graph);

// The sizes of output `index` for this shape of the stored value, which are those of the value where it has no view.
// Throws Error(Fault::shape) where the view is not of as many numbers.
std::vector<int64_t> view_sizes(const Graph& graph, size_t index, const Shape& stored);

}  // namespace cosparse
