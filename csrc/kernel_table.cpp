#include "kernels/table.h"

#include <algorithm>

#include "error.h"

namespace cosparse {

const std::vector<KernelRow>& kernel_table() {
  static const std::vector<KernelRow> table = [] {
    std::vector<KernelRow> rows;
    const auto append = [&](std::vector<KernelRow> more) { rows.insert(rows.end(), more.begin(), more.end()); };
#if defined(__x86_64__)
    append(avx512_bf16::kernels());
    append(avx512_vnni::kernels());
    append(avx512::kernels());
    append(avx2::kernels());
#endif
    append(scalar::kernels());
    return rows;
  }();
  return table;
}

std::vector<const KernelRow*> conv_kernels(Isa isa, Number number, int r) {
  std::vector<const KernelRow*> found;
  for (const KernelRow& row : kernel_table())
    if (row.conv && row.isa <= isa && row.number == number && row.r == r && (found.empty() || row.isa == found[0]->isa)) found.push_back(&row);
  if (found.empty())
    throw Error(Fault::usage, std::string("conv kernel for ") + name_of(isa), "blocks of 1, 2, 4 or 8 filters", std::to_string(r), "");
  std::stable_sort(found.begin(), found.end(), [](const KernelRow* a, const KernelRow* b) { return a->t > b->t; });
  return found;
}

const KernelRow& window_kernel(Isa isa) {
  for (const KernelRow& row : kernel_table())
    if (row.isa <= isa && row.window) return row;
  throw Error(Fault::usage, "window kernel", "an instruction set with one", name_of(isa), "");
}

const SpanKernels& span_kernels(Isa isa) {
  for (const KernelRow& row : kernel_table())
    if (row.isa <= isa && row.spans) return *row.spans;
  throw Error(Fault::usage, "span kernels", "an instruction set with some", name_of(isa), "");
}

}  // namespace cosparse
