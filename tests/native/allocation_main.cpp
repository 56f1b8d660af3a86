// What happens where memory runs out: every allocation fails once, the n-th in the n-th try. Linked with --wrap=aligned_alloc,--wrap=mmap.
//   allocation FILE...   loading, planning, running and tuning each file; leaks are for the address sanitizer to find
#include <sys/mman.h>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <new>

#include "error.h"
#include "runs.h"

namespace {

std::atomic<int64_t> left{0};  // allocations until one fails; 0: none does
std::atomic<bool> failed{false};

bool fails() {
  if (left.load(std::memory_order_relaxed) <= 0 || left.fetch_sub(1) != 1) return false;
  failed = true;
  return true;
}

void* take(size_t bytes, size_t align) {
  if (fails()) throw std::bad_alloc();
  void* p = align > alignof(std::max_align_t) ? nullptr : std::malloc(bytes ? bytes : 1);
  if (align > alignof(std::max_align_t) && posix_memalign(&p, align, bytes ? bytes : 1) != 0) p = nullptr;
  if (!p) throw std::bad_alloc();
  return p;
}

}  // namespace

void* operator new(size_t bytes) { return take(bytes, 1); }
void* operator new[](size_t bytes) { return take(bytes, 1); }
void* operator new(size_t bytes, std::align_val_t align) { return take(bytes, (size_t)align); }
void* operator new[](size_t bytes, std::align_val_t align) { return take(bytes, (size_t)align); }
void* operator new(size_t bytes, const std::nothrow_t&) noexcept { return fails() ? nullptr : std::malloc(bytes ? bytes : 1); }
void* operator new[](size_t bytes, const std::nothrow_t&) noexcept { return fails() ? nullptr : std::malloc(bytes ? bytes : 1); }
void operator delete(void* p, const std::nothrow_t&) noexcept { std::free(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { std::free(p); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete[](void* p, size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, size_t, std::align_val_t) noexcept { std::free(p); }

extern "C" {
void* __real_aligned_alloc(size_t align, size_t bytes);
void* __wrap_aligned_alloc(size_t align, size_t bytes) { return fails() ? nullptr : __real_aligned_alloc(align, bytes); }
void* __real_mmap(void* at, size_t bytes, int protection, int flags, int file, off_t offset);
void* __wrap_mmap(void* at, size_t bytes, int protection, int flags, int file, off_t offset) {
  return fails() ? MAP_FAILED : __real_mmap(at, bytes, protection, flags, file, offset);
}
}

namespace {

using cosparse::Engine;

// Tries until no allocation is left to fail; `after` is called behind each failure. How many there were.
int64_t every_allocation(const std::function<void()>& action, const std::function<void()>& after) {
  for (int64_t n = 1;; ++n) {
    failed = false;
    left = n;
    try {
      action();
      left = 0;
      if (!failed) return n - 1;
    } catch (const std::bad_alloc&) {
      left = 0;
    } catch (const cosparse::Error&) {
      left = 0;
      if (!failed) throw;
    }
    after();
  }
}

}  // namespace

int main(int count, char** words) {
  int wrong = 0;
  for (int i = 1; i < count; ++i)
    for (const bool tune : {false, true}) {
      cosparse::Options options;
      options.threads = 2, options.isa = cosparse::choose_isa(""), options.tune = tune;
      const auto load = [&] {
        return std::make_unique<Engine>(std::make_unique<cosparse::StoredWeights>(cosparse::read_artifact(words[i])), options);
      };
      const auto engine = load();
      const auto one = runs::shapes_of(engine->graph(), 1), two = runs::shapes_of(engine->graph(), 2);
      const runs::Outputs inputs = runs::inputs_of(one), wanted = runs::run(*engine, one, inputs);
      const auto still_right = [&] { wrong += !runs::same_bits(runs::run(*engine, one, inputs), wanted); };
      const int64_t loading = tune ? 0 : every_allocation([&] { load(); }, [] {});
      const int64_t running = every_allocation([&] { runs::run(*engine, two, runs::inputs_of(two)); }, still_right);
      const int64_t tuning = tune ? every_allocation([&] { engine->tune(two); }, still_right) : 0;
      std::cout << words[i] << ": " << loading << " allocations failed while loading, " << running << " while running, " << tuning
                << " while tuning; " << wrong << " wrong answers after them\n";
    }
  return wrong != 0 || count < 2;
}
