// What Python sees: plain functions over plain memory, loaded with ctypes (see ops/native.py).

#include <algorithm>

#include "decoder.h"
#include "softmax.h"

using namespace tidegate;

// Where a step's queries, keys, values and results lie: row r of each at r * its stride.
struct Rows {
  const float *query, *key, *value;
  float* out;
  int query_stride, key_stride, value_stride, out_stride;
};

#pragma GCC visibility push(default)

extern "C" {

// Sizes of the structures, so that the other side can check that it describes the same.
void tidegate_sizes(int* sizes) {
  sizes[0] = sizeof(Linear);
  sizes[1] = sizeof(Layer);
  sizes[2] = sizeof(Model);
  sizes[3] = sizeof(Batch);
  sizes[4] = sizeof(Heads);
  sizes[5] = sizeof(Rows);
  sizes[6] = sizeof(Softmax);
  sizes[7] = sizeof(LowRank);
  sizes[8] = sizeof(Wanted);
}

Pool* tidegate_pool(int threads) { return new Pool(threads); }

void tidegate_pool_free(Pool* pool) { delete pool; }

Decoder* tidegate_decoder(Pool* pool, const Model* model) { return new Decoder(*pool, *model); }

void tidegate_decoder_free(Decoder* decoder) { delete decoder; }

// Returns 0, or 1 when there is no memory for the step.
int tidegate_step(Decoder* decoder, const Batch* batch, const Wanted* wanted) {
  try {
    decoder->step(*batch, *wanted);
    return 0;
  } catch (const std::bad_alloc&) {
    return 1;
  }
}

// y [rows, out] = x [rows, in] * w + bias
int tidegate_linear(Pool* pool, const Linear* w, const float* x, int rows, float* y) {
  static thread_local InputBuffers buffers;
  try {
    Inputs inputs = buffers.of(rows, w->in);
    pool->run(2, [&] {
      int phase = 0;
      pool->phase(phase, rows, pool->grain(rows), [&](int begin, int end) {
        for (int row = begin; row < end; ++row) 
          inputs.set_row(row, x + size_t(row) * w->in, w->bits);
      });
      const int grain = pool->grain(w->panels(), panels_for(rows));
      pool->phase(phase, w->panels(), grain, [&](int first, int last) {
        multiply(*w, first, last, inputs, rows, [&](int row, int column, Floats sums) {
          std::memcpy(y + size_t(row) * w->out + column, &sums,
                      std::min(w->out - column, kLanes) * sizeof(float));
        });
      });
    });
    return 0;
  } catch (const std::bad_alloc&) {
    return 1;
  }
}

// Attention of one layer: keys and values into the cache, results to rows->out.
int tidegate_attention(Pool* pool, const Heads* h, const Cache* cache, const Batch* batch,
                       const Rows* rows) {
  static thread_local std::vector<Tile> cut_tiles;
  try {
    cut(*batch, tile_of_heads(h->group()), cut_tiles);
    const std::vector<Tile>& tiles = cut_tiles;
    const int count = int(tiles.size()) * h->kv_heads;
    pool->run(2, [&] {
      int phase = 0;
      pool->phase(phase, count, pool->grain(count), [&](int begin, int end) {
        for (int i = begin; i < end; ++i) {
          const Tile& tile = tiles[i / h->kv_heads];
          const int head = i % h->kv_heads;
          for (int row = tile.row; row < tile.row + tile.rows; ++row) {
            const Slot slot = slot_of(*h, *batch, tile.sequence, row, head);
            const size_t at = size_t(head) * h->head_dim;
            write_key(*h, *cache, slot, rows->key + size_t(row) * rows->key_stride + at);
            write_value(*h, *cache, slot, rows->value + size_t(row) * rows->value_stride + at);
          }
        }
      });
      pool->phase(phase, count, 1, [&](int begin, int end) {
        for (int i = begin; i < end; ++i)
          attend_tile(*h, *cache, *batch, tiles[i / h->kv_heads], i % h->kv_heads, rows->query,
                      rows->query_stride, [&](int row, int head, const float* out) {
                        std::memcpy(rows->out + size_t(row) * rows->out_stride + head * h->head_dim,
                                    out, h->head_dim * sizeof(float));
                      });
      });
    });
    return 0;
  } catch (const std::bad_alloc&) {
    return 1;
  }
}

// The sums and the highest share of every chunk of the rows.
void tidegate_shares(Pool* pool, const Softmax* softmax) {
  pool->run(1, [&] {
    int phase = 0;
    pool->phase(phase, softmax->count, 1, [&](int first, int last) {
      for (int i = first; i < last; ++i) softmax->sum_row(i);
    });
  });
}

// The shares of `count` chunks: to [count, 64].
void tidegate_shares_inside(const Softmax* softmax, const int32_t* rows, const int32_t* chunks,
                            int count, float* to) {
  for (int i = 0; i < count; ++i)
    for (int lane = 0; lane < kChunk; lane += kLanes, to += kLanes)
      store(to, softmax->shares(rows[i], chunks[i] * kChunk + lane));
}

}  // extern "C"

#pragma GCC visibility pop
