#include "cores.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <thread>

#include "error.h"
#include "message.h"

#if defined(__linux__)
#include <sched.h>
#endif

namespace cosparse {

namespace {

#if defined(__linux__)
struct FreeSet {
  void operator()(cpu_set_t* set) const { CPU_FREE(set); }
};
using Set = std::unique_ptr<cpu_set_t, FreeSet>;

Set set_for(int cores) {
  Set set(CPU_ALLOC(cores));
  if (!set) throw std::bad_alloc();
  return set;
}

// The kernel may know more cores than cpu_set_t holds: the set grows until it takes the mask.
std::vector<int> affinity() {
  for (int room = CPU_SETSIZE; room <= 1 << 20; room *= 2) {
    const Set set = set_for(room);
    const size_t bytes = CPU_ALLOC_SIZE(room);
    std::vector<int> cores;
    const bool known = sched_getaffinity(0, bytes, set.get()) == 0;
    for (int core = 0; known && core < room; ++core)
      if (CPU_ISSET_S(core, bytes, set.get())) cores.push_back(core);
    if (!cores.empty()) return cores;
  }
  return {};
}
#endif

}  // namespace

std::vector<int> available_cores() {
#if defined(__linux__)
  if (std::vector<int> cores = affinity(); !cores.empty()) return cores;
#endif
  std::vector<int> all(std::max(1u, std::thread::hardware_concurrency()));
  for (size_t i = 0; i < all.size(); ++i) all[i] = (int)i;
  return all;
}

int default_threads() {
  const char* variable = std::getenv("COSPARSE_THREADS");
  if (!variable || !*variable) return (int)available_cores().size();
  const std::string text = variable;
  const bool digits = text.size() <= 9 && text.find_first_not_of("0123456789") == std::string::npos;
  if (!digits || std::atoi(variable) < 1) throw Error(Fault::usage, "COSPARSE_THREADS", "a whole number from 1", quoted(text), "");
  return std::atoi(variable);
}

void check_cores(const std::vector<int>& cores) {
  const std::vector<int> all = available_cores();
  std::vector<int> seen;
  for (const int core : cores) {
    if (!std::binary_search(all.begin(), all.end(), core))
      throw Error(Fault::usage, "cores", "cores that this process may use, " + std::to_string(all.front()) + " to " + std::to_string(all.back()),
                  std::to_string(core), "taskset -p PID prints which they are");
    if (std::find(seen.begin(), seen.end(), core) != seen.end())
      throw Error(Fault::usage, "cores", "each core once", std::to_string(core) + " twice", "");
    seen.push_back(core);
  }
}

bool stay_on(const std::vector<int>& cores) noexcept {
#if defined(__linux__)
  const int room = *std::max_element(cores.begin(), cores.end()) + 1;
  const Set set(CPU_ALLOC(room));
  if (!set) return false;
  const size_t bytes = CPU_ALLOC_SIZE(room);
  CPU_ZERO_S(bytes, set.get());
  for (const int core : cores) CPU_SET_S(core, bytes, set.get());
  return sched_setaffinity(0, bytes, set.get()) == 0;
#else
  (void)cores;
  return false;
#endif
}

KeptOn::KeptOn(const std::vector<int>& cores) {
  if (cores.empty()) return;
  before_ = available_cores();
  stay_on(cores);
}

KeptOn::~KeptOn() {
  if (!before_.empty()) stay_on(before_);
}

}  // namespace cosparse
