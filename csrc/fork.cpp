#include "fork.h"

#include <pthread.h>

#include <atomic>
#include <new>
#include <set>

namespace cosparse {

namespace {

struct Registry {
  std::mutex lock;
  std::set<std::mutex*> all;
  std::atomic<uint64_t> forks{0};
};

// Never destroyed: a process may fork while it ends.
Registry& registry();

void unlock_all() {
  for (std::mutex* mutex : registry().all) mutex->unlock();
  registry().lock.unlock();
}

Registry& registry() {
  static Registry* const one = [] {
    auto* made = new Registry;
    const auto before = [] {
      registry().lock.lock();
      for (std::mutex* mutex : registry().all) mutex->lock();
    };
    const auto in_child = [] { ++registry().forks, unlock_all(); };
    if (pthread_atfork(before, unlock_all, in_child) != 0) {
      delete made;
      throw std::bad_alloc();  // its only error
    }
    return made;
  }();
  return *one;
}

}  // namespace

uint64_t forks() { return registry().forks; }

ForkMutex::ForkMutex() {
  std::lock_guard<std::mutex> guard(registry().lock);
  registry().all.insert(this);
}

ForkMutex::~ForkMutex() {
  std::lock_guard<std::mutex> guard(registry().lock);
  registry().all.erase(this);
}

}  // namespace cosparse
