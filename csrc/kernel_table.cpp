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

const KernelRow& window_kernel(Isa isa) {
  for (const KernelRow& row : kernel_table())
    if (row.isa == isa && row.window) return row;
  throw Error(Fault::usage, "window kernel", "a row of the kernel table", name_of(isa), "");
}

const SpanKernels& span_kernels(Isa isa) {
  for (const KernelRow& row : kernel_table())
    if (row.isa == isa && row.spans) return *row.spans;
  throw Error(Fault::usage, "span kernels", "a row of the kernel table", name_of(isa), "");
}

}  // namespace cosparse
