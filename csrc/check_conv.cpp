#include <algorithm>

#include "check.h"
#include "message.h"

namespace cosparse {
namespace {

// A convolution's sizes; linear is the case R = S = G = 1.
struct Sizes {
  int64_t filters, channels, taps_down = 1, taps_across = 1, groups = 1, block;
  int64_t columns() const { return channels / groups * taps_down * taps_across; }  // K
  int64_t block_rows() const { return (filters + block - 1) / block; }
};

Sizes read_sizes(const Node& node) {
  Sizes s{node.integer("filters"), node.integer("channels"), 1, 1, 1, node.integer("block")};
  if (node.op == "conv") {
    s.taps_down = node.list("kernel")[0], s.taps_across = node.list("kernel")[1], s.groups = node.integer("groups");
    if (s.filters % s.groups != 0 || s.channels % s.groups != 0) {
      refuse(about(node), "groups that divide filters and channels",
             std::to_string(s.groups) + " groups, " + std::to_string(s.filters) + " filters, " + std::to_string(s.channels) + " channels");
    }
  }
  // Every factor is below 2^31 (kernel: 2^10), and the left product is checked before the right one is formed.
  constexpr int64_t most = 2147483647;
  if (s.columns() > most || s.filters * s.columns() > most) {
    refuse(about(node), "at most 2147483647 weights", std::to_string(s.filters) + " filters of " + std::to_string(s.columns()));
  }
  return s;
}

void check_rows(const Tensor& rows, const Sizes& s, int64_t blocks) {
  expect_shape(rows, {s.block_rows() + 1});
  const uint32_t* row = rows.u32();
  if (row[0] != 0) refuse(about(rows), "a start at 0", std::to_string(row[0]));
  for (int64_t b = 0; b < s.block_rows(); ++b) {
    if (row[b + 1] < row[b]) {
      refuse(about(rows), "row pointers that never fall",
             std::to_string(row[b]) + " then " + std::to_string(row[b + 1]) + " at block row " + std::to_string(b));
    }
  }
  const uint32_t end = row[s.block_rows()];
  if (end != blocks) refuse(about(rows), "an end at the number of blocks, " + std::to_string(blocks), std::to_string(end));
}

// One pass without branches says whether there is anything to name.
template <class Index> bool ascend_below(int64_t bound, const Index* begin, const Index* end) {
  if (begin == end) return true;
  int falls = 0;
  for (const Index* column = begin + 1; column < end; ++column) falls |= *column <= column[-1];
  return falls == 0 && end[-1] < bound;
}

template <class Index> void check_columns(const Tensor& columns, const Index* column, const uint32_t* rows, const Sizes& s) {
  const int64_t bound = s.columns(), block_rows = s.block_rows();
  for (int64_t b = 0; b < block_rows; ++b) {
    if (ascend_below(bound, column + rows[b], column + rows[b + 1])) continue;
    const auto where = [&] { return " in block row " + std::to_string(b); };
    for (uint32_t i = rows[b]; i < rows[b + 1]; ++i) {
      if (column[i] >= bound) refuse(about(columns), "columns below " + std::to_string(bound), std::to_string(column[i]) + where());
      if (i > rows[b] && column[i] <= column[i - 1]) {
        const std::string then = column[i] == column[i - 1] ? " twice" : " then " + std::to_string(column[i]);
        refuse(about(columns), "columns that ascend within a block row", std::to_string(column[i - 1]) + then + where());
      }
    }
  }
}

void check_padding(const Tensor& values, uint32_t first_block, const Sizes& s) {
  const int64_t used = s.filters - (s.block_rows() - 1) * s.block;
  for (int64_t i = first_block; i < values.shape[0]; ++i) {
    for (int64_t r = used; r < s.block; ++r) {
      const float value = values.f32()[i * s.block + r];
      if (value != 0) {
        refuse(about(values), "zeros where the last block row reaches beyond the " + std::to_string(s.filters) + " filters",
               text_of(static_cast<double>(value)) + " in block " + std::to_string(i));
      }
    }
  }
}

void check_block(const Node& node, const Sizes& s) {
  if (s.block & (s.block - 1)) refuse(about(node), "block 1, 2, 4, 8, 16, 32 or 64", std::to_string(s.block));
  const int64_t per_group = s.filters / s.groups;
  if (s.groups > 1 && per_group % s.block != 0) {
    refuse(about(node), "a block that divides the " + std::to_string(per_group) + " filters of a group", std::to_string(s.block));
  }
  for (const char* role : {"columns", "rows"}) {
    if (!node.tensor(role)) refuse(about(node), "the tensor " + quoted(role) + " (format block)", "none");
  }
  const Tensor &values = *node.tensor("values"), &columns = *node.tensor("columns"), &rows = *node.tensor("rows");
  const int64_t blocks = columns.shape[0];
  expect_shape(values, {blocks, s.block});
  check_rows(rows, s, blocks);
  const bool narrow = s.columns() <= 65536;
  if (columns.dtype != (narrow ? Dtype::u16 : Dtype::u32)) {
    const std::string reason = " for K = " + std::to_string(s.columns()) + (narrow ? " <= 65536" : " > 65536");
    refuse(about(columns), (narrow ? "dtype U16" : "dtype U32") + reason, narrow ? "U32" : "U16");
  }
  if (narrow) {
    check_columns(columns, columns.u16(), rows.u32(), s);
  } else {
    check_columns(columns, columns.u32(), rows.u32(), s);
  }
  check_padding(values, rows.u32()[s.block_rows() - 1], s);
}

void check_dense(const Node& node, const Sizes& s) {
  if (s.block != 1) refuse(about(node), "block 1 (format dense)", std::to_string(s.block));
  for (const char* role : {"columns", "rows"}) {
    if (node.tensor(role)) refuse(about(node), "no tensor " + quoted(role) + " (format dense)", quoted(node.tensor(role)->name));
  }
  std::vector<int64_t> shape = {s.filters, s.channels / s.groups};
  if (node.op == "conv") shape.insert(shape.end(), {s.taps_down, s.taps_across});
  expect_shape(*node.tensor("values"), shape);
}

}  // namespace

std::string about(const Tensor& tensor) { return "tensor " + quoted(tensor.name); }

void expect_shape(const Tensor& tensor, const std::vector<int64_t>& shape) {
  if (tensor.shape != shape) refuse(about(tensor), "shape " + text_of(shape), text_of(tensor.shape));
}

void check_conv(const Node& node) {
  const Sizes s = read_sizes(node);
  for (const char* role : {"scale", "bias"}) {
    if (const Tensor* tensor = node.tensor(role)) expect_shape(*tensor, {s.filters});
  }
  if (node.text("format") == "dense") {
    check_dense(node, s);
  } else {
    check_block(node, s);
  }
  check_transforms(node, s.filters, s.channels, s.taps_down * s.taps_across, s.groups);
}

void check_finite(const Tensor& tensor) {
  if (tensor.dtype != Dtype::f32) return;
  constexpr uint32_t exponent = 0x7F800000;
  constexpr int64_t piece = 4096;  // looked at without branches; only a bad one is looked at again
  const auto* bits = tensor.u32();
  const int64_t count = tensor.count();
  for (int64_t begin = 0; begin < count; begin += piece) {
    const int64_t end = std::min(count, begin + piece);
    int bad = 0;
    for (int64_t i = begin; i < end; ++i) bad |= (bits[i] & exponent) == exponent;
    if (!bad) continue;
    const int64_t at = std::find_if(bits + begin, bits + end, [&](uint32_t b) { return (b & exponent) == exponent; }) - bits;
    refuse(about(tensor), "finite values", (bits[at] & 0x7FFFFF ? "NaN" : "infinity") + (" at element " + std::to_string(at)),
           "export the network again");
  }
}

}  // namespace cosparse
