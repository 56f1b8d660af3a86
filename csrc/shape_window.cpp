// Shapes of operators that slide a window: conv, linear, pools.
#include "message.h"
#include "shape.h"

namespace cosparse {
namespace {

int64_t floor_divide(int64_t a, int64_t b) { return a / b - (a % b != 0 && a < 0); }

struct AxisWindow {
  int64_t kernel, stride, dilation, before, after;
  bool ceil;
};

// Windows along an axis of `size`; <= 0 where none fits.
int64_t count_windows(int64_t size, const AxisWindow& w) {
  const int64_t room = size + w.before + w.after - w.dilation * (w.kernel - 1) - 1;
  int64_t count = floor_divide(room + (w.ceil ? w.stride - 1 : 0), w.stride) + 1;
  if (w.ceil && (count - 1) * w.stride >= size + w.before) --count;  // it would start in the trailing pad
  return count;
}

Shape slide(const Node& node, const std::vector<Shape>& inputs, bool dilated, bool ceil) {
  const Shape& x = inputs[0];
  const auto &kernel = node.list("kernel"), &stride = node.list("stride"), &pad = node.list("pad");
  const auto window = [&](int axis) {
    return AxisWindow{kernel[axis], stride[axis], dilated ? node.list("dilation")[axis] : 1, pad[axis], pad[axis + 2], ceil};
  };
  const Shape out{x.n, x.c, count_windows(x.h, window(0)), count_windows(x.w, window(1)), 4};
  if (out.h <= 0 || out.w <= 0) misfit(node, "height and width that hold its window " + text_of(kernel), inputs);
  return out;
}

void expect_channels(const Node& node, const std::vector<Shape>& inputs) {
  if (inputs[0].c != node.integer("channels")) misfit(node, std::to_string(node.integer("channels")) + " channels", inputs);
}

}  // namespace

Shape infer_conv(const Node& node, const std::vector<Shape>& inputs) {
  expect_rank(node, inputs, 4);
  expect_channels(node, inputs);
  Shape out = slide(node, inputs, true, false);
  out.c = node.integer("filters");
  return out;
}

Shape infer_linear(const Node& node, const std::vector<Shape>& inputs) {
  expect_rank(node, inputs, 2);
  expect_channels(node, inputs);
  return {inputs[0].n, node.integer("filters"), 1, 1, 2};
}

Shape infer_pool(const Node& node, const std::vector<Shape>& inputs) {
  expect_rank(node, inputs, 4);
  return slide(node, inputs, node.op == "max_pool", node.integer("ceil") != 0);
}

Shape infer_adaptive(const Node& node, const std::vector<Shape>& inputs) {
  expect_rank(node, inputs, 4);
  const auto& size = node.list("size");
  return {inputs[0].n, inputs[0].c, size[0], size[1], 4};
}

}  // namespace cosparse
