// What a fork means for a library with threads: the child has one thread, the one that forked, and a copy of all memory as the others left it.
#pragma once
#include <cstdint>
#include <mutex>

namespace cosparse {

// How many forks lie between the process that loaded the library and this one.
uint64_t forks();

// A mutex that nobody holds in the child of a fork, because a fork waits until it is free. For work that ends soon and takes no other such
// mutex meanwhile.
class ForkMutex : public std::mutex {
 public:
  ForkMutex();
  ~ForkMutex();
  ForkMutex(const ForkMutex&) = delete;
  ForkMutex& operator=(const ForkMutex&) = delete;
};

}  // namespace cosparse
