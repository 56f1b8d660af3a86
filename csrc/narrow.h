// Columns of a block row in an order in which products of bytes can be summed in 16 bits (kernels/number_int8_avx2.h).
//
// A step has four columns, in two lanes of two. The processor adds the two products of a lane, each of a number 0..255 and a weight, in 16
// bits: exactly, where the lane's weights of either sign sum to at most 128 for each filter (255 * 128 < 2^15). Where that holds for the
// same lane of two steps together, a double step, these are added in 16 bits as well before they are widened. Which columns meet in a lane
// is free, and the large ones of a filter are few: most find three others.
#pragma once
#include <cstdint>
#include <vector>

#include "blocks.h"
#include "weights.h"

namespace cosparse {

// pack_steps() for KernelRow::narrow, of values that are whole numbers in -127..127: bounds, doubles, columns and values of `out`.
void pack_narrow_steps(const Blocks& blocks, const std::vector<uint32_t>& number, Slab& slab, Weights& out);

}  // namespace cosparse
