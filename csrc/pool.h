// Threads that share out the units of one parallel loop.
//
// The caller works too. Each thread has a share of neighbouring units, the same in every loop, so that it finds in its own cache what it
// wrote in the layer before; whoever is done helps with the others' shares. Units are claimed one by one, so a worker that the operating
// system has taken off its core delays at most the unit it holds. Between loops a worker spins for some microseconds (the next layer comes
// soon) and then sleeps: an idle engine uses no processor time. When a second thread calls while a loop runs, it works through its own
// loop alone; nothing waits for anybody.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace cosparse {

class Pool {
 public:
  // The caller and threads - 1 workers, which stay on one core each where `cores` names any: worker i on the i-th, counted round.
  explicit Pool(int threads, const std::vector<int>& cores = {});
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  int threads() const { return (int)shares_.size(); }

  // body(unit, slot) for every unit in 0..units-1, once each, in any order; slot < threads() names the thread for its scratch memory.
  // body must not throw.
  template <class Body> void each(int64_t units, const Body& body) {
    run(units, [](const void* b, int64_t unit, int slot) { (*static_cast<const Body*>(b))(unit, slot); }, &body);
  }

 private:
  using Call = void (*)(const void* body, int64_t unit, int slot);
  void run(int64_t units, Call call, const void* body);
  void work(int slot);
  void stop();
  void claim(int slot);

  std::vector<std::thread> workers_;
  std::mutex busy_;  // held by the caller whose loop runs
  Call call_ = nullptr;
  const void* body_ = nullptr;
  struct alignas(64) Share {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };
  std::vector<Share> shares_;
  alignas(64) std::atomic<uint64_t> loop_{0};  // counts loops; odd while one is open to workers
  alignas(64) std::atomic<int> inside_{0};     // workers that may be reading the fields above
  std::mutex sleep_;
  std::condition_variable wake_, left_;
  std::atomic<int> sleeping_{0};
  std::atomic<bool> caller_waits_{false}, stop_{false};
};

}  // namespace cosparse
