// Shape rules, one per operator family, with PyTorch's semantics. Each throws Error(Fault::shape) that names the node and the shapes
// of its inputs.
// They may assume what the reader checks of a node alone. Sizes in are at most 2^31 - 1; infer_shape checks the sizes that come out.
#pragma once
#include <string>
#include <vector>

#include "graph.h"

namespace cosparse {

std::string text_of(const Shape& shape);  // [1, 3, 32, 32] or [1, 10]
[[noreturn]] void misfit(const Node& node, const std::string& want, const std::vector<Shape>& inputs);
void expect_rank(const Node& node, const std::vector<Shape>& inputs, int rank);

Shape infer_same(const Node& node, const std::vector<Shape>& inputs);
Shape infer_per_channel(const Node& node, const std::vector<Shape>& inputs);
Shape infer_broadcast(const Node& node, const std::vector<Shape>& inputs);
Shape infer_conv(const Node& node, const std::vector<Shape>& inputs);
Shape infer_linear(const Node& node, const std::vector<Shape>& inputs);
Shape infer_pool(const Node& node, const std::vector<Shape>& inputs);
Shape infer_adaptive(const Node& node, const std::vector<Shape>& inputs);
Shape infer_mean(const Node& node, const std::vector<Shape>& inputs);
Shape infer_concat(const Node& node, const std::vector<Shape>& inputs);
Shape infer_slice(const Node& node, const std::vector<Shape>& inputs);
Shape infer_pad(const Node& node, const std::vector<Shape>& inputs);
Shape infer_reshape(const Node& node, const std::vector<Shape>& inputs);
Shape infer_permute(const Node& node, const std::vector<Shape>& inputs);
Shape infer_upsample(const Node& node, const std::vector<Shape>& inputs);
Shape infer_depth_to_space(const Node& node, const std::vector<Shape>& inputs);
Shape infer_channel_shuffle(const Node& node, const std::vector<Shape>& inputs);
Shape infer_constant(const Node& node, const std::vector<Shape>& inputs);

}  // namespace cosparse
