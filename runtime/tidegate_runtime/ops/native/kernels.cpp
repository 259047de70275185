// What Python sees: plain functions over plain memory, loaded with ctypes (see ops/native.py).

#include <algorithm>

#include "decoder.h"

using namespace tidegate;

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
}

Pool* tidegate_pool(int threads) { return new Pool(threads); }

void tidegate_pool_free(Pool* pool) { delete pool; }

Decoder* tidegate_decoder(Pool* pool, const Model* model) { return new Decoder(*pool, *model); }

void tidegate_decoder_free(Decoder* decoder) { delete decoder; }

// Returns 0, or 1 when there is no memory for the step.
int tidegate_step(Decoder* decoder, const Batch* batch, float* logits, int32_t* best,
                  uint8_t* finite) {
  try {
    decoder->step(*batch, logits, best, finite);
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
          round_row(inputs, row, x + size_t(row) * w->in, w->bits);
      });
      pool->phase(phase, w->panels(), pool->grain(w->panels()), [&](int first, int last) {
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
int tidegate_attention(Pool* pool, const Heads* heads, const Cache* cache, const Batch* batch,
                       const Rows* rows) {
  static thread_local std::vector<Tile> tiles;
  try {
    cut(*batch, tile_of_heads(heads->group()), tiles);
    pool->run(2, [&, &tiles = tiles] {
      int phase = 0;
      attend_rows(*pool, phase, *heads, *cache, *batch, tiles, *rows);
    });
    return 0;
  } catch (const std::bad_alloc&) {
    return 1;
  }
}

}  // extern "C"

#pragma GCC visibility pop
