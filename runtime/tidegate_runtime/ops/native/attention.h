// Attention over a paged key/value cache.
//
// The query heads that share a kv head, and the neighbouring rows of one sequence, read each key
// and value together. Every query sums in the order of the tokens, so neither its company nor the
// cut into chunks changes a bit.
//
// Over keys and values in int8 the products are sums of integers: the query is rounded to 8 bits as
// a whole, and the weights of its softmax in spans of 64 tokens (as in SageAttention, Zhang et al.
// 2024). For the other types all is float32.
#pragma once

#include <limits>

#include "batch.h"
#include "cache.h"
#include "pool.h"

namespace tidegate {

#ifdef __AVX512F__
constexpr int kQueries = 12;  // that walk through a context together
constexpr int kTogether = 6;  // whose sums are in registers at the same time
#else
constexpr int kQueries = 4;
constexpr int kTogether = 2;
#endif
constexpr int kSpanBlocks = 4;

struct Query {
  const float* values;  // [head dim]
  int position;
  int row, head;
};

// The queries of one sequence and kv head, in the order of their positions, and a thread's own
// memory for what becomes of them.
struct Context {
  const Heads& heads;
  const Cache& cache;
  const int32_t* table;
  int head;
  const Query* queries;
  int count, width;  // width: tokens of the table

  float* out;        // [count, head dim]
  float* scores;     // [count, width], then the weights
  float* units;      // [count] 1 / the total of the weights
  int8_t* codes;     // [count, head dim] the queries in int8, and for these
  float* scales;     // [count]
  int32_t* offsets;  // [count] -128 * sum of codes
  uint8_t* weights;  // [count, width]
  float* steps;      // [count, spans] what one of the weights of a span counts

  size_t place(int block) const { return size_t(table[block]) * heads.kv_heads + head; }
  const float* key_scales(int block) const { return Slot{place(block), 0}.key_scale(cache); }
  const float* value_scales(int block) const { return Slot{place(block), 0}.value_scale(cache); }
  int spans() const { return width / kBlock / kSpanBlocks + 1; }
  int first_block() const { return first(0) / kBlock; }
  int last_block(int q) const { return queries[q].position / kBlock; }
  int last_block() const { return last_block(count - 1); }

  int first(int q) const {
    return heads.window ? std::max(0, queries[q].position - heads.window + 1) : 0;
  }

  // Keep the scores of a block, those of tokens that the query does not see as -infinity.
  void put_scores(int q, int block, Floats found) const {
    const Ints lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const int begin = block * kBlock, position = queries[q].position;
    if (begin + kBlock - 1 > position || begin < first(q))
      found = (lanes + begin <= position) & (lanes + begin >= first(q))
                  ? found
                  : splat(-std::numeric_limits<float>::infinity());
    store(scores + size_t(q) * width + begin, found);
  }

  // A score s becomes softcap * tanh(s / softcap); what is not seen stays so.
  void cap_scores(int q) const {
    const float cap = heads.softcap * kLog2e;
    for (int b = first_block(); b <= last_block(q); ++b) {
      float* at = scores + size_t(q) * width + b * kBlock;
      const Floats score = load<Floats>(at);
      const Floats capped = hyperbolic_tangent(score * (1.0f / cap)) * cap;
      store(at, score > -std::numeric_limits<float>::infinity() ? capped : score);
    }
  }

  void put_out(int q, int d, Floats sums) const {
    store(out + size_t(q) * heads.head_dim + d, sums * units[q]);
  }
};

// Keys and values as floats.
template <class Element>
struct FloatMath {
  using Item = typename Element::Item;

  static void prepare(const Context&) {}

  // The scores of `BLOCKS` blocks for `QUERIES` queries from q on, in units of log 2.
  template <int QUERIES, int BLOCKS>
  static void score(const Context& c, int q, int block) {
    const int dim = c.heads.head_dim;
    const Item* keys[BLOCKS];
    for (int b = 0; b < BLOCKS; ++b)
      keys[b] = (const Item*)c.cache.keys + c.place(block + b) * dim * kBlock;
    Floats scores[QUERIES][BLOCKS] = {};
    for (int d = 0; d < dim; ++d) {
      Floats key[BLOCKS];
      for (int b = 0; b < BLOCKS; ++b) key[b] = Element::read(keys[b] + d * kBlock);
#pragma GCC unroll 6
      for (int i = 0; i < QUERIES; ++i)
        for (int b = 0; b < BLOCKS; ++b)
          scores[i][b] = multiply_add(key[b], splat(c.queries[q + i].values[d]), scores[i][b]);
    }
    for (int b = 0; b < BLOCKS; ++b) {
      Floats scale = splat(c.heads.scale * kLog2e);
      if (Element::scaled) scale = scale * load<Floats>(c.key_scales(block + b));
      for (int i = 0; i < QUERIES; ++i) c.put_scores(q + i, block + b, scores[i][b] * scale);
    }
  }

  // Scores become weights, 2^(score - most), those of scaled values times their scale.
  static void weigh(const Context& c, int q, Floats most) {
    float* scores = c.scores + size_t(q) * c.width;
    Floats total = {};
    for (int b = c.first_block(); b <= c.last_block(); ++b) {
      Floats weight = {};
      if (b <= c.last_block(q)) weight = exponential2(load<Floats>(scores + b * kBlock) - most);
      total = total + weight;
      // Where a token is not seen, its scale may be anything.
      if (Element::scaled)
        weight = weight > 0.0f ? weight * load<Floats>(c.value_scales(b)) : Floats{};
      store(scores + b * kBlock, weight);
    }
    c.units[q] = 1.0f / sum(total);
  }

  // out = the weighted sum of `VECTORS` * 16 components of the values, from component d on.
  template <int QUERIES, int VECTORS>
  static void gather(const Context& c, int q, int d) {
    const int dim = c.heads.head_dim, last = c.queries[q + QUERIES - 1].position;
    Floats sums[QUERIES][VECTORS] = {};
    for (int start = c.first_block() * kBlock; start <= last; start += kBlock) {
      const Item* from = (const Item*)c.cache.values + c.place(start / kBlock) * kBlock * dim + d;
      const int end = std::min(start + kBlock, last + 1);
      for (int at = start; at < end; ++at, from += dim) {
        Floats value[VECTORS];
        for (int v = 0; v < VECTORS; ++v) value[v] = Element::read(from + v * kLanes);
#pragma GCC unroll 6
        for (int i = 0; i < QUERIES; ++i) {
          Floats weight = splat(c.scores[size_t(q + i) * c.width + at]);
          for (int v = 0; v < VECTORS; ++v) sums[i][v] = multiply_add(value[v], weight, sums[i][v]);
        }
      }
    }
    for (int i = 0; i < QUERIES; ++i)
      for (int v = 0; v < VECTORS; ++v) c.put_out(q + i, d + v * kLanes, sums[i][v]);
  }
};

// Keys and values in int8.
struct IntegerMath {
  static void prepare(const Context& c) {
    const int dim = c.heads.head_dim;
    for (int q = 0; q < c.count; ++q) {
      int32_t total = 0;
      int8_t* to = c.codes + size_t(q) * dim;
      c.scales[q] = round_to_int8(c.queries[q].values, dim, [&](int first, const int8_t* codes) {
        std::memcpy(to + first, codes, kLanes);
        for (int d = 0; d < kLanes; ++d) total += codes[d];
      });
      c.offsets[q] = -128 * total;
    }
  }

  template <int QUERIES, int BLOCKS>
  static void score(const Context& c, int q, int block) {
    const int dim = c.heads.head_dim;
    const uint8_t* keys[BLOCKS];
    for (int b = 0; b < BLOCKS; ++b)
      keys[b] = (const uint8_t*)c.cache.keys + c.place(block + b) * dim * kBlock;
    const int8_t* codes = c.codes + size_t(q) * dim;
    Ints dots[QUERIES][BLOCKS];
    for (int i = 0; i < QUERIES; ++i)
      for (int b = 0; b < BLOCKS; ++b) dots[i][b] = Ints{} + c.offsets[q + i];
    for (int d = 0; d < dim; d += 4) {
      Bytes key[BLOCKS];
      for (int b = 0; b < BLOCKS; ++b) key[b] = load<Bytes>(keys[b] + d * kBlock);
#pragma GCC unroll 6
      for (int i = 0; i < QUERIES; ++i)
        for (int b = 0; b < BLOCKS; ++b) dots[i][b] = dot4(dots[i][b], key[b], codes + i * dim + d);
    }
    for (int b = 0; b < BLOCKS; ++b) {
      Floats scale = load<Floats>(c.key_scales(block + b)) * (c.heads.scale * kLog2e);
      for (int i = 0; i < QUERIES; ++i)
        c.put_scores(q + i, block + b, to_floats(dots[i][b]) * (scale * c.scales[q + i]));
    }
  }

  // The largest weight of a span, times its value's scale, becomes 255.
  static void weigh(const Context& c, int q, Floats most) {
    const float* scores = c.scores + size_t(q) * c.width;
    uint8_t* weights = c.weights + size_t(q) * c.width;
    const int last = c.last_block();
    Floats total = {};
    for (int block = c.first_block(), end; block <= last; block = end) {
      const int span = block / kSpanBlocks;
      end = std::min(last + 1, (span + 1) * kSpanBlocks);
      Floats scaled[kSpanBlocks], largest = {};
      for (int b = block; b < end; ++b) {
        Floats weight = {};
        if (b <= c.last_block(q)) weight = exponential2(load<Floats>(scores + b * kBlock) - most);
        total = total + weight;
        // Where a token is not seen, its scale may be anything.
        weight = weight > 0.0f ? weight * load<Floats>(c.value_scales(b)) : Floats{};
        largest = larger(weight, largest);
        scaled[b - block] = weight;
      }
      const float highest = maximum(largest), inverse = highest > 0 ? 255.0f / highest : 0.0f;
      for (int b = block; b < end; ++b)
        to_uint8(scaled[b - block] * inverse, weights + b * kBlock);
      c.steps[q * c.spans() + span] = highest * (1.0f / 255.0f);
    }
    c.units[q] = 1.0f / sum(total);
  }

  template <int QUERIES, int VECTORS>
  static void gather(const Context& c, int q, int d) {
    const int dim = c.heads.head_dim, last = c.last_block(q + QUERIES - 1);
    Floats sums[QUERIES][VECTORS] = {};
    for (int block = c.first_block(), end; block <= last; block = end) {
      const int span = block / kSpanBlocks;
      end = std::min(last + 1, (span + 1) * kSpanBlocks);
      Ints dots[QUERIES][VECTORS] = {};
      for (int b = block; b < end; ++b) {
        const uint8_t* values = (const uint8_t*)c.cache.values + c.place(b) * kBlock * dim + d * 4;
        const uint8_t* weights = c.weights + size_t(q) * c.width + b * kBlock;
        for (int at = 0; at < kBlock; at += 4, values += 4 * dim) {
          Bytes value[VECTORS];
          for (int v = 0; v < VECTORS; ++v) value[v] = load<Bytes>(values + v * 4 * kLanes);
#pragma GCC unroll 6
          for (int i = 0; i < QUERIES; ++i)
            for (int v = 0; v < VECTORS; ++v)
              dots[i][v] = dot4_signed(dots[i][v], value[v], weights + size_t(i) * c.width + at);
        }
      }
      for (int i = 0; i < QUERIES; ++i) {
        Floats step = splat(c.steps[(q + i) * c.spans() + span]);
        for (int v = 0; v < VECTORS; ++v)
          sums[i][v] = multiply_add(to_floats(dots[i][v]), step, sums[i][v]);
      }
    }
    for (int i = 0; i < QUERIES; ++i)
      for (int v = 0; v < VECTORS; ++v) c.put_out(q + i, d + v * kLanes, sums[i][v]);
  }
};

// Visit the queries in groups that fit the registers: take<QUERIES>(first).
template <int QUERIES = kTogether, class Take>
inline void few_at_once(int first, int count, Take&& take) {
  for (; count - first >= QUERIES; first += QUERIES) take.template operator()<QUERIES>(first);
  if constexpr (QUERIES > 1)
    if (first < count) few_at_once<QUERIES - 1>(first, count, take);
}

// out = softmax(queries * keys) * values
template <class Math>
void attend(const Context& c) {
  const int first = c.first_block(), last = c.last_block(), dim = c.heads.head_dim;
  Math::prepare(c);
  for (int block = first; block <= last;) {
    const int blocks = last + 1 - block >= kSpanBlocks ? kSpanBlocks : 1;
    few_at_once(0, c.count, [&]<int QUERIES>(int q) {
      if (blocks == kSpanBlocks) Math::template score<QUERIES, kSpanBlocks>(c, q, block);
      else Math::template score<QUERIES, 1>(c, q, block);
    });
    block += blocks;
  }
  for (int q = 0; q < c.count; ++q) {
    if (c.heads.softcap > 0) c.cap_scores(q);
    const float* scores = c.scores + size_t(q) * c.width;
    Floats most = load<Floats>(scores + first * kBlock);
    for (int b = first + 1; b <= c.last_block(q); ++b)
      most = larger(load<Floats>(scores + b * kBlock), most);
    Math::weigh(c, q, splat(maximum(most)));
  }
  few_at_once(0, c.count, [&]<int QUERIES>(int q) {
    constexpr int VECTORS = QUERIES > 4 ? 2 : 4;
    int d = 0;
    for (; d + VECTORS * kLanes <= dim; d += VECTORS * kLanes)
      Math::template gather<QUERIES, VECTORS>(c, q, d);
    for (; d < dim; d += kLanes) Math::template gather<QUERIES, 1>(c, q, d);
  });
}

inline void attend_in(KvType kv, const Context& c) {
  switch (kv) {
    case KvType::fp32: return attend<FloatMath<Fp32>>(c);
    case KvType::bf16: return attend<FloatMath<Bf16>>(c);
    case KvType::int8: return attend<IntegerMath>(c);
    case KvType::fp8: return attend<FloatMath<Fp8>>(c);
  }
}

// How many rows of a sequence one tile takes.
inline int tile_of_heads(int group) { return kQueries > group ? kQueries / group : 1; }

// Attend with the rows of a tile and one kv head: row r has its query at `query` + r * `stride`.
// take(row, head, [head dim]) gets each result.
template <class Take>
inline void attend_tile(const Heads& h, const Cache& cache, const Batch& batch, const Tile& tile,
                        int head, const float* query, int stride, const Take& take) {
  static thread_local std::vector<Query> queries;
  static thread_local Buffer<float> out, scores, units, scales, steps;
  static thread_local Buffer<int32_t> offsets;
  static thread_local Buffer<uint8_t> weights;
  static thread_local Buffer<int8_t> codes;
  const int group = h.group(), width = batch.blocks * kBlock;
  queries.clear();
  for (int row = tile.row; row < tile.row + tile.rows; ++row)
    for (int at = head * group; at < head * group + group; ++at)
      queries.push_back(
          {query + size_t(row) * stride + at * h.head_dim, batch.positions[row], row, at});
  const size_t count = queries.size();
  const Context context = {
      .heads = h,
      .cache = cache,
      .table = batch.tables + size_t(tile.sequence) * batch.blocks,
      .head = head,
      .queries = queries.data(),
      .count = int(count),
      .width = width,
      .out = out.of(count * h.head_dim),
      .scores = scores.of(count * width),
      .units = units.of(count),
      .codes = codes.of(count * h.head_dim),
      .scales = scales.of(count),
      .offsets = offsets.of(count),
      .weights = weights.of(count * width),
      .steps = steps.of(count * (batch.blocks / kSpanBlocks + 1)),
  };
  attend_in(h.kv, context);
  for (size_t q = 0; q < count; ++q)
    take(queries[q].row, queries[q].head, context.out + q * h.head_dim);
}

// Where a row's token lies in the cache.
inline Slot slot_of(const Heads& h, const Batch& batch, int sequence, int row, int head) {
  const int position = batch.positions[row];
  const int32_t* table = batch.tables + size_t(sequence) * batch.blocks;
  return {size_t(table[position / kBlock]) * h.kv_heads + head, position % kBlock};
}

}  // namespace tidegate
