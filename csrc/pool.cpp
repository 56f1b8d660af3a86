#include "pool.h"

#include <chrono>
#include <condition_variable>
#include <memory>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "cores.h"
#include "error.h"
#include "fork.h"

namespace cosparse {

namespace {
void pause() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

// Spins until `done()` or about `microseconds` have passed; true where it is done.
template <class Done> bool spin(Done done, int microseconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(microseconds);
  do {
    for (int i = 0; i < 32; ++i) {
      if (done()) return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return done();
}

constexpr int kWorkerSpin = 100;  // longer than the serial gap between two layers, shorter than anybody notices
constexpr int kCallerSpin = 50;   // a worker that needs longer has lost its core
}  // namespace

// The threads of one process, and what they share.
class Pool::Team {
 public:
  Team(int threads, const std::vector<int>& cores) : shares_(threads) {
    try {
      workers_.reserve(threads - 1);
      for (int slot = 1; slot < threads; ++slot)
        workers_.emplace_back([this, slot, own = cores.empty() ? cores : std::vector<int>{cores[slot % cores.size()]}] {
          if (!own.empty()) stay_on(own);
          work(slot);
        });
    } catch (const std::system_error& error) {
      const size_t started = workers_.size() + 1;
      stop();
      throw Error(Fault::usage, "threads", std::to_string(threads) + " threads that the system has to give",
                  std::to_string(started) + " (" + error.code().message() + ")", "use fewer, or raise the limit of processes");
    } catch (...) {
      stop();
      throw;
    }
  }
  ~Team() { stop(); }
  int threads() const { return (int)shares_.size(); }
  void run(int64_t units, Call call, const void* body);

  const uint64_t born = forks();
  std::mutex turn;

 private:
  void stop();
  void work(int slot);
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

Pool::Pool(int threads, const std::vector<int>& cores) : threads_(threads), cores_(cores), team_(new Team(threads, cores)) {}

// A team of another process is left alone: its threads are not here, and its condition variables would wait for them.
Pool::~Pool() {
  Team* const last = team_;
  if (last->born == forks()) delete last;
}

Pool::Team& Pool::team() {
  Team* now = team_;
  if (now->born == forks()) return *now;
  auto made = std::make_unique<Team>(threads_, cores_);
  if (team_.compare_exchange_strong(now, made.get())) return *made.release();
  return *now;  // another thread of this process was faster
}

std::mutex& Pool::turn() { return team().turn; }

void Pool::run(int64_t units, Call call, const void* body) {
  if (units < 2 || threads_ == 1) {
    for (int64_t unit = 0; unit < units; ++unit) call(body, unit, 0);
    return;
  }
  team().run(units, call, body);
}

void Pool::Team::stop() {
  {
    std::lock_guard<std::mutex> lock(sleep_);
    stop_ = true;
  }
  wake_.notify_all();
  for (auto& worker : workers_) worker.join();
}

void Pool::Team::claim(int slot) {
  const int count = threads();
  for (int i = 0; i < count; ++i) {
    Share& share = shares_[slot + i < count ? slot + i : slot + i - count];
    if (share.next.load(std::memory_order_relaxed) >= share.end) continue;
    for (int64_t unit; (unit = share.next.fetch_add(1, std::memory_order_relaxed)) < share.end;) call_(body_, unit, slot);
  }
}

void Pool::Team::run(int64_t units, Call call, const void* body) {
  std::unique_lock<std::mutex> owner(busy_, std::defer_lock);
  if (!owner.try_lock()) {
    for (int64_t unit = 0; unit < units; ++unit) call(body, unit, 0);
    return;
  }
  call_ = call, body_ = body;
  for (int i = 0; i < threads(); ++i) {
    shares_[i].next.store(units * i / threads(), std::memory_order_relaxed);
    shares_[i].end = units * (i + 1) / threads();
  }
  loop_.fetch_add(1);  // odd: open. Sequentially consistent, as are inside_ and sleeping_: each side sees the other's announcement.
  if (sleeping_ > 0) {
    std::lock_guard<std::mutex> lock(sleep_);
    wake_.notify_all();
  }
  claim(0);
  loop_.fetch_add(1);  // even: closed; a worker that comes now leaves at once
  if (!spin([&] { return inside_ == 0; }, kCallerSpin)) {
    std::unique_lock<std::mutex> lock(sleep_);
    caller_waits_ = true;
    left_.wait(lock, [&] { return inside_ == 0; });
    caller_waits_ = false;
  }
}

void Pool::Team::work(int slot) {
  uint64_t seen = 0;
  const auto open = [&] {
    const uint64_t loop = loop_;
    return loop % 2 == 1 && loop != seen;
  };
  for (;;) {
    if (!spin([&] { return stop_ || open(); }, kWorkerSpin)) {
      std::unique_lock<std::mutex> lock(sleep_);
      ++sleeping_;
      wake_.wait(lock, [&] { return stop_ || open(); });
      --sleeping_;
    }
    if (stop_) return;
    ++inside_;
    const uint64_t loop = loop_;
    if (loop % 2 == 1 && loop != seen) {
      seen = loop;
      claim(slot);
    }
    if (--inside_ == 0 && caller_waits_) {
      std::lock_guard<std::mutex> lock(sleep_);
      left_.notify_one();
    }
  }
}

}  // namespace cosparse
