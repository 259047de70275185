// A fixed team of threads that walks through the phases of a step together.
//
// The caller is one of them. Between two steps the others sleep; within a step they wait for each
// other by spinning, because a phase takes microseconds, and give way to other threads of the
// machine when that lasts.
#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace tidegate {

constexpr int kSpins = 2000;

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

class Pool {
 public:
  explicit Pool(int threads) : threads_(threads) {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { serve(); });
  }

  ~Pool() {
    stopping_ = true;
    ++round_;
    round_.notify_all();
    for (auto& worker : workers_) worker.join();
  }

  // How many items a thread takes at once, in whole units: few enough to share the end of a phase
  // fairly.
  int grain(int items, int unit = 1) const {
    return std::max(unit, items / (threads_ * 8) / unit * unit);
  }

  // Run `work` on every thread at once, with `phases` calls of `phase` at most; return when all
  // are through.
  template <class Work>
  void run(int phases, Work&& work) {
    if (int(next_.size()) < phases) next_ = std::vector<std::atomic<int>>(phases);
    for (int i = 0; i < phases; ++i) next_[i].store(0, std::memory_order_relaxed);
    work_ = [&work] { work(); };
    arrived_ = 0;
    ++round_;
    round_.notify_all();
    work();
    barrier();
  }

  // Part `items` among the threads, `grain` at a time, whoever is free first; then wait for all.
  // `phase` counts the phases of this step, on each thread by itself.
  template <class Task>
  void phase(int& phase, int items, int grain, Task&& task) {
    auto& next = next_[phase++];
    for (;;) {
      int begin = next.fetch_add(grain, std::memory_order_relaxed);
      if (begin >= items) break;
      task(begin, begin + grain < items ? begin + grain : items);
    }
    barrier();
  }

 private:
  void barrier() {
    uint32_t turn = turn_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
      arrived_.store(0, std::memory_order_relaxed);
      turn_.store(turn + 1, std::memory_order_release);
      return;
    }
    for (int spins = 0; turn_.load(std::memory_order_acquire) == turn; ++spins) {
      relax();
      if (spins > kSpins) std::this_thread::yield();
    }
  }

  void serve() {
    for (uint32_t seen = 0;;) {
      for (int spins = 0; spins < kSpins && round_.load(std::memory_order_acquire) == seen; ++spins)
        relax();
      round_.wait(seen, std::memory_order_acquire);
      ++seen;
      if (stopping_) return;
      work_();
      barrier();
    }
  }

  const int threads_;
  std::vector<std::thread> workers_;
  std::function<void()> work_;
  std::vector<std::atomic<int>> next_;
  std::atomic<bool> stopping_{false};
  alignas(64) std::atomic<uint32_t> round_{0};
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> turn_{0};
};

}  // namespace tidegate
