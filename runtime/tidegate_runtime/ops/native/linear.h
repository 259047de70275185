// Matrix products of float rows with packed weights (see ops/quantized.py for how they lie).
//
// Inputs are rounded to 8 bits in groups of 32, each with a scale of its own; products of codes are
// summed exactly in integers, group by group, and the groups in order in float. So a row's result
// is the same bit for bit whatever rows it is computed with.
#pragma once

#include <algorithm>

#include "vector.h"

namespace tidegate {

constexpr int kGroup = 32;
constexpr int kPanel = 16;
#ifdef __AVX512F__
constexpr int kTileRows = 12;  // 24 of 32 registers hold sums
#else
constexpr int kTileRows = 4;
#endif
constexpr float kTiny = 1e-30f;  // a group below it is rounded to zeros

// A weight [out, in]; `scales` and `minimums` are fp16, `bias` may be null.
struct Linear {
  const uint8_t* codes;
  const uint16_t* scales;
  const uint16_t* minimums;
  const float* bias;
  int32_t out, in, bits;

  int panels() const { return (out + kPanel - 1) / kPanel; }
  int groups() const { return in / kGroup; }
};

// Rows of inputs as the products read them: tiles of a few rows, in which the same four (or, in bf16,
// two) inputs of all rows lie side by side.
struct Inputs {
  int8_t* codes;     // [tiles, in / 4, kTileRows, 4]
  float* scales;     // [tiles, groups, kTileRows]
  float* sums;       // [tiles, groups, kTileRows] scale * sum of codes
  int32_t* offsets;  // [tiles, groups, kTileRows] -128 * sum of codes
  uint16_t* bf16;    // [tiles, in / 2, kTileRows, 2]
  int in;

  int groups() const { return in / kGroup; }

  // Round one row.
  void set(int row, const float* values) {
    const int tile = row / kTileRows, place = row % kTileRows;
    int8_t* to = codes + size_t(tile) * in * kTileRows + place * 4;
    for (int g = 0; g < groups(); ++g) {
      Floats low = load<Floats>(values + g * kGroup);
      Floats high = load<Floats>(values + g * kGroup + kLanes);
      float largest = magnitude(low, high);
      float inverse = largest > kTiny ? 127.0f / largest : 0.0f;
      int8_t rounded[kGroup];
      int32_t total = to_int8(low * inverse, rounded) + to_int8(high * inverse, rounded + kLanes);
      for (int i = 0; i < kGroup; i += 4, to += kTileRows * 4) std::memcpy(to, rounded + i, 4);
      size_t at = (size_t(tile) * groups() + g) * kTileRows + place;
      scales[at] = largest / 127.0f;
      sums[at] = scales[at] * total;
      offsets[at] = -128 * total;
    }
  }

  void set_bf16(int row, const float* values) {
    uint16_t* to = bf16 + size_t(row / kTileRows) * in * kTileRows + row % kTileRows * 2;
    for (int i = 0; i < in; i += 2, to += kTileRows * 2) {
      to[0] = to_bf16(values[i]);
      to[1] = to_bf16(values[i + 1]);
    }
  }
};

// `ROWS` rows of one tile times one panel: sums[r] are 16 outputs of row r.
template <int BITS, int ROWS>
inline void tile(const Linear& w, int panel, const Inputs& x, int index, Floats* sums) {
  const int groups = w.groups();
  const uint8_t* codes = w.codes + size_t(panel) * w.in * kPanel * BITS / 8;
  const uint16_t* scales = w.scales + size_t(panel) * groups * kPanel;
  const uint16_t* minimums = BITS == 4 ? w.minimums + size_t(panel) * groups * kPanel : nullptr;
  const int8_t* inputs = x.codes + size_t(index) * w.in * kTileRows;
  const size_t first = size_t(index) * groups * kTileRows;
  const float *input_scales = x.scales + first, *input_sums = x.sums + first;
  const int32_t* offsets = x.offsets + first;
  Floats total[ROWS] = {};
  for (int g = 0; g < groups; ++g) {
    Ints dot[ROWS];
    for (int r = 0; r < ROWS; ++r) dot[r] = BITS == 8 ? Ints{} + offsets[r] : Ints{};
#pragma GCC unroll 4
    for (int k = 0; k < kGroup; k += 8) {
      Bytes low, high;
      if (BITS == 4) {
        Bytes both = load<Bytes>(codes);
        low = both & 15;
        high = (Bytes)((Words)both >> 4) & 15;
        codes += 64;
      } else {
        low = load<Bytes>(codes);
        high = load<Bytes>(codes + 64);
        codes += 128;
      }
#pragma GCC unroll 12
      for (int r = 0; r < ROWS; ++r) dot[r] = dot4(dot[r], low, inputs + r * 4);
      inputs += kTileRows * 4;
#pragma GCC unroll 12
      for (int r = 0; r < ROWS; ++r) dot[r] = dot4(dot[r], high, inputs + r * 4);
      inputs += kTileRows * 4;
    }
    Floats scale = from_fp16(scales);
    scales += kPanel;
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; ++r)
      total[r] = multiply_add(to_floats(dot[r]), scale * input_scales[r], total[r]);
    if (BITS == 4) {
      Floats minimum = from_fp16(minimums);
      minimums += kPanel;
#pragma GCC unroll 12
      for (int r = 0; r < ROWS; ++r)
        total[r] = multiply_add(minimum, splat(input_sums[r]), total[r]);
    }
    input_scales += kTileRows;
    input_sums += kTileRows;
    offsets += kTileRows;
  }
  for (int r = 0; r < ROWS; ++r) sums[r] = total[r];
}

// The same for weights and inputs in bf16. Even and odd inputs are summed apart.
template <int ROWS>
inline void tile_bf16(const Linear& w, int panel, const Inputs& x, int index, Floats* sums) {
  const uint16_t* codes = (const uint16_t*)w.codes + size_t(panel) * w.in * kPanel;
  const uint16_t* inputs = x.bf16 + size_t(index) * w.in * kTileRows;
  Floats even[ROWS] = {}, odd[ROWS] = {};
  for (int k = 0; k < w.in; k += 2, codes += 2 * kPanel, inputs += 2 * kTileRows) {
    Words both = load<Words>(codes);
    Floats first = (Floats)(both << 16), second = (Floats)(both & 0xffff0000u);
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; ++r) {
      uint32_t pair;
      std::memcpy(&pair, inputs + r * 2, 4);
      even[r] = multiply_add((Floats)(Words{} + (pair << 16)), first, even[r]);
      odd[r] = multiply_add((Floats)(Words{} + (pair & 0xffff0000u)), second, odd[r]);
    }
  }
  for (int r = 0; r < ROWS; ++r) sums[r] = even[r] + odd[r];
}

template <int ROWS>
inline void tile_of(const Linear& w, int panel, const Inputs& x, int index, Floats* sums) {
  if (w.bits == 4) tile<4, ROWS>(w, panel, x, index, sums);
  else if (w.bits == 8) tile<8, ROWS>(w, panel, x, index, sums);
  else tile_bf16<ROWS>(w, panel, x, index, sums);
  if (w.bias)
    for (int r = 0; r < ROWS; ++r) sums[r] = sums[r] + load<Floats>(w.bias + panel * kPanel);
}

// The first `rows` rows of tile `index` times one panel.
template <int ROWS = kTileRows>
inline void product(const Linear& w, int panel, const Inputs& x, int index, int rows,
                    Floats* sums) {
  if constexpr (ROWS > 1)
    if (rows < ROWS) return product<ROWS - 1>(w, panel, x, index, rows, sums);
  tile_of<ROWS>(w, panel, x, index, sums);
}

inline int tiles_of(int rows) { return (rows + kTileRows - 1) / kTileRows; }

// Visit every (row, panel) of the panels `first`..`last` with its 16 outputs: take(row, column,
// outputs). The inputs of a tile of rows stay in the nearest cache over all the panels.
template <class Take>
inline void multiply(const Linear& w, int first, int last, const Inputs& x, int rows, Take&& take) {
  Floats sums[kTileRows];
  for (int row = 0; row < rows; row += kTileRows) {
    const int count = std::min(kTileRows, rows - row);
    for (int panel = first; panel < last; ++panel) {
      product(w, panel, x, row / kTileRows, count, sums);
      for (int r = 0; r < count; ++r) take(row + r, panel * kPanel, sums[r]);
    }
  }
}

// Rows [rows, in] of a weight as floats, for embeddings.
inline void row_of(const Linear& w, int index, float* to) {
  int panel = index / kPanel, lane = index % kPanel;
  for (int i = 0; i < w.in; ++i) {
    size_t group = (size_t(panel) * w.groups() + i / kGroup) * kPanel + lane;
    if (w.bits == 16) {
      size_t at = ((size_t(panel) * (w.in / 2) + i / 2) * kPanel + lane) * 2 + i % 2;
      uint32_t bits = uint32_t(((const uint16_t*)w.codes)[at]) << 16;
      std::memcpy(to + i, &bits, 4);
    } else if (w.bits == 8) {
      size_t at = ((size_t(panel) * (w.in / 4) + i / 4) * kPanel + lane) * 4 + i % 4;
      to[i] = (int(w.codes[at]) - 128) * half_to_float(w.scales[group]);
    } else {
      size_t at = ((size_t(panel) * (w.in / 8) + i / 8) * kPanel + lane) * 4 + i % 4;
      int code = i / 4 % 2 ? w.codes[at] >> 4 : w.codes[at] & 15;
      to[i] = code * half_to_float(w.scales[group]) + half_to_float(w.minimums[group]);
    }
  }
}

}  // namespace tidegate
