// Shapes of the operators that slide no window.
#include <algorithm>

#include "container.h"
#include "message.h"
#include "shape.h"

namespace cosparse {
namespace {

// The size along axis 1 (C), 2 (H) or 3 (W).
int64_t& along(Shape& shape, int64_t axis) { return axis == 1 ? shape.c : axis == 2 ? shape.h : shape.w; }
int64_t along(const Shape& shape, int64_t axis) { return axis == 1 ? shape.c : axis == 2 ? shape.h : shape.w; }

void expect_axis(const Node& node, const std::vector<Shape>& inputs, int64_t axis) {
  for (const Shape& x : inputs) {
    if (axis >= x.rank) misfit(node, "rank 4 for axis " + std::to_string(axis), inputs);
  }
}

}  // namespace

Shape infer_same(const Node&, const std::vector<Shape>& inputs) { return inputs[0]; }

Shape infer_per_channel(const Node& node, const std::vector<Shape>& inputs) {
  for (const auto& [role, tensor] : node.tensors) {
    if (tensor->shape[0] != inputs[0].c) misfit(node, std::to_string(tensor->shape[0]) + " channels, the length of its " + role, inputs);
  }
  return inputs[0];
}

Shape infer_broadcast(const Node& node, const std::vector<Shape>& inputs) {
  const Shape &a = inputs[0], &b = inputs[1];
  if (a.rank != b.rank || a.n != b.n) misfit(node, "inputs of one rank and batch", inputs);
  Shape out = a;
  for (int axis = 1; axis <= 3; ++axis) {
    const int64_t m = along(a, axis), n = along(b, axis);
    if (m != n && m != 1 && n != 1) misfit(node, "sizes that are equal or 1", inputs);
    along(out, axis) = std::max(m, n);
  }
  return out;
}

Shape infer_constant(const Node& node, const std::vector<Shape>& inputs) {
  const auto& sizes = node.tensor("values")->shape;
  if (sizes.size() == 1) return {inputs[0].n, sizes[0], 1, 1, 2};
  return {inputs[0].n, sizes[0], sizes[1], sizes[2], 4};
}

Shape infer_mean(const Node& node, const std::vector<Shape>& inputs) {
  expect_rank(node, inputs, 4);
  Shape out = inputs[0];
  for (int64_t axis : node.list("axes")) along(out, axis) = 1;
  if (node.integer("keep") == 0) out.rank = 2;
  return out;
}

Shape infer_concat(const Node& node, const std::vector<Shape>& inputs) {
  const int64_t axis = node.integer("axis");
  expect_axis(node, inputs, axis);
  Shape out = inputs[0];
  for (size_t i = 1; i < inputs.size(); ++i) {
    Shape other = inputs[i];
    const int64_t size = along(other, axis);
    along(other, axis) = along(out, axis);
    if (!(other == out)) misfit(node, "inputs that differ only along axis " + std::to_string(axis), inputs);
    along(out, axis) += size;
  }
  return out;
}

Shape infer_slice(const Node& node, const std::vector<Shape>& inputs) {
  const int64_t axis = node.integer("axis");
  expect_axis(node, inputs, axis);
  const int64_t size = along(inputs[0], axis);
  const auto place = [&](int64_t at) { return std::clamp<int64_t>(at < 0 ? at + size : at, 0, size); };
  const int64_t start = place(node.integer("start")), stop = place(node.integer("stop")), step = node.integer("step");
  if (stop <= start) {
    const std::string range = std::to_string(node.integer("start")) + " and " + std::to_string(node.integer("stop"));
    misfit(node, "something between " + range + " along axis " + std::to_string(axis), inputs);
  }
  Shape out = inputs[0];
  along(out, axis) = (stop - start + step - 1) / step;
  return out;
}

Shape infer_pad(const Node& node, const std::vector<Shape>& inputs) {
  expect_rank(node, inputs, 4);
  Shape out = inputs[0];
  for (int axis = 1; axis <= 3; ++axis) {
    const int64_t before = node.list("before")[axis - 1], after = node.list("after")[axis - 1], size = along(out, axis);
    if (node.text("mode") == "reflect" && std::max(before, after) >= size) misfit(node, "sizes above the reflected pads", inputs);
    along(out, axis) = before + size + after;
  }
  return out;
}

Shape infer_reshape(const Node& node, const std::vector<Shape>& inputs) {
  const Shape& x = inputs[0];
  std::vector<int64_t> sizes = node.list("shape");
  int64_t product = 1, *open = nullptr;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == -1) {
      open = &sizes[i];
      continue;
    }
    if (sizes[i] == 0) {
      if (static_cast<int>(i) + 1 >= x.rank) misfit(node, "a size to keep at each 0 of " + text_of(node.list("shape")), inputs);
      sizes[i] = along(x, static_cast<int64_t>(i) + 1);
    }
    product *= sizes[i];
    if (product > kMostElements) misfit(node, "as many elements as " + text_of(node.list("shape")), inputs);
  }
  const int64_t count = x.c * x.h * x.w;
  if (open ? count % product != 0 : count != product) misfit(node, "as many elements as " + text_of(node.list("shape")), inputs);
  if (open) *open = count / product;
  if (sizes.size() == 1) return {x.n, sizes[0], 1, 1, 2};
  return {x.n, sizes[0], sizes[1], sizes[2], 4};
}

Shape infer_permute(const Node& node, const std::vector<Shape>& inputs) {
  expect_rank(node, inputs, 4);
  const auto& order = node.list("order");
  return {inputs[0].n, along(inputs[0], order[1]), along(inputs[0], order[2]), along(inputs[0], order[3]), 4};
}

Shape infer_upsample(const Node& node, const std::vector<Shape>& inputs) {
  expect_rank(node, inputs, 4);
  const Shape& x = inputs[0];
  if (inputs.size() == 2) return {x.n, x.c, inputs[1].h, inputs[1].w, 4};
  const auto &size = node.list("size"), &factor = node.list("factor");
  if (size[0] > 0) return {x.n, x.c, size[0], size[1], 4};
  return {x.n, x.c, x.h * factor[0], x.w * factor[1], 4};
}

Shape infer_depth_to_space(const Node& node, const std::vector<Shape>& inputs) {
  expect_rank(node, inputs, 4);
  const Shape& x = inputs[0];
  const auto &block = node.list("block"), &crop = node.list("crop");
  if (x.c % (block[0] * block[1]) != 0) misfit(node, "channels that are a multiple of " + std::to_string(block[0] * block[1]), inputs);
  const Shape out{x.n, x.c / (block[0] * block[1]), x.h * block[0] - crop[0] - crop[2], x.w * block[1] - crop[1] - crop[3], 4};
  if (out.h <= 0 || out.w <= 0) misfit(node, "something left after the crop " + text_of(crop), inputs);
  return out;
}

Shape infer_channel_shuffle(const Node& node, const std::vector<Shape>& inputs) {
  expect_rank(node, inputs, 4);
  const int64_t groups = node.integer("groups");
  if (inputs[0].c % groups != 0) misfit(node, "channels that are a multiple of " + std::to_string(groups), inputs);
  return inputs[0];
}

}  // namespace cosparse
