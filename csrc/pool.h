// Threads that share out the units of one parallel loop.
//
// The caller works too. Each thread has a share of neighbouring units, the same in every loop, so that it finds in its own cache what it
// wrote in the layer before; whoever is done helps with the others' shares. Units are claimed one by one, so a worker that the operating
// system has taken off its core delays at most the unit it holds. Between loops a worker spins for some microseconds (the next layer comes
// soon) and then sleeps: an idle engine uses no processor time. When a second thread calls while a loop runs, it works through its own
// loop alone; nothing waits for anybody. Threads do not survive a fork: in the child the first loop starts them anew.
#pragma once
#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

namespace cosparse {

class Pool {
 public:
  // The caller and threads - 1 workers, which stay on one core each where `cores` names any: worker i on the i-th, counted round. Throws
  // Error(Fault::usage) where the system has no threads to give.
  explicit Pool(int threads, const std::vector<int>& cores = {});
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  int threads() const { return threads_; }

  // body(unit, slot) for every unit in 0..units-1, once each, in any order; slot < threads() names the thread for its scratch memory.
  // body must not throw. In the child of a fork it may throw as the constructor does, before any unit.
  template <class Body> void each(int64_t units, const Body& body) {
    run(units, [](const void* b, int64_t unit, int slot) { (*static_cast<const Body*>(b))(unit, slot); }, &body);
  }
  // For work that is to have all threads to itself; free in the child of a fork, whoever held it.
  std::mutex& turn();

 private:
  using Call = void (*)(const void* body, int64_t unit, int slot);
  class Team;
  void run(int64_t units, Call call, const void* body);
  Team& team();  // of this process

  const int threads_;
  const std::vector<int> cores_;
  std::atomic<Team*> team_;
};

}  // namespace cosparse
