// The steps of a product that reads taps in place out of padded copies (Source::shifted, window_geometry.h).
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/kernel.h"
#include "weights.h"
#include "window_geometry.h"

namespace cosparse {

struct ShiftedSteps {
  // ConvArgs::columns: places from a pixel's own, in the first phase of the first channel.
  std::vector<uint32_t> columns;
  // Where a place holds the columns of a step (Geometry::joined), steps are those of neighbouring taps: of one chunk, with values and bounds of
  // their own.
  std::vector<uint32_t> values, bounds;

  // Puts them in the place of the weights' own.
  void serve(ConvArgs& a) const {
    a.columns = columns.data();
    if (!bounds.empty()) a.values = values.data(), a.bounds = bounds.data(), a.bounds_step = (int)bounds.size() / 2, a.chunk_count = 1;
  }
};

ShiftedSteps shifted_steps(const Weights& weights, const Geometry& geometry);

}  // namespace cosparse
