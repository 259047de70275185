// One ragged batch, and how its rows are parted among threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <vector>

namespace tidegate {

struct LowRank;

struct Batch {
  int32_t rows, sequences, blocks, wanted;
  const int32_t *tokens, *positions, *starts, *tables, *wanted_rows;
  // [sequences] of [layers, targets] (low_rank.h), null for a sequence without an adapter; itself
  // null when none has one.
  const LowRank* const* adapters;
};

// Memory that is kept between steps and only ever grows.
template <class Item>
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  ~Buffer() { std::free(items_); }

  Item* of(size_t count) {
    if (count > count_) {
      std::free(items_);
      count_ = 0;
      items_ = (Item*)std::aligned_alloc(64, (count * sizeof(Item) + 63) / 64 * 64);
      if (!items_) throw std::bad_alloc();
      count_ = count;
    }
    return items_;
  }

 private:
  Item* items_ = nullptr;
  size_t count_ = 0;
};

// Neighbouring rows of one sequence.
struct Tile {
  int sequence, row, rows;
};

// Every sequence's rows in tiles of at most `most`.
inline void cut(const Batch& batch, int most, std::vector<Tile>& tiles) {
  tiles.clear();
  for (int i = 0; i < batch.sequences; ++i)
    for (int row = batch.starts[i]; row < batch.starts[i + 1]; row += most)
      tiles.push_back({i, row, std::min(most, batch.starts[i + 1] - row)});
}

}  // namespace tidegate
