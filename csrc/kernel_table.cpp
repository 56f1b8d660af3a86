#include "kernels/table.h"

#include <algorithm>

#include "error.h"

namespace cosparse {

const std::vector<KernelRow>& kernel_table() {
  static const std::vector<KernelRow> table = [] {
    std::vector<KernelRow> rows;
    const auto append = [&](const KernelRows& more) { rows.insert(rows.end(), more.rows, more.rows + more.count); };
#if defined(__x86_64__)
    append(amx::kernels);
    append(avx512_bf16::kernels);
    append(avx512_vnni::kernels);
    append(avx512::kernels);
    append(avx2::kernels);
#endif
    append(scalar::kernels);
    return rows;
  }();
  return table;
}

MapsKernel maps_kernel(Isa isa, Number number) {
  for (const KernelRow& row : kernel_table())
    if (row.isa <= isa && row.maps && row.number == number) return row.maps;
  throw Error(Fault::usage, "maps kernel", "a row of the kernel table", name_of(isa), "");
}

const char* name_of(Number number) {
  switch (number) {
    case Number::bf16:
      return "bfloat16";
    case Number::int8:
      return "int8";
    default:
      return "float32";
  }
}

std::vector<const KernelRow*> conv_kernels(Isa isa, Number number, int r) {
  std::vector<const KernelRow*> found;
  for (const KernelRow& row : kernel_table())
    if (row.conv && row.isa <= isa && row.number == number && row.r == r && (found.empty() || row.isa == found[0]->isa))
      found.push_back(&row);
  if (found.empty())
    throw Error(Fault::usage, std::string("conv kernel for ") + name_of(isa), "blocks of 1, 2, 4 or 8 filters", std::to_string(r), "");
  std::stable_sort(found.begin(), found.end(), [](const KernelRow* a, const KernelRow* b) { return a->t > b->t; });
  return found;
}

namespace {

// The row of `isa` that has the kernel `member`; every instruction set has one of each kind.
template <class Kernel> const KernelRow& row_with(Kernel KernelRow::*member, Isa isa, const char* about) {
  for (const KernelRow& row : kernel_table())
    if (row.isa <= isa && row.*member) return row;
  throw Error(Fault::usage, about, "a row of the kernel table", name_of(isa), "");
}

}  // namespace

const KernelRow& depthwise_kernel(Isa isa) { return row_with(&KernelRow::depthwise, isa, "depthwise kernel"); }
const KernelRow& pool_kernel(Isa isa) { return row_with(&KernelRow::pool, isa, "pool kernel"); }
const KernelRow* pool_steps_kernel(Isa isa, int floats) {
  for (const KernelRow& row : kernel_table())
    if (row.isa <= isa && row.pool_steps && row.floats == floats) return &row;
  return nullptr;
}
const KernelRow& upsample_kernel(Isa isa) { return row_with(&KernelRow::upsample, isa, "upsample kernel"); }
const KernelRow& winograd_kernel(Isa isa) { return row_with(&KernelRow::winograd, isa, "winograd kernel"); }
const SpanKernels& span_kernels(Isa isa) { return *row_with(&KernelRow::spans, isa, "span kernels").spans; }

}  // namespace cosparse
