// The paged key/value cache: how keys and values lie in blocks, and how they are put there.
//
// A block holds 16 tokens. Keys lie as [block, kv head, head dim, 16], so that one vector holds one
// component of 16 keys; values as [block, kv head, 16, head dim]. In int8 four components of a key,
// and one component of the values of four tokens, lie side by side, as the instruction that
// multiplies them wants it: keys [block, kv head, head dim / 4, 16, 4] with 128 added, values
// [block, kv head, 4, head dim, 4].
#pragma once

#include "vector.h"

namespace tidegate {

constexpr int kBlock = 16;

enum class KvType : int32_t { fp32 = 0, bf16 = 1, int8 = 2, fp8 = 3 };

// The pool of one layer. `scales` [blocks, kv heads, 2, 16] of the 8-bit types: keys, then values.
struct Cache {
  void* keys;
  void* values;
  float* scales;
};

struct Heads {
  int32_t heads, kv_heads, head_dim, window;  // window 0: all tokens before
  float scale, softcap;  // softcap 0: none
  KvType kv;

  int group() const { return heads / kv_heads; }
};

struct Fp32 {
  using Item = float;
  static constexpr bool scaled = false;
  static Floats read(const Item* from) { return load<Floats>(from); }
  static Item make(float value) { return value; }
};

struct Bf16 {
  using Item = uint16_t;
  static constexpr bool scaled = false;
  static Floats read(const Item* from) { return from_bf16(from); }
  static Item make(float value) { return to_bf16(value); }
};

struct Fp8 {
  using Item = uint8_t;
  static constexpr bool scaled = true;
  static Floats read(const Item* from) { return from_e4m3(from); }
  static Item make(float value) { return to_e4m3(value); }
};

// Where one token of one kv head lies.
struct Slot {
  size_t place;  // block * kv heads + head
  int at;        // in the block

  float* key_scale(const Cache& cache) const { return cache.scales + place * 2 * kBlock + at; }
  float* value_scale(const Cache& cache) const { return key_scale(cache) + kBlock; }
};

// The largest magnitude of a head; NaN when one of its components is NaN or infinite.
inline float magnitude(const float* values, int count) {
  Ints most = {};
  for (int i = 0; i < count; i += kLanes) {
    Ints bits = load<Ints>(values + i) & 0x7fffffff;
    most = bits > most ? bits : most;
  }
  return magnitude((Floats)most, (Floats)most);
}

// Visit a head rounded to 8 bits around zero, 16 components at a time: take(first, codes). Returns
// the scale.
template <class Take>
inline float round_to_int8(const float* values, int count, Take&& take) {
  const float largest = magnitude(values, count);
  const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
  for (int first = 0; first < count; first += kLanes) {
    int8_t codes[kLanes];
    to_int8(load<Floats>(values + first) * inverse, codes);
    take(first, codes);
  }
  return largest / 127.0f;
}

inline void write_int8_key(const Heads& h, const Cache& cache, Slot slot, const float* key) {
  uint8_t* to = (uint8_t*)cache.keys + slot.place * h.head_dim * kBlock + slot.at * 4;
  *slot.key_scale(cache) = round_to_int8(key, h.head_dim, [&](int first, const int8_t* codes) {
    for (int d = 0; d < kLanes; d += 4) {
      uint32_t four;
      std::memcpy(&four, codes + d, 4);
      four ^= 0x80808080;
      std::memcpy(to + (first + d) * kBlock, &four, 4);
    }
  });
}

inline void write_int8_value(const Heads& h, const Cache& cache, Slot slot, const float* value) {
  int8_t* to = (int8_t*)cache.values + slot.place * h.head_dim * kBlock +
               slot.at / 4 * 4 * h.head_dim + slot.at % 4;
  *slot.value_scale(cache) = round_to_int8(value, h.head_dim, [&](int first, const int8_t* codes) {
    for (int d = 0; d < kLanes; ++d) to[(first + d) * 4] = codes[d];
  });
}

template <class Element>
inline float scale_for(const float* values, int count) {
  const float largest = Element::scaled ? magnitude(values, count) : 0.0f;
  return largest == 0 ? 1.0f : largest / 448.0f;
}

template <class Element>
inline void write_key_as(const Heads& h, const Cache& cache, Slot slot, const float* key) {
  auto* to = (typename Element::Item*)cache.keys + slot.place * h.head_dim * kBlock + slot.at;
  const float scale = scale_for<Element>(key, h.head_dim);
  for (int d = 0; d < h.head_dim; ++d)
    to[d * kBlock] = Element::make(Element::scaled ? key[d] / scale : key[d]);
  if (Element::scaled) *slot.key_scale(cache) = scale;
}

template <class Element>
inline void write_value_as(const Heads& h, const Cache& cache, Slot slot, const float* value) {
  auto* to = (typename Element::Item*)cache.values + (slot.place * kBlock + slot.at) * h.head_dim;
  const float scale = scale_for<Element>(value, h.head_dim);
  for (int d = 0; d < h.head_dim; ++d)
    to[d] = Element::make(Element::scaled ? value[d] / scale : value[d]);
  if (Element::scaled) *slot.value_scale(cache) = scale;
}

// Put the key [head dim] of one token and kv head into its slot.
inline void write_key(const Heads& h, const Cache& cache, Slot slot, const float* key) {
  switch (h.kv) {
    case KvType::fp32: return write_key_as<Fp32>(h, cache, slot, key);
    case KvType::bf16: return write_key_as<Bf16>(h, cache, slot, key);
    case KvType::int8: return write_int8_key(h, cache, slot, key);
    case KvType::fp8: return write_key_as<Fp8>(h, cache, slot, key);
  }
}

inline void write_value(const Heads& h, const Cache& cache, Slot slot, const float* value) {
  switch (h.kv) {
    case KvType::fp32: return write_value_as<Fp32>(h, cache, slot, value);
    case KvType::bf16: return write_value_as<Bf16>(h, cache, slot, value);
    case KvType::int8: return write_int8_value(h, cache, slot, value);
    case KvType::fp8: return write_value_as<Fp8>(h, cache, slot, value);
  }
}

}  // namespace tidegate
