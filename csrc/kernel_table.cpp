#include "error.h"
#include "kernels/table.h"

namespace cosparse {

const std::vector<KernelRow>& kernel_table() {
  static const std::vector<KernelRow> table = [] {
    std::vector<KernelRow> rows;
    const auto add = [&](std::vector<KernelRow> more) { rows.insert(rows.end(), more.begin(), more.end()); };
#if defined(__x86_64__)
    add(avx512::kernels());
    add(avx2::kernels());
#endif
    add(scalar::kernels());
    return rows;
  }();
  return table;
}

const KernelRow& conv_kernel(Isa isa, int r, int t) {
  const KernelRow* best = nullptr;
  for (const KernelRow& row : kernel_table()) {
    if (row.isa != isa || !row.conv || row.r != r) continue;
    if (t == 0 ? row.t == 0 : row.t > 0 && row.t <= t && (!best || row.t > best->t)) best = &row;
  }
  if (!best)
    throw Error(Fault::usage, "conv kernel", "a row of the kernel table",
                std::to_string(r) + "x" + std::to_string(t) + " on " + name_of(isa), "see cosparse.kernels.available()");
  return *best;
}

namespace {

// The row of `isa` that has the kernel `member`; every instruction set has one of each kind.
template <class Kernel> const KernelRow& row_with(Kernel KernelRow::*member, Isa isa, const char* about) {
  for (const KernelRow& row : kernel_table())
    if (row.isa == isa && row.*member) return row;
  throw Error(Fault::usage, about, "a row of the kernel table", name_of(isa), "");
}

}  // namespace

const KernelRow& window_kernel(Isa isa) { return row_with(&KernelRow::window, isa, "window kernel"); }
const KernelRow& pool_kernel(Isa isa) { return row_with(&KernelRow::pool, isa, "pool kernel"); }
const KernelRow& upsample_kernel(Isa isa) { return row_with(&KernelRow::upsample, isa, "upsample kernel"); }
const SpanKernels& span_kernels(Isa isa) { return *row_with(&KernelRow::spans, isa, "span kernels").spans; }

}  // namespace cosparse
