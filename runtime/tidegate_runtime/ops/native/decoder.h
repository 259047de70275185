// A whole step of a decoder of the Llama family in one call: normalise, project, rotate, attend,
// gate, and project to logits, over one ragged batch.
#pragma once

#include "attention.h"
#include "linear.h"

namespace tidegate {

struct Layer {
  Linear query, key, value, output, gate, up, down;
  const float *attention_norm, *mlp_norm;
  const float *query_norm, *key_norm;  // [head dim], or null
  Cache cache;
  int32_t window;
};

struct Model {
  int32_t hidden, intermediate, layers, vocabulary;
  int32_t heads, kv_heads, head_dim, rotary_dim;
  int32_t kv_type, context;
  float epsilon, attention_scale;
  const float* rope;          // [context, rotary dim / 2, (cos, sin)]
  const uint16_t* embedding;  // bf16 [vocabulary, hidden]; null: the rows of `head`
  const float* final_norm;
  Linear head;
  const Layer* layer;
};

class InputBuffers {
 public:
  Inputs of(int rows, int in) {
    size_t items = size_t(tiles_of(rows)) * kTileRows * in, groups = items / kGroup;
    return {codes_.of(items), scales_.of(groups), sums_.of(groups), offsets_.of(groups),
            bf16_.of(items), in};
  }

 private:
  Buffer<int8_t> codes_;
  Buffer<float> scales_, sums_;
  Buffer<int32_t> offsets_;
  Buffer<uint16_t> bf16_;
};

inline void round_row(Inputs& inputs, int row, const float* values, int bits) {
  if (bits == 16) inputs.set_bf16(row, values);
  else inputs.set(row, values);
}

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
inline void rotate(float* values, const float* rope, int dim) {
  for (int i = 0; i < dim / 2; ++i) {
    float cosine = rope[2 * i], sine = rope[2 * i + 1];
    float a = values[i], b = values[i + dim / 2];
    values[i] = std::fma(a, cosine, -(b * sine));
    values[i + dim / 2] = std::fma(b, cosine, a * sine);
  }
}

class Decoder {
 public:
  Decoder(Pool& pool, const Model& model) : pool_(pool), m_(model) {}

  // logits [wanted, vocabulary]; best [wanted] the first largest; finite [wanted] whether that is
  // a finite number and no logit is NaN.
  void step(const Batch& batch, float* logits, int32_t* best, uint8_t* finite) {
    make_room(batch);
    pool_.run(kPhasesPerLayer * m_.layers + 8, [&] {
      int phase = 0;
      embed(batch, phase);
      for (int i = 0; i < m_.layers; ++i) {
        attention(batch, m_.layer[i], phase);
        feed_forward(batch, m_.layer[i], phase);
      }
      project(batch, logits, phase);
      choose(batch, logits, best, finite, phase);
    });
  }

 private:
  static constexpr int kPhasesPerLayer = 12;

  void make_room(const Batch& batch) {
    const int rows = batch.rows > batch.wanted ? batch.rows : batch.wanted;
    const int query = m_.heads * m_.head_dim, kv = m_.kv_heads * m_.head_dim;
    x_ = x_buffer_.of(size_t(rows) * m_.hidden);
    qkv_ = qkv_buffer_.of(size_t(rows) * (query + 2 * kv));
    attended_ = attended_buffer_.of(size_t(rows) * query);
    gated_ = gated_buffer_.of(size_t(rows) * m_.intermediate);
    hidden_in_ = hidden_inputs_.of(rows, m_.hidden);
    attended_in_ = attended_inputs_.of(rows, query);
    gated_in_ = gated_inputs_.of(rows, m_.intermediate);
    cut(batch, tile_of_heads(m_.heads / m_.kv_heads), tiles_);
  }

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
      if (!m_.embedding) return row_of(m_.head, batch.tokens[row], to);
      const uint16_t* from = m_.embedding + size_t(batch.tokens[row]) * m_.hidden;
      for (int i = 0; i < m_.hidden; i += kLanes) store(to + i, from_bf16(from + i));
    });
  }

  // Normalise the rows of the residual stream and round them for the next product.
  void prepare(int& phase, int rows, const float* norm, int bits) {
    each_row(phase, rows, [&](int row) {
      static thread_local Buffer<float> normal;
      float* values = normal.of(m_.hidden);
      normalise(x_ + size_t(row) * m_.hidden, norm, m_.epsilon, m_.hidden, values);
      round_row(hidden_in_, row, values, bits);
    });
  }

  // x += w * inputs
  void add_product(int& phase, int rows, const Linear& w, const float* from, Inputs& inputs) {
    each_row(phase, rows,
             [&](int row) { round_row(inputs, row, from + size_t(row) * w.in, w.bits); });
    pool_.phase(phase, w.panels(), pool_.grain(w.panels()), [&](int first, int last) {
      multiply(w, first, last, inputs, rows, [&](int row, int column, Floats sums) {
        float* to = x_ + size_t(row) * m_.hidden + column;
        store(to, load<Floats>(to) + sums);
      });
    });
  }

  void attention(const Batch& batch, const Layer& layer, int& phase) {
    const int query = m_.heads * m_.head_dim, kv = m_.kv_heads * m_.head_dim;
    const int stride = query + 2 * kv;
    prepare(phase, batch.rows, layer.attention_norm, layer.query.bits);
    const Linear* parts[] = {&layer.query, &layer.key, &layer.value};
    const int panels = stride / kPanel;
    pool_.phase(phase, panels, pool_.grain(panels), [&](int first, int last) {
      int before = 0;
      for (const Linear* part : parts) {
        const int begin = std::max(first - before, 0), end = std::min(last - before, part->panels());
        if (begin < end)
          multiply(*part, begin, end, hidden_in_, batch.rows, [&](int row, int column, Floats sums) {
            store(qkv_ + size_t(row) * stride + before * kPanel + column, sums);
          });
        before += part->panels();
      }
    });
    each_row(phase, batch.rows, [&](int row) {
      float* values = qkv_ + size_t(row) * stride;
      turn(values, m_.heads, layer.query_norm, batch.positions[row]);
      turn(values + query, m_.kv_heads, layer.key_norm, batch.positions[row]);
    });
    const Heads heads = {m_.heads, m_.kv_heads, m_.head_dim, layer.window, m_.attention_scale,
                         KvType(m_.kv_type)};
    const Rows rows = {qkv_,   qkv_ + query, qkv_ + query + kv, attended_,
                       stride, stride,       stride,            query};
    attend_rows(pool_, phase, heads, layer.cache, batch, tiles_, rows);
    add_product(phase, batch.rows, layer.output, attended_, attended_in_);
  }

  // Normalise and rotate the heads of one row.
  void turn(float* values, int heads, const float* norm, int position) {
    const float* rope = m_.rope + size_t(position) * m_.rotary_dim;
    for (int head = 0; head < heads; ++head, values += m_.head_dim) {
      if (norm) normalise(values, norm, m_.epsilon, m_.head_dim, values);
      rotate(values, rope, m_.rotary_dim);
    }
  }

  void feed_forward(const Batch& batch, const Layer& layer, int& phase) {
    prepare(phase, batch.rows, layer.mlp_norm, layer.gate.bits);
    const int panels = layer.gate.panels();
    pool_.phase(phase, panels, pool_.grain(panels), [&](int first, int last) {
      Floats gate[kTileRows], up[kTileRows];
      for (int row = 0; row < batch.rows; row += kTileRows) {
        const int count = std::min(kTileRows, batch.rows - row);
        for (int panel = first; panel < last; ++panel) {
          product(layer.gate, panel, hidden_in_, row / kTileRows, count, gate);
          product(layer.up, panel, hidden_in_, row / kTileRows, count, up);
          for (int r = 0; r < count; ++r)
            store(gated_ + size_t(row + r) * m_.intermediate + panel * kPanel,
                  silu(gate[r]) * up[r]);
        }
      }
    });
    add_product(phase, batch.rows, layer.down, gated_, gated_in_);
  }

  void project(const Batch& batch, float* logits, int& phase) {
    each_row(phase, batch.wanted, [&](int i) {
      static thread_local Buffer<float> normal;
      float* values = normal.of(m_.hidden);
      const float* from = x_ + size_t(batch.wanted_rows[i]) * m_.hidden;
      normalise(from, m_.final_norm, m_.epsilon, m_.hidden, values);
      round_row(hidden_in_, i, values, m_.head.bits);
    });
    pool_.phase(phase, m_.head.panels(), 32, [&](int first, int last) {
      multiply(m_.head, first, last, hidden_in_, batch.wanted,
               [&](int row, int column, Floats sums) {
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
  float *x_, *qkv_, *attended_, *gated_;
  Inputs hidden_in_, attended_in_, gated_in_;
  std::vector<Tile> tiles_;
  Buffer<float> x_buffer_, qkv_buffer_, attended_buffer_, gated_buffer_;
  InputBuffers hidden_inputs_, attended_inputs_, gated_inputs_;
};

}  // namespace tidegate
