// Attention over a paged key/value cache.
//
// A block holds 16 tokens. Keys lie as [block, kv head, head dim, 16], so that one vector holds one
// component of 16 keys; values as [block, kv head, 16, head dim]. The query heads that share a kv
// head, and the neighbouring rows of one sequence, read each key and value together. Every query
// sums in the order of the tokens, so neither its company nor the cut into chunks changes a bit.
#pragma once

#include <limits>

#include "batch.h"
#include "pool.h"
#include "vector.h"

namespace tidegate {

constexpr int kBlock = 16;
#ifdef __AVX512F__
constexpr int kQueries = 12;
#else
constexpr int kQueries = 4;
#endif

enum class KvType : int32_t { fp32 = 0, bf16 = 1, int8 = 2, fp8 = 3 };

struct Fp32 {
  using Item = float;
  static constexpr float largest = 0;  // no scale
  static Floats read(const Item* from) { return load<Floats>(from); }
  static Item make(float value) { return value; }
};

struct Bf16 {
  using Item = uint16_t;
  static constexpr float largest = 0;
  static Floats read(const Item* from) { return from_bf16(from); }
  static Item make(float value) { return to_bf16(value); }
};

struct Int8 {
  using Item = int8_t;
  static constexpr float largest = 127;
  static Floats read(const Item* from) { return from_int8(from); }
  static Item make(float value) { return Item(std::nearbyint(value)); }
};

struct Fp8 {
  using Item = uint8_t;
  static constexpr float largest = 448;
  static Floats read(const Item* from) { return from_e4m3(from); }
  static Item make(float value) { return to_e4m3(value); }
};

// The pool of one layer. `scales` [blocks, kv heads, 2, 16] of the 8-bit types: keys, then values.
struct Cache {
  void* keys;
  void* values;
  float* scales;
};

struct Heads {
  int32_t heads, kv_heads, head_dim, window;  // window 0: all tokens before
  float scale;
  KvType kv;

  int group() const { return heads / kv_heads; }
};

template <class Element>
inline float scale_for(const float* values, int count) {
  if (Element::largest == 0) return 1.0f;
  float most = 0;
  for (int i = 0; i < count; ++i) most = std::fabs(values[i]) > most ? std::fabs(values[i]) : most;
  return most > 0 ? most / Element::largest : 1.0f;
}

// Put the key and value [kv heads, head dim] of one token into its slot.
template <class Element>
inline void write_token(const Heads& h, const Cache& cache, int block, int slot, const float* key,
                        const float* value) {
  using Item = typename Element::Item;
  for (int head = 0; head < h.kv_heads; ++head) {
    size_t place = size_t(block) * h.kv_heads + head;
    const float *k = key + head * h.head_dim, *v = value + head * h.head_dim;
    Item* keys = (Item*)cache.keys + place * h.head_dim * kBlock + slot;
    Item* values = (Item*)cache.values + (place * kBlock + slot) * h.head_dim;
    float of_key = scale_for<Element>(k, h.head_dim), of_value = scale_for<Element>(v, h.head_dim);
    for (int d = 0; d < h.head_dim; ++d) {
      keys[d * kBlock] = Element::make(k[d] / of_key);
      values[d] = Element::make(v[d] / of_value);
    }
    if (Element::largest != 0) {
      cache.scales[place * 2 * kBlock + slot] = of_key;
      cache.scales[(place * 2 + 1) * kBlock + slot] = of_value;
    }
  }
}

struct Query {
  const float* values;  // [head dim]
  float* out;           // [head dim]
  int position;
};

// One kv head of one sequence.
struct Context {
  const Heads& heads;
  const Cache& cache;
  const int32_t* table;
  int head;
  float* scores;  // [kQueries, width]
  int width;

  size_t place(int block) const { return size_t(table[block]) * heads.kv_heads + head; }
};

template <class Element, int QUERIES, int BLOCKS>
inline void score(const Context& c, const Query* queries, int block) {
  using Item = typename Element::Item;
  const int dim = c.heads.head_dim;
  const Item* keys[BLOCKS];
  for (int b = 0; b < BLOCKS; ++b)
    keys[b] = (const Item*)c.cache.keys + c.place(block + b) * dim * kBlock;
  Floats scores[QUERIES][BLOCKS] = {};
  for (int d = 0; d < dim; ++d) {
    Floats key[BLOCKS];
    for (int b = 0; b < BLOCKS; ++b) key[b] = Element::read(keys[b] + d * kBlock);
#pragma GCC unroll 12
    for (int q = 0; q < QUERIES; ++q)
      for (int b = 0; b < BLOCKS; ++b)
        scores[q][b] = multiply_add(key[b], splat(queries[q].values[d]), scores[q][b]);
  }
  const Ints lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  for (int b = 0; b < BLOCKS; ++b) {
    Floats scale = splat(c.heads.scale);
    if (Element::largest != 0)
      scale = scale * load<Floats>(c.cache.scales + c.place(block + b) * 2 * kBlock);
    Ints at = lanes + (block + b) * kBlock;
    for (int q = 0; q < QUERIES; ++q) {
      int first = c.heads.window ? queries[q].position - c.heads.window + 1 : 0;
      Floats value = scores[q][b] * scale;
      value = (at <= queries[q].position) & (at >= first)
                  ? value
                  : splat(-std::numeric_limits<float>::infinity());
      store(c.scores + size_t(q) * c.width + (block + b) * kBlock, value);
    }
  }
}

// Scores of the blocks first..last become weights; returns their sum. The weights of 8-bit values
// come multiplied by the values' scales.
template <class Element>
inline float soften(const Context& c, const Query& query, float* scores, int first) {
  const int last = query.position / kBlock;
  Floats most = load<Floats>(scores + first * kBlock);
  for (int b = first + 1; b <= last; ++b) most = larger(load<Floats>(scores + b * kBlock), most);
  Floats shift = splat(maximum(most)), total = {};
  for (int b = first; b <= last; ++b) {
    Floats weight = exponential(load<Floats>(scores + b * kBlock) - shift);
    total = total + weight;
    if (Element::largest != 0)
      weight = weight * load<Floats>(c.cache.scales + (c.place(b) * 2 + 1) * kBlock);
    store(scores + b * kBlock, weight);
  }
  return sum(total);
}

// out[q] = the weighted sum of `VECTORS` * 16 components of the values, from component `d` on.
template <class Element, int QUERIES, int VECTORS>
inline void gather(const Context& c, const Query* queries, const float* totals, int first, int d) {
  using Item = typename Element::Item;
  const int dim = c.heads.head_dim, last = queries[QUERIES - 1].position;
  Floats sums[QUERIES][VECTORS] = {};
  for (int start = first * kBlock; start <= last; start += kBlock) {
    const Item* from = (const Item*)c.cache.values + c.place(start / kBlock) * kBlock * dim + d;
    const int end = std::min(start + kBlock, last + 1);
    for (int at = start; at < end; ++at, from += dim) {
      Floats value[VECTORS];
      for (int v = 0; v < VECTORS; ++v) value[v] = Element::read(from + v * kLanes);
#pragma GCC unroll 12
      for (int q = 0; q < QUERIES; ++q) {
        Floats weight = splat(c.scores[size_t(q) * c.width + at]);
        for (int v = 0; v < VECTORS; ++v)
          sums[q][v] = multiply_add(value[v], weight, sums[q][v]);
      }
    }
  }
  for (int q = 0; q < QUERIES; ++q)
    for (int v = 0; v < VECTORS; ++v)
      store(queries[q].out + d + v * kLanes, sums[q][v] / totals[q]);
}

// Queries of one sequence and kv head, in the order of their positions.
template <class Element, int QUERIES>
inline void attend_tile(const Context& c, const Query* queries) {
  constexpr int BLOCKS = QUERIES > 4 ? 2 : 4;
  const int last = queries[QUERIES - 1].position / kBlock;
  const int oldest = queries[0].position - c.heads.window + 1;
  const int first = c.heads.window && oldest > 0 ? oldest / kBlock : 0;
  int block = first;
  for (; block + BLOCKS <= last + 1; block += BLOCKS)
    score<Element, QUERIES, BLOCKS>(c, queries, block);
  for (; block <= last; ++block) score<Element, QUERIES, 1>(c, queries, block);
  float totals[QUERIES];
  for (int q = 0; q < QUERIES; ++q) {
    float* scores = c.scores + size_t(q) * c.width;
    totals[q] = soften<Element>(c, queries[q], scores, first);
    for (int b = queries[q].position / kBlock + 1; b <= last; ++b)
      store(scores + b * kBlock, Floats{});
  }
  constexpr int VECTORS = QUERIES > 6 ? 2 : 4;
  int d = 0;
  for (; d + VECTORS * kLanes <= c.heads.head_dim; d += VECTORS * kLanes)
    gather<Element, QUERIES, VECTORS>(c, queries, totals, first, d);
  for (; d < c.heads.head_dim; d += kLanes)
    gather<Element, QUERIES, 1>(c, queries, totals, first, d);
}

template <class Element>
inline void attend(const Context& c, const Query* queries, int count) {
  while (count > 0) {
    int taken = count >= 12 ? 12 : count >= 8 ? 8 : count >= 6 ? 6 : count >= 4 ? 4 : count;
    taken = std::min(taken, kQueries);
    switch (taken) {
#ifdef __AVX512F__
      case 12: attend_tile<Element, 12>(c, queries); break;
      case 8: attend_tile<Element, 8>(c, queries); break;
      case 6: attend_tile<Element, 6>(c, queries); break;
#endif
      case 4: attend_tile<Element, 4>(c, queries); break;
      case 3: attend_tile<Element, 3>(c, queries); break;
      case 2: attend_tile<Element, 2>(c, queries); break;
      default: attend_tile<Element, 1>(c, queries); break;
    }
    queries += taken;
    count -= taken;
  }
}

// Where a step's queries, keys, values and results lie: row r of each at r * its stride.
struct Rows {
  const float *query, *key, *value;
  float* out;
  int query_stride, key_stride, value_stride, out_stride;
};

// How many rows of a sequence one tile takes, so that its queries fill the registers.
inline int tile_of_heads(int group) { return kQueries > group ? kQueries / group : 1; }

template <class Element>
inline void attend_tile_of(const Heads& h, const Cache& cache, const Batch& batch, const Tile& tile,
                           int head, const Rows& rows) {
  static thread_local std::vector<Query> queries;
  static thread_local Buffer<float> scores;
  const int group = h.group(), width = batch.blocks * kBlock;
  queries.clear();
  for (int row = tile.row; row < tile.row + tile.rows; ++row)
    for (int g = 0; g < group; ++g) {
      const size_t at = size_t(head * group + g) * h.head_dim;
      queries.push_back({rows.query + size_t(row) * rows.query_stride + at,
                         rows.out + size_t(row) * rows.out_stride + at, batch.positions[row]});
    }
  const int32_t* table = batch.tables + size_t(tile.sequence) * batch.blocks;
  const Context context = {h, cache, table, head, scores.of(size_t(kQueries) * width), width};
  attend<Element>(context, queries.data(), int(queries.size()));
}

// Put every row's key and value into the cache, then attend.
template <class Element>
inline void attend_rows_with(Pool& pool, int& phase, const Heads& h, const Cache& cache,
                             const Batch& batch, const std::vector<Tile>& tiles, const Rows& rows) {
  const int count = int(tiles.size());
  pool.phase(phase, count, pool.grain(count), [&](int begin, int end) {
    for (int i = begin; i < end; ++i) {
      const int32_t* table = batch.tables + size_t(tiles[i].sequence) * batch.blocks;
      for (int row = tiles[i].row; row < tiles[i].row + tiles[i].rows; ++row) {
        const int position = batch.positions[row];
        write_token<Element>(h, cache, table[position / kBlock], position % kBlock,
                             rows.key + size_t(row) * rows.key_stride,
                             rows.value + size_t(row) * rows.value_stride);
      }
    }
  });
  pool.phase(phase, count * h.kv_heads, 1, [&](int begin, int end) {
    for (int i = begin; i < end; ++i)
      attend_tile_of<Element>(h, cache, batch, tiles[i / h.kv_heads], i % h.kv_heads, rows);
  });
}

inline void attend_rows(Pool& pool, int& phase, const Heads& h, const Cache& cache,
                        const Batch& batch, const std::vector<Tile>& tiles, const Rows& rows) {
  switch (h.kv) {
    case KvType::fp32: return attend_rows_with<Fp32>(pool, phase, h, cache, batch, tiles, rows);
    case KvType::bf16: return attend_rows_with<Bf16>(pool, phase, h, cache, batch, tiles, rows);
    case KvType::int8: return attend_rows_with<Int8>(pool, phase, h, cache, batch, tiles, rows);
    case KvType::fp8: return attend_rows_with<Fp8>(pool, phase, h, cache, batch, tiles, rows);
  }
}

}  // namespace tidegate
