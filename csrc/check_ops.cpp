#include <algorithm>

#include "check.h"
#include "message.h"

namespace cosparse {

std::string about(const Node& node) { return "node " + quoted(node.name) + " (" + node.op + ")"; }

void check_activation(const Node& node) {
  const std::string& kind = node.text("kind");
  const double alpha = node.number("alpha"), beta = node.number("beta");
  const bool uses_alpha = kind == "clip" || kind == "leaky_relu" || kind == "elu" || kind == "pow", uses_beta = kind == "clip";
  if (!uses_alpha && alpha != 0) refuse(about(node), "alpha 0, which " + kind + " has no use for", text_of(alpha));
  if (!uses_beta && beta != 0) refuse(about(node), "beta 0, which " + kind + " has no use for", text_of(beta));
  if (kind == "pow" && alpha == 0) refuse(about(node), "an exponent alpha other than 0", text_of(alpha));
  if (kind == "clip" && alpha > beta) {
    refuse(about(node), "alpha (lowest) not above beta (highest)", text_of(alpha) + " and " + text_of(beta));
  }
}

// PyTorch's rule. With it every window, also the last one of `ceil`, sees the input unless dilation steps over it.
void check_pool(const Node& node) {
  const auto &kernel = node.list("kernel"), &pad = node.list("pad");
  for (size_t side = 0; side < 4; ++side) {
    if (pad[side] > kernel[side % 2] / 2) {
      refuse(about(node), "pads of at most half the kernel", "pad " + text_of(pad) + " with kernel " + text_of(kernel));
    }
  }
}

void check_mean(const Node& node) {
  const auto& axes = node.list("axes");
  const bool ascending = std::adjacent_find(axes.begin(), axes.end(), [](int64_t a, int64_t b) { return a >= b; }) == axes.end();
  if (!ascending) refuse(about(node), "axes that ascend", text_of(axes));
  if (node.integer("keep") == 0 && axes != std::vector<int64_t>{2, 3}) refuse(about(node), "axes [2, 3] with keep 0", text_of(axes));
}

void check_pad(const Node& node) {
  if (node.text("mode") != "constant" && node.number("value") != 0) {
    refuse(about(node), "value 0, which mode " + node.text("mode") + " has no use for", text_of(node.number("value")));
  }
}

void check_reshape(const Node& node) {
  const auto& shape = node.list("shape");
  if (shape.size() == 2) refuse(about(node), "1 or 3 sizes", text_of(shape));
  if (std::count(shape.begin(), shape.end(), -1) > 1) refuse(about(node), "-1 at most once", text_of(shape));
}

void check_permute(const Node& node) {
  const auto& order = node.list("order");
  const std::vector<int64_t> all = {0, 1, 2, 3};
  if (order[0] != 0 || !std::is_permutation(order.begin(), order.end(), all.begin())) {
    refuse(about(node), "a permutation of 0..3 that starts with 0", text_of(order));
  }
}

void check_upsample(const Node& node) {
  const auto &size = node.list("size"), &factor = node.list("factor");
  const std::string found = "size " + text_of(size) + ", factor " + text_of(factor) + ", inputs " + std::to_string(node.inputs.size());
  const bool halved = (size[0] == 0) != (size[1] == 0) || (factor[0] == 0) != (factor[1] == 0);
  if (halved) refuse(about(node), "both or neither of a pair to be 0", found);
  const int ways = (size[0] > 0) + (factor[0] > 0) + (node.inputs.size() == 2);
  if (ways != 1) refuse(about(node), "one of size, factor and a second input", found);
  if (node.text("mode") == "nearest" && node.integer("align_corners") != 0) refuse(about(node), "align_corners 0 with mode nearest", "1");
}

void check_group_norm(const Node& node) {
  const int64_t groups = node.integer("groups"), channels = node.tensor("scale")->count();
  if (channels % groups) refuse(about(node), "groups that divide its " + std::to_string(channels) + " channels", std::to_string(groups));
}

void check_constant(const Node& node) {
  const Tensor& values = *node.tensor("values");
  const bool fits = values.shape.size() == 1 || values.shape.size() == 3;
  if (!fits || values.count() == 0) refuse(about(node), "values [F] or [C, H, W], at least one", "shape " + text_of(values.shape));
}

}  // namespace cosparse
