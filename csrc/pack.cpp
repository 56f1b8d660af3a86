#include "pack.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>

#include "bf16.h"
#include "narrow.h"

namespace cosparse {

namespace {

// One filter's scale: its largest value is 127, but for two bounds. No sum of 255 times its values may exceed 32 bits, roundings included,
// which from 66,312 columns on it could; and what float has no normal number for becomes 0 (scale 1).
float int8_scale(float most, double total, int64_t columns) {
  const double scale = std::max(most / 127.0, 255 * total / std::max(1.0, INT32_MAX - 127.5 * (double)columns));
  return scale >= FLT_MIN ? (float)scale : 1.f;
}

// What slot i of n takes of a column that fills all of them: equal shares of the even and the odd slots, which are summed apart, in each
// 1/2^k, 1/2^k, .., 1/4, 1/2 in turn. So each is a bfloat16 again and every sum on the way exact.
float share_of(int i, int n) {
  if (n == 1) return 1;
  const int chain = (n - i % 2 + 1) / 2;
  return std::ldexp(1.f, -1 - std::min(chain - i / 2, chain - 1));
}

// Bytes of a value of joined columns.
int value_bytes(Number number) { return number == Number::int8 ? 1 : 2; }

// One step of `columns` columns a filter; blocks b..end-1, at most `columns` of them. What is left over the first one fills: in bfloat16
// by shares, as zero times infinity would be no number.
void join_step(const Blocks& blocks, uint32_t b, uint32_t end, int columns, Number number, void* to) {
  const int shares = columns - (int)(end - b) + 1;
  for (int f = 0; f < blocks.r; ++f)
    for (int i = 0; i < columns; ++i) {
      const float v = blocks.values[(size_t)(b + std::max(0, i - shares + 1)) * blocks.r + f];
      const float whole = i + 1 < shares ? 0 : v;
      if (number == Number::int8)
        static_cast<int8_t*>(to)[f * columns + i] = (int8_t)whole;
      else
        static_cast<uint16_t*>(to)[f * columns + i] = to_bf16(i < shares ? v * share_of(i, shares) : v);
    }
}

// Whether every block row has the columns of the first.
bool repeats(const Blocks& blocks) {
  const uint32_t count = blocks.rows[1];
  for (size_t row = 0; row + 1 < blocks.rows.size(); ++row)
    if (blocks.rows[row + 1] - blocks.rows[row] != count ||
        !std::equal(&blocks.columns[0], &blocks.columns[0] + count, &blocks.columns[0] + blocks.rows[row]))
      return false;
  return true;
}

// Steps of maps that the basis step makes of whole numbers: a factor of 16 bits, at most 1, for each. Finer than the source's steps they would
// be of no use.
void whole_steps(Quantization& q, Weights& out) {
  constexpr float kOne = 1 << 15;
  out.source_inverse = 1 / q.source_step;
  for (float& step : q.step) {
    out.factor.push_back((int16_t)(step > 0 ? std::clamp(std::nearbyint(kOne * (q.source_step / step)), 1.f, kOne - 1) : 0));
    if (step > 0) step = q.source_step * (kOne / out.factor.back());
  }
}

}  // namespace

void round_values(Blocks& blocks) {
  for (size_t i = 0; i < blocks.columns.size() * blocks.r; ++i) blocks.values[i] = round_bf16(blocks.values[i]);
}

void quantize(const Layer& l, bool whole, Quantization q, Blocks& blocks, Weights& out) {
  if (whole && q.source_step > 0) whole_steps(q, out);
  const int r = blocks.r;
  out.inverse.resize(q.step.size()), out.zero = q.zero;
  const auto inverse = [](float step) { return step > 0 ? 1 / step : 0.f; };
  std::transform(q.step.begin(), q.step.end(), out.inverse.begin(), inverse);
  out.added_inverse = inverse(q.added_step), out.added_zero = q.added_zero;
  out.scale = allocate_floats(round_up(l.O, r));
  for (int row = 0; row < out.block_rows(); ++row)
    for (int i = 0; i < r; ++i) {
      const auto each = [&](auto use) {
        for (uint32_t b = blocks.rows[row]; b < blocks.rows[row + 1]; ++b)
          use(blocks.values[(size_t)b * r + i], (int)(blocks.columns[b] % l.taps()));
      };
      float most = 0;
      double total = 0;
      each([&](float w, int tap) { most = std::max(most, std::fabs(w * q.step[tap])), total += std::fabs((double)w * q.step[tap]); });
      const float scale = int8_scale(most, total, blocks.rows[row + 1] - blocks.rows[row]);
      double of_zero = 0, all = 0;
      each(
          [&](float& w, int tap) { w = std::nearbyint(w * q.step[tap] / scale), of_zero += (double)w * q.zero[tap], all += std::fabs(w); });
      out.most_sum = std::max(out.most_sum, 255 * all * scale);
      out.scale[row * r + i] = scale;
      out.bias[row * r + i] -= (float)(of_zero * scale);
    }
}

void pack_steps(const Blocks& blocks, const std::vector<uint32_t>& number, const KernelRow& kernel, Slab& slab, Weights& out) {
  if (kernel.narrow) return pack_narrow_steps(blocks, number, slab, out);
  const int rows = out.block_rows(), chunks = (int)out.chunks.size(), r = blocks.r, columns = kernel.columns;
  out.bounds.assign((size_t)(chunks + 1) * rows, 0);
  out.same_columns = reads_tiles(kernel) && rows > 1 && !blocks.columns.empty() && repeats(blocks);
  const int64_t most = ((int64_t)blocks.columns.size() + (int64_t)rows * chunks * (columns - 1)) / columns;
  const int64_t words = columns == 1 ? r : (int64_t)r * columns * value_bytes(out.number) / 4;  // of a step
  const int64_t spare = out.same_columns ? most / rows + 1 : 0;                                          // of an odd block row
  const uint32_t map = (uint32_t)(reads_tiles(kernel) ? out.floats : kLanes);                            // as ConvArgs::columns
  out.values = columns > 1 ? slab.take<float>((most + spare) * words) : blocks.values;
  const int64_t behind = columns == 1 ? kMapsAhead : 0;  // that are read ahead of the last step
  out.columns = slab.take<uint32_t>(most * columns + behind);
  uint32_t count = 0;
  int64_t at = 0;
  const auto place = [&](int row, int64_t step) {  // where the values of a step lie, in steps
    if (!out.same_columns) return step;
    const int64_t each = row ? out.bounds[(size_t)chunks * rows] : 0;
    return row / 2 * 2 * each + (step - row * each) * 2 + row % 2;
  };
  for (int row = 0; row < rows; ++row) {
    uint32_t b = blocks.rows[row];
    for (int k = 0; k < chunks; ++k) {
      out.bounds[(size_t)k * rows + row] = count;
      const uint32_t beyond = (uint32_t)(out.chunks[k].first_map + out.chunks[k].maps);
      while (b < blocks.rows[row + 1] && number[blocks.columns[b]] < beyond) {
        uint32_t end = b + 1;
        while (end < blocks.rows[row + 1] && end - b < (uint32_t)columns && number[blocks.columns[end]] < beyond) ++end;
        const int spare = columns - (int)(end - b);
        for (int i = 0; i < columns && !(out.same_columns && row); ++i)
          out.columns[at++] = number[blocks.columns[b + std::max(0, i - spare)]] * map;
        if (columns > 1) join_step(blocks, b, end, columns, out.number, out.values.get() + place(row, count) * words);
        ++count, b = end;
      }
    }
    out.bounds[(size_t)chunks * rows + row] = count;
  }
  if (out.same_columns && rows % 2)
    for (int64_t step = 0, each = count / rows; step < each; ++step)
      std::fill_n(out.values.get() + (place(rows - 1, count - each + step) + 1) * words, words, 0.f);
  std::fill_n(out.columns.get() + at, behind, 0);
  slab.keep<uint32_t>(at + behind);
  out.bytes = ((int64_t)count * words + at + (int64_t)out.bounds.size()) * 4;
}

}  // namespace cosparse
