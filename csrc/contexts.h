// Working memory, and the pool from which an engine's calls take it.
#pragma once
#include <condition_variable>
#include <memory>
#include <vector>

#include "fork.h"
#include "memory.h"

namespace cosparse {

// What one call at a time works in.
struct Context {
  Floats arena, scratch;
  int64_t arena_floats = 0, scratch_floats = 0;
};

// At most `most` contexts at work; who comes later waits until one is given back. In the child of a fork those at work are gone with their
// threads, and others take their place.
class Contexts {
 public:
  explicit Contexts(int most);
  ~Contexts();

  class Lease {
   public:
    explicit Lease(Contexts& pool) : pool_(pool), context_(pool.take()) {}
    ~Lease() { pool_.give_back(std::move(context_)); }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    Context& operator*() { return *context_; }

   private:
    Contexts& pool_;
    std::unique_ptr<Context> context_;
  };

 private:
  std::unique_ptr<Context> take();
  void give_back(std::unique_ptr<Context> context) noexcept;

  const int most_;
  ForkMutex lock_;  // guards all below
  uint64_t born_ = forks();
  std::vector<std::unique_ptr<Context>> free_;
  int made_ = 0;
  std::unique_ptr<std::condition_variable> given_back_ = std::make_unique<std::condition_variable>();
};

}  // namespace cosparse
