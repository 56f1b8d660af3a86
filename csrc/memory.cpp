#include "memory.h"

#include <cstring>

namespace cosparse {

#if defined(__linux__)

std::shared_ptr<std::byte> map_pages(int64_t bytes, Pages kind) {
  const int64_t slack = kind == Pages::huge ? kHugePage : 0, length = bytes + slack;
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | (kind == Pages::filled ? MAP_POPULATE : MAP_NORESERVE);
  void* memory = mmap(nullptr, (size_t)length, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  auto* start = static_cast<std::byte*>(memory);
  if (kind == Pages::huge) {
    start += round_up((int64_t)reinterpret_cast<uintptr_t>(memory), kHugePage) - (int64_t)reinterpret_cast<uintptr_t>(memory);
    madvise(start, (size_t)bytes, MADV_HUGEPAGE);
  }
  return {start, [memory, length](std::byte*) { munmap(memory, (size_t)length); }};
}

#else

std::shared_ptr<std::byte> map_pages(int64_t bytes, Pages) {
  const int64_t whole = round_up(bytes ? bytes : 1, 64);
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(64, (size_t)whole));
  if (!memory) throw std::bad_alloc();
  std::memset(memory, 0, (size_t)whole);
  return {memory, [](std::byte* p) { std::free(p); }};
}

#endif

}  // namespace cosparse
