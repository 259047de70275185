// Low-rank updates of linears: y += up * (down * x), for the rows that have an adapter (LoRA, Hu et
// al. 2021). Several adapters share a step; rows of the same one go together, so that its weights
// are read once for them. Sums are in an order of their own for each row, so that a row's result is
// the same bit for bit whatever rows it is computed with.
#pragma once

#include <algorithm>
#include <vector>

#include "linear.h"

namespace tidegate {

// The linears of a layer that an adapter may change, in the order of `Layer`.
enum Target { kQuery, kKey, kValue, kOutput, kGate, kUp, kDown, kTargets };
constexpr int kHead = 0;  // of what comes after the last layer: an adapter has kTargets updates of
                          // each layer, and then that of the head

// The update of one linear, in bf16: down [rank panels, in, 16] and up [out panels, rank, 16]. Both
// are null where an adapter leaves a linear as it is.
struct LowRank {
  const uint16_t *down, *up;
  int32_t rank;

  int panels() const { return (rank + kPanel - 1) / kPanel; }
};

constexpr int kUpdateRows = 4;
constexpr int kChains = 4;  // sums of one output that do not wait for each other

inline Floats sum_of_chains(const Floats* chains) {
  return (chains[0] + chains[1]) + (chains[2] + chains[3]);
}

// 16 components of down * x, for `ROWS` rows.
template <int ROWS>
inline void shrink(const LowRank& w, int panel, const float* const* x, int in, float* const* to) {
  Floats total[ROWS][kChains] = {};
  const uint16_t* down = w.down + size_t(panel) * in * kPanel;
  for (int i = 0; i < in; i += kChains)
    for (int k = 0; k < kChains; ++k, down += kPanel) {
      const Floats weights = from_bf16(down);
      for (int r = 0; r < ROWS; ++r)
        total[r][k] = multiply_add(weights, splat(x[r][i + k]), total[r][k]);
    }
  for (int r = 0; r < ROWS; ++r) store(to[r] + panel * kPanel, sum_of_chains(total[r]));
}

// 16 outputs of up * inner, for `ROWS` rows.
template <int ROWS>
inline void expand(const LowRank& w, int panel, const float* const* inner, Floats* sums) {
  const uint16_t* up = w.up + size_t(panel) * w.rank * kPanel;
  Floats total[ROWS][kChains] = {};
  auto take = [&](int k, int chain) {
    const Floats weights = from_bf16(up + k * kPanel);
    for (int r = 0; r < ROWS; ++r)
      total[r][chain] = multiply_add(weights, splat(inner[r][k]), total[r][chain]);
  };
  int k = 0;
  for (; k + kChains <= w.rank; k += kChains)
    for (int chain = 0; chain < kChains; ++chain) take(k + chain, chain);
  for (; k < w.rank; ++k) take(k, 0);
  for (int r = 0; r < ROWS; ++r) sums[r] = sum_of_chains(total[r]);
}

// Call `task` with the number of rows, 1..kUpdateRows, as a constant.
template <int ROWS = kUpdateRows, class Task>
inline void with_rows(int rows, Task&& task) {
  if constexpr (ROWS > 1)
    if (rows < ROWS) return with_rows<ROWS - 1>(rows, task);
  task.template operator()<ROWS>();
}

// The updates of one step. Linears that read the same inputs are shrunk together, each into a slot
// of its own: first `shrink`, then, when all threads are through, `add` or `at`.
class Updates {
 public:
  // Take the rows of a batch that have an adapter.
  void take(const Batch& batch, int layers) {
    groups_.clear();
    if (!batch.adapters) return;
    adapter_of_.assign(batch.rows, nullptr);
    order_.clear();
    for (int i = 0; i < batch.sequences; ++i)
      for (int row = batch.starts[i]; batch.adapters[i] && row < batch.starts[i + 1]; ++row) {
        adapter_of_[row] = batch.adapters[i];
        order_.push_back(row);
      }
    std::stable_sort(order_.begin(), order_.end(),
                     [&](int a, int b) { return adapter_of_[a] < adapter_of_[b]; });
    slot_size_ = 0;
    for (int row : order_) join(row, layers);
    inner_ = inner_buffer_.of(size_t(batch.rows) * kSlots * slot_size_);
  }

  bool any() const { return !groups_.empty(); }
  int groups() const { return int(groups_.size()); }

  // down * x of the rows of a group, for a target of a layer.
  void shrink_group(int index, int layer, int target, int slot, const float* x, int in) {
    const Group& group = groups_[index];
    const LowRank& w = group.adapter[layer * kTargets + target];
    if (!w.down) return;
    with_rows(group.count, [&]<int ROWS>() {
      const float* from[ROWS];
      float* to[ROWS];
      for (int r = 0; r < ROWS; ++r) {
        from[r] = x + size_t(group.rows[r]) * in;
        to[r] = inner(group.rows[r], slot);
      }
      for (int panel = 0; panel < w.panels(); ++panel) shrink<ROWS>(w, panel, from, in, to);
    });
  }

  // down * x of one row, for the first slot of a target of a layer.
  void shrink_row(int row, int layer, int target, const float* x, int in) {
    const LowRank* adapter = adapter_of_[row];
    if (!adapter || !adapter[layer * kTargets + target].down) return;
    const LowRank& w = adapter[layer * kTargets + target];
    float* to = inner(row, 0);
    for (int panel = 0; panel < w.panels(); ++panel) shrink<1>(w, panel, &x, in, &to);
  }

  // Add the updates of the panels `first`..`last` to outputs that lie `stride` apart.
  void add(int layer, int target, int slot, int first, int last, float* to, int stride) const {
    for (const Group& group : groups_) {
      const LowRank& w = group.adapter[layer * kTargets + target];
      if (!w.up) continue;
      with_rows(group.count, [&]<int ROWS>() {
        const float* from[ROWS];
        for (int r = 0; r < ROWS; ++r) from[r] = inner(group.rows[r], slot);
        for (int panel = first; panel < last; ++panel) {
          Floats sums[ROWS];
          expand<ROWS>(w, panel, from, sums);
          for (int r = 0; r < ROWS; ++r) {
            float* place = to + size_t(group.rows[r]) * stride + panel * kPanel;
            store(place, load<Floats>(place) + sums[r]);
          }
        }
      });
    }
  }

  // The update of one row and panel.
  Floats at(int row, int layer, int target, int slot, int panel) const {
    const LowRank* adapter = adapter_of_[row];
    if (!adapter || !adapter[layer * kTargets + target].up) return Floats{};
    const float* from = inner(row, slot);
    Floats sums;
    expand<1>(adapter[layer * kTargets + target], panel, &from, &sums);
    return sums;
  }

 private:
  static constexpr int kSlots = 3;

  // Rows of one adapter.
  struct Group {
    const LowRank* adapter;
    int rows[kUpdateRows], count;
  };

  void join(int row, int layers) {
    const LowRank* adapter = adapter_of_[row];
    const bool first = groups_.empty() || groups_.back().adapter != adapter;
    for (int i = 0; first && i < kTargets * layers + 1; ++i)
      slot_size_ = std::max(slot_size_, adapter[i].panels() * kPanel);
    if (first || groups_.back().count == kUpdateRows) groups_.push_back({adapter, {}, 0});
    Group& group = groups_.back();
    group.rows[group.count++] = row;
  }

  float* inner(int row, int slot) const {
    return inner_ + (size_t(row) * kSlots + slot) * slot_size_;
  }

  std::vector<Group> groups_;
  std::vector<const LowRank*> adapter_of_;  // [rows]
  std::vector<int> order_;
  float* inner_ = nullptr;  // [rows, slots, slot size]
  int slot_size_ = 0;
  Buffer<float> inner_buffer_;
};

}  // namespace tidegate
