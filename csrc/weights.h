// A conv or linear node's weights in the form that the kernels read; made once at load, shared by every plan and caller.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "graph.h"
#include "kernels/kernel.h"
#include "memory.h"

namespace cosparse {

struct Weights {
  int filters = 0, channels = 0, kernel[2] = {1, 1}, groups = 1;
  bool depthwise = false;  // values: [filters][R*S]; everything below up to `bias` is then unused

  int r = 8;  // filters a block row
  Basis basis = Basis::taps;
  std::vector<UsedChannel> used;
  std::vector<uint16_t> taps;           // map numbers, channel after channel (UsedChannel)
  int maps = 0;                         // rows of xhat = taps.size()
  std::vector<uint32_t> rows, columns;  // columns count used maps only
  std::vector<float> basis_rows, basis_cols;
  Floats values, bias;

  int64_t kept = 0;    // coefficients executed, tail filters excluded
  int64_t stored = 0;  // coefficients in the artifact
  double density = 1;  // kept / (filters * channels / groups * R * S)
  int64_t bytes = 0;   // values, columns, rows, bias
  std::string why;     // the reason for this form, for the plan's table
  int block_rows() const { return (int)rows.size() - 1; }
  // The basis step in multiply-adds a channel and output pixel, at this stride (counting rule: cosparse.compress.transforms.basis_cost).
  double basis_cost(int down, int along) const;
};

std::shared_ptr<const Weights> prepare_weights(const Node& node);

}  // namespace cosparse
