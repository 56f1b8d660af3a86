// How a convolution's tiles are shared out among threads.
#pragma once
#include <cstdint>
#include <vector>

namespace cosparse {

// One call of a kernel: t groups of pixels from `group`, block rows begin..end-1 (begin = end: nothing to do). t = 0: the kernel for few
// pixels. behind: the last pixels, few in the group behind these, as well (KernelRow::behind).
struct Unit {
  int64_t group;
  int t, begin, end;
  bool behind = false;
};

// The last group: like the others; for the kernel for few pixels; or pixels that go with the group before it.
enum class Last { whole, few, behind };

// All groups x block rows as units, the same number for each thread, thread after thread, so that Pool::each gives everybody its own.
// `widths`: the tiles that there are kernels for, widest first, the last one 1. Every thread gets the same tiles; the groups that are left
// over, fewer than threads, are cut by block rows, and each share then makes its own maps. So is the last group where its pixels are few.
std::vector<Unit> share_out(int64_t groups, int rows, int threads, const std::vector<int>& widths, Last last);

// The same work cut by block rows: each thread has its own, and takes `at_once` of them over all groups before the next, so that weights
// larger than a cache are fetched once.
std::vector<Unit> share_rows(int64_t groups, int rows, int threads, const std::vector<int>& widths, Last last, int at_once);

}  // namespace cosparse
