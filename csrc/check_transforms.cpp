#include <cmath>

#include "check.h"
#include "message.h"

namespace cosparse {
namespace {

constexpr int64_t kMostMatrixTaps = 256;  // of a matrix along the taps: bounds the time of the check
constexpr double kOrthonormal = 1e-4;

// Whether the node has a transform along this axis ("channels", "filters"), after a check of its attributes.
bool check_tiles(const Node& node, const std::string& axis, int64_t size, int64_t groups) {
  const std::string transform = axis + "_transform", tile = axis + "_tile";
  const bool has = node.attrs.count(transform) > 0;
  if (has != (node.attrs.count(tile) > 0)) {
    refuse(about(node), "both or neither of " + quoted(transform) + " and " + quoted(tile), "only " + quoted(has ? transform : tile));
  }
  if (!has) return false;
  const int64_t points = node.integer(tile);
  if (groups != 1) refuse(about(node), "1 group where " + axis + " are transformed", std::to_string(groups));
  if (points > size) { refuse(about(node), quoted(tile) + " of at most the " + std::to_string(size) + " " + axis, std::to_string(points)); }
  if (node.text(transform) == "walsh" && (points & (points - 1))) {
    refuse(about(node), quoted(tile) + " that is a power of two (walsh)", std::to_string(points));
  }
  return true;
}

// `role` is there exactly where `transform` has the word "matrix".
const Tensor* matrices_of(const Node& node, const std::string& role, const std::string& transform, bool wanted) {
  const Tensor* tensor = node.tensor(role);
  if (wanted && !tensor) refuse(about(node), "the tensor " + quoted(role) + " (" + transform + " matrix)", "none");
  if (!wanted && tensor) refuse(about(node), "no tensor " + quoted(role) + " (" + transform + " without a matrix)", quoted(tensor->name));
  return tensor;
}

// `count` matrices [n, n], one after the other.
void check_orthonormal(const Tensor& tensor, int64_t count, int64_t n) {
  for (int64_t m = 0; m < count; ++m) {
    const float* matrix = tensor.f32() + m * n * n;
    for (int64_t u = 0; u < n; ++u)
      for (int64_t v = 0; v <= u; ++v) {
        double product = 0;
        for (int64_t t = 0; t < n; ++t) product += static_cast<double>(matrix[u * n + t]) * matrix[v * n + t];
        if (std::fabs(product - (u == v)) <= kOrthonormal) continue;
        const std::string where = "rows " + std::to_string(v) + " and " + std::to_string(u) + " of matrix " + std::to_string(m);
        refuse(about(tensor), "orthonormal rows, within 0.0001", "the product " + text_of(product) + " of " + where);
      }
  }
}

}  // namespace

void check_transforms(const Node& node, int64_t filters, int64_t channels, int64_t taps, int64_t groups) {
  const bool along_channels = check_tiles(node, "channels", channels, groups);
  check_tiles(node, "filters", filters, groups);
  const bool matrix = node.text("transform") == "matrix";
  const bool matrices = along_channels && node.text("channels_transform") == "matrix";
  if (const Tensor* basis = matrices_of(node, "basis", "transform", matrix)) {
    if (taps > kMostMatrixTaps) refuse(about(node), "at most " + std::to_string(kMostMatrixTaps) + " taps (transform matrix)", std::to_string(taps));
    expect_shape(*basis, {taps, taps});
    check_orthonormal(*basis, 1, taps);
  }
  if (const Tensor* tiles = matrices_of(node, "tiles", "channels_transform", matrices)) {
    const int64_t points = node.integer("channels_tile");
    expect_shape(*tiles, {channels / points, points, points});
    check_orthonormal(*tiles, channels / points, points);
  }
}

}  // namespace cosparse
