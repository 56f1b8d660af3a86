// Rules of docs/artifact.md that tie attributes and tensors of one node together. Each throws Error(Fault::artifact) that names the node.
#pragma once
#include <string>

#include "graph.h"

namespace cosparse {

std::string about(const Node& node);      // node 'layer1.0.conv1' (conv)
std::string about(const Tensor& tensor);  // tensor 'conv1.values'
void check_finite(const Tensor& tensor);  // no NaN, no infinity

void check_conv(const Node& node);  // linear too
// The transforms of a conv or linear node of these sizes: which attributes and matrices go together, and that the matrices are orthonormal.
void check_transforms(const Node& node, int64_t filters, int64_t channels, int64_t taps, int64_t groups);
void expect_shape(const Tensor& tensor, const std::vector<int64_t>& shape);
void check_activation(const Node& node);
void check_pool(const Node& node);
void check_mean(const Node& node);
void check_pad(const Node& node);
void check_reshape(const Node& node);
void check_permute(const Node& node);
void check_upsample(const Node& node);
void check_group_norm(const Node& node);
void check_constant(const Node& node);

}  // namespace cosparse
