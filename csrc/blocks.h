// Blocks of r filters, row after row, as the kernels want them; cut from the stored form, whose blocks may be larger or absent.
#pragma once
#include <vector>

#include "layer.h"
#include "slab.h"

namespace cosparse {

struct Blocks {
  int r = 8;
  std::vector<uint32_t> rows{0}, columns;  // columns over all groups: channel * R*S + tap
  std::shared_ptr<float[]> values;         // [columns.size()][r], scale applied
  int64_t kept = 0;                        // coefficients, those beyond the last filter excluded
};

// The stored coefficients times `factor` of their tap; blocks of zeros are dropped. The values are the latest piece of `slab`.
Blocks stored_blocks(const Layer& layer, int r, const std::vector<double>& factor, Slab& slab);
// The same weights as taps (transformed back where they are coefficients); blocks of zeros are kept where `all`.
Blocks tap_blocks(const Layer& layer, int r, bool all, Slab& slab);

}  // namespace cosparse
