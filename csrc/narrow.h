// Columns of a block row in an order in which products of bytes can be summed in 16 bits (kernels/number_int8_avx2.h).
//
// A step has four columns, in two lanes of two. The processor adds the two products of a lane, each of a number 0..255 and a weight, in 16
// bits: exactly, where the lane's weights of either sign sum to at most kMostOfLane for each filter. Where that holds for the same lane of
// two steps together, a double step, these are added in 16 bits as well before they are widened. Which columns meet in a lane is free, and
// the large ones of a filter are few: most find three others.
#pragma once
#include <cstdint>
#include <vector>

#include "blocks.h"
#include "weights.h"

namespace cosparse {

constexpr int kMostOfLane = 128;  // 255 * 128 < 2^15
constexpr uint32_t kNoBlock = UINT32_MAX;

struct NarrowRow {
  std::vector<uint32_t> slots;  // a block each, or kNoBlock: four of a step
  uint32_t doubles = 0;         // steps 2i and 2i + 1 for i < doubles are double steps; all others stand alone
};

// Blocks begin..end-1, whose values are whole numbers in -127..127.
NarrowRow narrow_row(const Blocks& blocks, uint32_t begin, uint32_t end);
// pack_steps() of such rows: bounds, doubles, columns and values of `out`.
void pack_narrow_steps(const Blocks& blocks, const std::vector<uint32_t>& number, Slab& slab, Weights& out);

}  // namespace cosparse
