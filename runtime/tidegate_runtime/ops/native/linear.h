// Matrix products of float rows with packed weights (see ops/quantized.py for how they lie).
//
// Inputs are rounded to 8 bits in groups of 32, each with a scale of its own; products of codes are
// summed exactly in integers, group by group, and the groups in order in float. So a row's result
// is the same bit for bit whatever rows it is computed with.
#pragma once

#include <algorithm>

#include "batch.h"
#include "vector.h"

namespace tidegate {

constexpr int kGroup = 32;
constexpr int kPanel = 16;
#ifdef __AVX512F__
constexpr int kTileRows = 8;  // times two panels: 16 of 32 registers hold the sums of a group
#else
constexpr int kTileRows = 2;
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

inline int tiles_of(int rows) { return (rows + kTileRows - 1) / kTileRows; }

// Rows of inputs as the products read them: tiles of a few rows, in which the same four inputs (for
// weights of 16 bits the same one) of all rows lie side by side.
struct Inputs {
  int8_t* codes;     // [tiles, in / 4, kTileRows, 4]
  float* scales;     // [tiles, groups, kTileRows]
  float* sums;       // [tiles, groups, kTileRows] scale * sum of codes
  int32_t* offsets;  // [tiles, groups, kTileRows] -128 * sum of codes
  float* values;     // [tiles, in, kTileRows] rounded to bf16, instead of these for 16 bits
  int in;

  // Round a group of 32 of one row, for weights of so many bits.
  void set(int row, int group, Floats low, Floats high, int bits) {
    const int tile = row / kTileRows, place = row % kTileRows;
    if (bits == 16) {
      float rounded[kGroup];
      store(rounded, round_bf16(low));
      store(rounded + kLanes, round_bf16(high));
      float* to = values + (size_t(tile) * in + group * kGroup) * kTileRows + place;
      for (int i = 0; i < kGroup; ++i) to[i * kTileRows] = rounded[i];
      return;
    }
    const float largest = magnitude(low, high);
    const float inverse = largest > kTiny ? 127.0f / largest : 0.0f;
    int8_t rounded[kGroup];
    int32_t total = to_int8(low * inverse, rounded) + to_int8(high * inverse, rounded + kLanes);
    int8_t* to = codes + (size_t(tile) * in + group * kGroup) * kTileRows + place * 4;
    for (int i = 0; i < kGroup; i += 4, to += kTileRows * 4) std::memcpy(to, rounded + i, 4);
    const size_t at = (size_t(tile) * (in / kGroup) + group) * kTileRows + place;
    scales[at] = largest / 127.0f;
    sums[at] = scales[at] * total;
    offsets[at] = -128 * total;
  }

  // Round a whole row.
  void set_row(int row, const float* from, int bits) {
    for (int group = 0; group < in / kGroup; ++group, from += kGroup)
      set(row, group, load<Floats>(from), load<Floats>(from + kLanes), bits);
  }
};

class InputBuffers {
 public:
  Inputs of(int rows, int in) {
    const size_t items = size_t(tiles_of(rows)) * kTileRows * in, groups = items / kGroup;
    return {codes_.of(items),     scales_.of(groups), sums_.of(groups),
            offsets_.of(groups), values_.of(items),  in};
  }

 private:
  Buffer<int8_t> codes_;
  Buffer<float> scales_, sums_, values_;
  Buffer<int32_t> offsets_;
};

// `ROWS` rows of one tile times `PANELS` panels: sums[r][p] are 16 outputs of row r.
template <int BITS, int ROWS, int PANELS>
inline void tile(const Linear& w, int panel, const Inputs& x, int index, Floats (*sums)[PANELS]) {
  const int groups = w.groups();
  const size_t codes_apart = size_t(w.in) * kPanel * BITS / 8;
  const size_t scales_apart = size_t(groups) * kPanel;
  const uint8_t* codes = w.codes + panel * codes_apart;
  const uint16_t* scales = w.scales + panel * scales_apart;
  const uint16_t* minimums = BITS == 4 ? w.minimums + panel * scales_apart : nullptr;
  const int8_t* inputs = x.codes + size_t(index) * w.in * kTileRows;
  const size_t first = size_t(index) * groups * kTileRows;
  const float *input_scales = x.scales + first, *input_sums = x.sums + first;
  const int32_t* offsets = x.offsets + first;
  Floats total[ROWS][PANELS] = {};
  for (int g = 0; g < groups; ++g) {
    Ints dot[ROWS][PANELS];
    for (int r = 0; r < ROWS; ++r)
      for (int p = 0; p < PANELS; ++p) dot[r][p] = BITS == 8 ? Ints{} + offsets[r] : Ints{};
#pragma GCC unroll 4
    for (int k = 0; k < kGroup; k += 8) {
      Bytes low[PANELS], high[PANELS];
      for (int p = 0; p < PANELS; ++p) {
        Bytes both = load<Bytes>(codes + p * codes_apart);
        low[p] = BITS == 4 ? both & 15 : both;
        high[p] = BITS == 4 ? (Bytes)((Words)both >> 4) & 15
                            : load<Bytes>(codes + p * codes_apart + 64);
      }
      codes += BITS == 4 ? 64 : 128;
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; ++r)
        for (int p = 0; p < PANELS; ++p) dot[r][p] = dot4(dot[r][p], low[p], inputs + r * 4);
      inputs += kTileRows * 4;
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; ++r)
        for (int p = 0; p < PANELS; ++p) dot[r][p] = dot4(dot[r][p], high[p], inputs + r * 4);
      inputs += kTileRows * 4;
    }
    for (int p = 0; p < PANELS; ++p) {
      Floats scale = from_fp16(scales + p * scales_apart);
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; ++r)
        total[r][p] = multiply_add(to_floats(dot[r][p]), scale * input_scales[r], total[r][p]);
      if (BITS != 4) continue;
      Floats minimum = from_fp16(minimums + p * scales_apart);
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; ++r)
        total[r][p] = multiply_add(minimum, splat(input_sums[r]), total[r][p]);
    }
    scales += kPanel;
    minimums += BITS == 4 ? kPanel : 0;
    input_scales += kTileRows;
    input_sums += kTileRows;
    offsets += kTileRows;
  }
  for (int r = 0; r < ROWS; ++r)
    for (int p = 0; p < PANELS; ++p) sums[r][p] = total[r][p];
}

// The same for weights and inputs in bf16: products and sums in float32, input after input.
template <int ROWS, int PANELS>
inline void tile_bf16(const Linear& w, int panel, const Inputs& x, int index,
                      Floats (*sums)[PANELS]) {
  const size_t apart = size_t(w.in) * kPanel;
  const uint16_t* codes = (const uint16_t*)w.codes + panel * apart;
  const float* inputs = x.values + size_t(index) * w.in * kTileRows;
  Floats total[ROWS][PANELS] = {};
  for (int k = 0; k < w.in; k += 2, codes += 2 * kPanel, inputs += 2 * kTileRows) {
    Floats even[PANELS], odd[PANELS];
    for (int p = 0; p < PANELS; ++p) {
      Words both = load<Words>(codes + p * apart);
      even[p] = (Floats)(both << 16);
      odd[p] = (Floats)(both & 0xffff0000u);
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r)
      for (int p = 0; p < PANELS; ++p)
        total[r][p] = multiply_add(even[p], splat(inputs[r]), total[r][p]);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r)
      for (int p = 0; p < PANELS; ++p)
        total[r][p] = multiply_add(odd[p], splat(inputs[kTileRows + r]), total[r][p]);
  }
  for (int r = 0; r < ROWS; ++r)
    for (int p = 0; p < PANELS; ++p) sums[r][p] = total[r][p];
}

template <int PANELS, int ROWS>
inline void tile_of(const Linear& w, int panel, const Inputs& x, int index,
                    Floats (*sums)[PANELS]) {
  if (w.bits == 4) tile<4, ROWS, PANELS>(w, panel, x, index, sums);
  else if (w.bits == 8) tile<8, ROWS, PANELS>(w, panel, x, index, sums);
  else tile_bf16<ROWS, PANELS>(w, panel, x, index, sums);
  if (!w.bias) return;
  for (int p = 0; p < PANELS; ++p)
    for (int r = 0; r < ROWS; ++r) sums[r][p] += load<Floats>(w.bias + (panel + p) * kPanel);
}

// Few rows have few sums: more panels at once keep the pipeline full.
constexpr int kFewRows = std::min(4, kTileRows);
constexpr int panels_for(int rows) { return rows <= kFewRows ? 4 : 2; }

// The first `rows` rows of tile `index` times `PANELS` panels.
template <int PANELS, int ROWS = PANELS == 4 ? kFewRows : kTileRows>
void product(const Linear& w, int panel, const Inputs& x, int index, int rows,
             Floats (*sums)[PANELS]) {
  if constexpr (ROWS > 1)
    if (rows < ROWS) return product<PANELS, ROWS - 1>(w, panel, x, index, rows, sums);
  tile_of<PANELS, ROWS>(w, panel, x, index, sums);
}

// Visit every (row, panel) of the panels `first`..`last` with its 16 outputs: take(row, column,
// outputs). The inputs of a tile of rows stay in the nearest cache over all the panels.
template <class Take>
inline void multiply(const Linear& w, int first, int last, const Inputs& x, int rows, Take&& take) {
  for (int row = 0; row < rows; row += kTileRows) {
    const int count = std::min(kTileRows, rows - row);
    int panel = first;
    auto advance = [&]<int PANELS>() {
      for (; panel + PANELS <= last; panel += PANELS) {
        Floats sums[kTileRows][PANELS];
        product<PANELS>(w, panel, x, row / kTileRows, count, sums);
        for (int r = 0; r < count; ++r)
          for (int p = 0; p < PANELS; ++p) take(row + r, (panel + p) * kPanel, sums[r][p]);
      }
    };
    if (panels_for(count) == 4) advance.template operator()<4>();
    advance.template operator()<2>();
    advance.template operator()<1>();
  }
}

// Row `index` of a weight as floats, for embeddings.
inline void row_of(const Linear& w, int index, float* to) {
  const int panel = index / kPanel, lane = index % kPanel;
  for (int i = 0; i < w.in; ++i) {
    const size_t group = (size_t(panel) * w.groups() + i / kGroup) * kPanel + lane;
    if (w.bits == 16) {
      size_t at = ((size_t(panel) * (w.in / 2) + i / 2) * kPanel + lane) * 2 + i % 2;
      to[i] = from_bf16(((const uint16_t*)w.codes)[at]);
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
