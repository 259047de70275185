// A whole step of a decoder of the Llama family or its like in one call: normalise, project, rotate,
// attend, gate, and project to logits, over one ragged batch.
#pragma once

#include "attention.h"
#include "linear.h"
#include "low_rank.h"

namespace tidegate {

enum class Activation : int32_t { silu = 0, gelu_tanh = 1 };

struct Layer {
  Linear query, key, value, output, gate, up, down;
  const float *attention_norm, *mlp_norm;
  const float *attention_out_norm, *mlp_out_norm;  // of what is added to the stream, or null
  const float *query_norm, *key_norm;              // [head dim], or null
  const float* rope;                               // [positions, (cos, sin), rotary dim / 2]
  Cache cache;
  int32_t window;
};

struct Model {
  int32_t hidden, intermediate, layers, vocabulary;
  int32_t heads, kv_heads, head_dim, rotary_dim;
  int32_t kv_type;
  Activation activation;
  float epsilon, attention_scale, embedding_scale;
  float attention_softcap, logit_softcap;  // 0: none
  const uint16_t* embedding;  // bf16 [vocabulary, hidden]; null: the rows of `head`
  const float* final_norm;
  Linear head;
  const Layer* layer;
};

// to = from / rms(from) * weight (Zhang and Sennrich 2019).
inline void normalise(const float* from, const float* weight, float epsilon, int size, float* to) {
  Floats squares = {};
  for (int i = 0; i < size; i += kLanes) {
    Floats value = load<Floats>(from + i);
    squares = multiply_add(value, value, squares);
  }
  float inverse = 1.0f / std::sqrt(sum(squares) / size + epsilon);
  for (int i = 0; i < size; i += kLanes)
    store(to + i, load<Floats>(from + i) * inverse * load<Floats>(weight + i));
}

// Rotate the first half of the components against the second (Su et al. 2021, GPT-NeoX order).
// `rope` holds the cosines, then the sines, of one position.
inline void rotate(float* values, const float* rope, int dim) {
  const int half = dim / 2;
  int i = 0;
  for (; i + kLanes <= half; i += kLanes) {
    Floats cosine = load<Floats>(rope + i), sine = load<Floats>(rope + half + i);
    Floats a = load<Floats>(values + i), b = load<Floats>(values + half + i);
    store(values + i, multiply_add(a, cosine, -(b * sine)));
    store(values + half + i, multiply_add(b, cosine, a * sine));
  }
  for (; i < half; ++i) {
    float cosine = rope[i], sine = rope[half + i], a = values[i], b = values[half + i];
    values[i] = std::fma(a, cosine, -(b * sine));
    values[half + i] = std::fma(b, cosine, a * sine);
  }
}

// What a step is to give of its wanted rows, after the first `layers` layers: `hidden` is what the
// last of them left, before the final norm; `logits` are of that norm and the head, `best` the first
// largest of each row, and `finite` whether that is a finite number and no logit is NaN.
struct Wanted {
  int32_t layers;
  float* hidden;    // [wanted, hidden], or null
  float* logits;    // [wanted, vocabulary], or null: then neither `best` nor `finite` is written
  int32_t* best;    // [wanted]
  uint8_t* finite;  // [wanted]
};

class Decoder {
 public:
  Decoder(Pool& pool, const Model& model) : pool_(pool), m_(model) {}

  void step(const Batch& batch, const Wanted& wanted) {
    make_room(batch);
    const int phases_per_layer = kPhasesPerLayer + (updates_.any() ? kPhasesOfUpdates : 0);
    pool_.run(phases_per_layer * wanted.layers + 8, [&] {
      int phase = 0;
      embed(batch, phase);
      for (int i = 0; i < wanted.layers; ++i) {
        attention(batch, i, phase);
        feed_forward(batch, i, phase);
      }
      if (wanted.hidden) keep(batch, wanted.hidden, phase);
      if (!wanted.logits) return;
      project(batch, wanted.logits, phase);
      choose(batch, wanted.logits, wanted.best, wanted.finite, phase);
    });
  }

 private:
  static constexpr int kPhasesPerLayer = 10, kPhasesOfUpdates = 4;

  void make_room(const Batch& batch) {
    const int rows = std::max(batch.rows, batch.wanted);
    x_ = x_buffer_.of(size_t(rows) * m_.hidden);
    added_ = added_buffer_.of(m_.layer->attention_out_norm ? size_t(rows) * m_.hidden : 0);
    qkv_ = qkv_buffer_.of(size_t(rows) * (query_dim() + 2 * kv_dim()));
    attended_ = attended_buffer_.of(size_t(rows) * query_dim());
    hidden_in_ = hidden_inputs_.of(rows, m_.hidden);
    attended_in_ = attended_inputs_.of(rows, query_dim());
    gated_in_ = gated_inputs_.of(rows, m_.intermediate);
    updates_.take(batch, m_.layers);
    normal_ = updates_.any() ? normal_buffer_.of(size_t(rows) * m_.hidden) : nullptr;
    gated_ = updates_.any() ? gated_buffer_.of(size_t(rows) * m_.intermediate) : nullptr;
    cut(batch, tile_of_heads(m_.heads / m_.kv_heads), tiles_);
  }

  int query_dim() const { return m_.heads * m_.head_dim; }
  int kv_dim() const { return m_.kv_heads * m_.head_dim; }

  // Every row on its own.
  template <class Task>
  void each_row(int& phase, int rows, Task&& task) {
    pool_.phase(phase, rows, pool_.grain(rows), [&](int begin, int end) {
      for (int row = begin; row < end; ++row) task(row);
    });
  }

  void embed(const Batch& batch, int& phase) {
    each_row(phase, batch.rows, [&](int row) {
      float* to = x_ + size_t(row) * m_.hidden;
      read_embedding(batch.tokens[row], to);
      if (m_.embedding_scale != 1.0f)
        for (int i = 0; i < m_.hidden; ++i) to[i] *= m_.embedding_scale;
    });
  }

  void read_embedding(int token, float* to) {
    if (!m_.embedding) return row_of(m_.head, token, to);
    const uint16_t* from = m_.embedding + size_t(token) * m_.hidden;
    for (int i = 0; i < m_.hidden; i += kLanes) store(to + i, from_bf16(from + i));
  }

  // Normalise a row of the residual stream and round it for the next product.
  void prepare(const float* x, const float* norm, int row, int bits) {
    static thread_local Buffer<float> normal;
    float* values = normal_ ? normal_ + size_t(row) * m_.hidden : normal.of(m_.hidden);
    normalise(x, norm, m_.epsilon, m_.hidden, values);
    hidden_in_.set_row(row, values, bits);
  }

  void prepare_rows(int& phase, int rows, const float* norm, int bits) {
    each_row(phase, rows,
             [&](int row) { prepare(x_ + size_t(row) * m_.hidden, norm, row, bits); });
  }

  // The first half of the updates of `count` linears, from `target` on, that read the inputs x.
  void shrink_updates(int& phase, int layer, int target, int count, const float* x, int in) {
    if (!updates_.any()) return;
    pool_.phase(phase, updates_.groups() * count, 1, [&](int first, int last) {
      for (int i = first; i < last; ++i)
        updates_.shrink_group(i / count, layer, target + i % count, i % count, x, in);
    });
  }

  // x += w * inputs, or with a norm x += norm(w * inputs)
  void add_product(int& phase, int rows, int layer, int target, const Linear& w,
                   const Inputs& inputs, const float* norm) {
    if (norm) return add_normal_product(phase, rows, layer, target, w, inputs, norm);
    const int grain = pool_.grain(w.panels(), panels_for(rows));
    pool_.phase(phase, w.panels(), grain, [&](int first, int last) {
      multiply(w, first, last, inputs, rows, [&](int row, int column, Floats sums) {
        float* to = x_ + size_t(row) * m_.hidden + column;
        store(to, load<Floats>(to) + sums);
      });
      if (updates_.any()) updates_.add(layer, target, 0, first, last, x_, m_.hidden);
    });
  }

  void add_normal_product(int& phase, int rows, int layer, int target, const Linear& w,
                          const Inputs& inputs, const float* norm) {
    const int grain = pool_.grain(w.panels(), panels_for(rows));
    pool_.phase(phase, w.panels(), grain, [&](int first, int last) {
      multiply(w, first, last, inputs, rows, [&](int row, int column, Floats sums) {
        store(added_ + size_t(row) * m_.hidden + column, sums);
      });
      if (updates_.any()) updates_.add(layer, target, 0, first, last, added_, m_.hidden);
    });
    each_row(phase, rows, [&](int row) {
      float *to = x_ + size_t(row) * m_.hidden, *from = added_ + size_t(row) * m_.hidden;
      normalise(from, norm, m_.epsilon, m_.hidden, from);
      for (int i = 0; i < m_.hidden; i += kLanes)
        store(to + i, load<Floats>(to + i) + load<Floats>(from + i));
    });
  }

  void attention(const Batch& batch, int index, int& phase) {
    const Layer& layer = m_.layer[index];
    const Heads heads = {m_.heads,          m_.kv_heads,          m_.head_dim,      layer.window,
                         m_.attention_scale, m_.attention_softcap, KvType(m_.kv_type)};
    prepare_rows(phase, batch.rows, layer.attention_norm, layer.query.bits);
    shrink_updates(phase, index, kQuery, 3, normal_, m_.hidden);
    pool_.phase(phase, m_.heads + 2 * m_.kv_heads, 1, [&](int first, int last) {
      for (int head = first; head < last; ++head) project_head(batch, index, heads, head);
    });
    attend(batch, layer, heads, phase);
    shrink_updates(phase, index, kOutput, 1, attended_, query_dim());
    add_product(phase, batch.rows, index, kOutput, layer.output, attended_in_,
                layer.attention_out_norm);
  }

  // One head of all rows: queries stay in qkv_, keys and values go to the cache. Heads are counted
  // through: those of the queries, then of the keys, then of the values.
  void project_head(const Batch& batch, int index, const Heads& h, int head) {
    const Layer& layer = m_.layer[index];
    const int kind = head < m_.heads ? 0 : head < m_.heads + m_.kv_heads ? 1 : 2;
    const Linear& w = kind == 0 ? layer.query : kind == 1 ? layer.key : layer.value;
    const int own = kind == 0 ? head : (head - m_.heads) % m_.kv_heads;
    const int panels = m_.head_dim / kPanel, stride = query_dim() + 2 * kv_dim();
    float* to = qkv_ + head * m_.head_dim - own * m_.head_dim;
    multiply(w, own * panels, (own + 1) * panels, hidden_in_, batch.rows,
             [&](int row, int column, Floats sums) {
               store(to + size_t(row) * stride + column, sums);
             });
    if (updates_.any())
      updates_.add(index, kQuery + kind, kind, own * panels, (own + 1) * panels, to, stride);
    for (int i = 0; i < batch.sequences; ++i)
      for (int row = batch.starts[i]; row < batch.starts[i + 1]; ++row) {
        float* values = qkv_ + size_t(row) * stride + head * m_.head_dim;
        const float* norm = kind == 0 ? layer.query_norm : layer.key_norm;
        if (kind < 2) turn(values, norm, layer.rope, batch.positions[row]);
        if (kind == 1) write_key(h, layer.cache, slot_of(h, batch, i, row, own), values);
        if (kind == 2) write_value(h, layer.cache, slot_of(h, batch, i, row, own), values);
      }
  }

  // Every tile of rows and kv head on its own; the results are rounded for the next product.
  void attend(const Batch& batch, const Layer& layer, const Heads& heads, int& phase) {
    const int tiles = int(tiles_.size()), stride = query_dim() + 2 * kv_dim();
    const bool whole = m_.head_dim % kGroup == 0;  // heads share no group of the next product
    auto take = [&](int row, int head, const float* out) {
      const int first = head * m_.head_dim;
      if (!whole || updates_.any())
        std::copy_n(out, m_.head_dim, attended_ + size_t(row) * query_dim() + first);
      for (int d = 0; whole && d < m_.head_dim; d += kGroup)
        attended_in_.set(row, (first + d) / kGroup, load<Floats>(out + d),
                         load<Floats>(out + d + kLanes), layer.output.bits);
    };
    pool_.phase(phase, tiles * m_.kv_heads, 1, [&](int first, int last) {
      for (int i = first; i < last; ++i)
        attend_tile(heads, layer.cache, batch, tiles_[i / m_.kv_heads], i % m_.kv_heads, qkv_,
                    stride, take);
    });
    if (!whole)
      each_row(phase, batch.rows, [&](int row) {
        attended_in_.set_row(row, attended_ + size_t(row) * query_dim(), layer.output.bits);
      });
  }

  // Normalise and rotate one head.
  void turn(float* values, const float* norm, const float* rope, int position) {
    if (norm) normalise(values, norm, m_.epsilon, m_.head_dim, values);
    rotate(values, rope + size_t(position) * m_.rotary_dim, m_.rotary_dim);
  }

  void feed_forward(const Batch& batch, int index, int& phase) {
    const Layer& layer = m_.layer[index];
    prepare_rows(phase, batch.rows, layer.mlp_norm, layer.gate.bits);
    shrink_updates(phase, index, kGate, 2, normal_, m_.hidden);
    // A group of the next product is two panels of this one.
    const int pairs = layer.gate.panels() / 2;
    const int grain = pool_.grain(pairs, panels_for(batch.rows) / 2);
    pool_.phase(phase, pairs, grain, [&](int first, int last) {
      if (m_.activation == Activation::silu) gates<silu>(index, batch.rows, first, last);
      else gates<gelu_tanh>(index, batch.rows, first, last);
    });
    shrink_updates(phase, index, kDown, 1, gated_, m_.intermediate);
    add_product(phase, batch.rows, index, kDown, layer.down, gated_in_, layer.mlp_out_norm);
  }

  template <Floats ACTIVATE(Floats)>
  void gates(int index, int rows, int first, int last) {
    for (int row = 0; row < rows; row += kTileRows) {
      const int count = std::min(kTileRows, rows - row);
      int pair = first;
      if (panels_for(count) == 4)
        for (; pair + 2 <= last; pair += 2) gate<4, ACTIVATE>(index, pair, row, count);
      for (; pair < last; ++pair) gate<2, ACTIVATE>(index, pair, row, count);
    }
  }

  template <int PANELS, Floats ACTIVATE(Floats)>
  void gate(int index, int pair, int row, int count) {
    const Layer& layer = m_.layer[index];
    Floats gate[kTileRows][PANELS], up[kTileRows][PANELS];
    product<PANELS>(layer.gate, pair * 2, hidden_in_, row / kTileRows, count, gate);
    product<PANELS>(layer.up, pair * 2, hidden_in_, row / kTileRows, count, up);
    if (updates_.any()) update_gate<PANELS, ACTIVATE>(index, pair * 2, row, count, gate, up);
    for (int r = 0; r < count; ++r)
      for (int p = 0; p < PANELS; p += 2)
        gated_in_.set(row + r, pair + p / 2, ACTIVATE(gate[r][p]) * up[r][p],
                      ACTIVATE(gate[r][p + 1]) * up[r][p + 1], layer.down.bits);
  }

  // Update both products, and keep what comes of them as it is before it is rounded.
  template <int PANELS, Floats ACTIVATE(Floats)>
  void update_gate(int index, int panel, int row, int count, Floats (*gate)[PANELS],
                   Floats (*up)[PANELS]) {
    for (int r = 0; r < count; ++r)
      for (int p = 0; p < PANELS; ++p) {
        gate[r][p] += updates_.at(row + r, index, kGate, 0, panel + p);
        up[r][p] += updates_.at(row + r, index, kUp, 1, panel + p);
        store(gated_ + size_t(row + r) * m_.intermediate + (panel + p) * kPanel,
              ACTIVATE(gate[r][p]) * up[r][p]);
      }
  }

  void keep(const Batch& batch, float* hidden, int& phase) {
    each_row(phase, batch.wanted, [&](int i) {
      std::copy_n(x_ + size_t(batch.wanted_rows[i]) * m_.hidden, m_.hidden,
                  hidden + size_t(i) * m_.hidden);
    });
  }

  void project(const Batch& batch, float* logits, int& phase) {
    each_row(phase, batch.wanted, [&](int i) {
      const int row = batch.wanted_rows[i];
      prepare(x_ + size_t(row) * m_.hidden, m_.final_norm, i, m_.head.bits);
      if (updates_.any())
        updates_.shrink_row(row, m_.layers, kHead, normal_ + size_t(i) * m_.hidden, m_.hidden);
    });
    pool_.phase(phase, m_.head.panels(), 32, [&](int first, int last) {
      multiply(m_.head, first, last, hidden_in_, batch.wanted,
               [&](int row, int column, Floats sums) {
                 if (updates_.any())
                   sums += updates_.at(batch.wanted_rows[row], m_.layers, kHead, 0,
                                       column / kPanel);
                 if (m_.logit_softcap > 0)
                   sums = hyperbolic_tangent(sums * (1.0f / m_.logit_softcap)) * m_.logit_softcap;
                 const int left = m_.vocabulary - column;
                 std::memcpy(logits + size_t(row) * m_.vocabulary + column, &sums,
                             std::min(left, kLanes) * sizeof(float));
               });
    });
  }

  void choose(const Batch& batch, const float* logits, int32_t* best, uint8_t* finite, int& phase) {
    each_row(phase, batch.wanted, [&](int i) {
      const float* row = logits + size_t(i) * m_.vocabulary;
      const int whole = m_.vocabulary / kLanes * kLanes;
      float most = -std::numeric_limits<float>::infinity();
      bool sound = true;
      Floats mosts = splat(most);
      Ints odd = {};
      for (int j = 0; j < whole; j += kLanes) {
        Floats value = load<Floats>(row + j);
        mosts = larger(value, mosts);
        odd |= value != value;
      }
      for (int lane = 0; lane < kLanes; ++lane) sound = sound && !odd[lane];
      most = maximum(mosts);
      for (int j = whole; j < m_.vocabulary; ++j) {
        sound = sound && row[j] == row[j];
        most = row[j] > most ? row[j] : most;
      }
      int place = 0;
      while (place < m_.vocabulary - 1 && row[place] != most) ++place;
      best[i] = place;
      finite[i] = sound && std::isfinite(most);
    });
  }

  Pool& pool_;
  const Model m_;
  float *x_, *added_, *qkv_, *attended_;
  float *normal_ = nullptr, *gated_ = nullptr;  // what updates read; null without any
  Inputs hidden_in_, attended_in_, gated_in_;
  std::vector<Tile> tiles_;
  Buffer<float> x_buffer_, added_buffer_, qkv_buffer_, attended_buffer_;
  Buffer<float> normal_buffer_, gated_buffer_;
  Updates updates_;
  InputBuffers hidden_inputs_, attended_inputs_, gated_inputs_;
};

}  // namespace tidegate
