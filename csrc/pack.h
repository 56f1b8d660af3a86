// Blocks as a kernel's steps read them: rounded to its number, the columns of a step side by side.
#pragma once
#include <vector>

#include "blocks.h"
#include "kernels/table.h"
#include "weights.h"

namespace cosparse {

// To bfloat16, in floats.
void round_values(Blocks& blocks);
// Values become whole numbers in -127..127, one scale a filter; the bias takes up what the zero point adds.
void quantize(const Layer& layer, bool whole, Quantization quantization, Blocks& blocks, Weights& out);
// Groups the columns of each row and chunk into steps; a step that is not full repeats its first column. number: the map of each column.
// Fills bounds, columns and values of `out`.
void pack_steps(const Blocks& blocks, const std::vector<uint32_t>& number, const KernelRow& kernel, Slab& slab, Weights& out);

}  // namespace cosparse
