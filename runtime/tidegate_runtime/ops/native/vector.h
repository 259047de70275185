// Sixteen lanes at a time: the few vector operations that the kernels are written in.
//
// With AVX-512 each is one or two instructions; elsewhere the compiler makes what it can of them.
// Multiply-add is always spelled out (the build turns contraction off), so that a lane's result
// does not depend on the loop around it.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace tidegate {

constexpr int kLanes = 16;

typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef uint8_t Bytes __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));

inline Floats splat(float value) { return Floats{} + value; }

template <class Vector>
inline Vector load(const void* from) {
  Vector value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <class Vector>
inline void store(void* to, Vector value) {
  std::memcpy(to, &value, sizeof value);
}

inline Floats multiply_add(Floats a, Floats b, Floats c) {
#ifdef __AVX512F__
  return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#else
  return a * b + c;
#endif
}

// acc[i] += the sum over j < 4 of weights[4 i + j] (unsigned) * inputs[j] (signed).
inline Ints dot4(Ints acc, Bytes weights, const int8_t* inputs) {
#ifdef __AVX512VNNI__
  int32_t four;
  std::memcpy(&four, inputs, 4);
  return (Ints)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)weights, _mm512_set1_epi32(four));
#else
  for (int j = 0; j < 4; ++j) acc += (Ints)((Words)weights >> (8 * j) & 255) * int(inputs[j]);
  return acc;
#endif
}

// acc[i] += the sum over j < 4 of values[4 i + j] (signed) * weights[j] (unsigned).
inline Ints dot4_signed(Ints acc, Bytes values, const uint8_t* weights) {
#ifdef __AVX512VNNI__
  int32_t four;
  std::memcpy(&four, weights, 4);
  return (Ints)_mm512_dpbusd_epi32((__m512i)acc, _mm512_set1_epi32(four), (__m512i)values);
#else
  for (int j = 0; j < 4; ++j) acc += ((Ints)values << (24 - 8 * j) >> 24) * int(weights[j]);
  return acc;
#endif
}

inline Floats to_floats(Ints value) { return __builtin_convertvector(value, Floats); }

inline Floats from_bf16(const uint16_t* from) {
  return (Floats)(__builtin_convertvector(load<Halves>(from), Words) << 16);
}

inline float from_bf16(uint16_t half) {
  uint32_t bits = uint32_t(half) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// Round to the nearest bf16, ties to even; a NaN stays one.
inline Floats round_bf16(Floats value) {
  Words bits = (Words)value;
  Floats rounded = (Floats)((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000u);
  return value == value ? rounded : value;
}

inline uint16_t to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if (value != value) return 0x7fc0;
  return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float half_to_float(uint16_t half) {
  uint32_t sign = uint32_t(half & 0x8000) << 16, rest = half & 0x7fff, bits;
  if (rest >= 0x7c00) {
    bits = sign | 0x7f800000 | (rest << 13);
  } else {
    float value;
    bits = rest << 13;
    std::memcpy(&value, &bits, 4);
    value *= 0x1p112f;
    std::memcpy(&bits, &value, 4);
    bits |= sign;
  }
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// Finite fp16 numbers, one in each word.
inline Floats small_halves(Words halves) {
  Floats value = (Floats)((halves & 0x7fff) << 13) * 0x1p112f;
  return (Floats)((Words)value | (halves & 0x8000) << 16);
}

inline Floats from_fp16(const uint16_t* from) {
#ifdef __AVX512F__
  return (Floats)_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256((const __m256i*)from));
#else
  return small_halves(__builtin_convertvector(load<Halves>(from), Words));
#endif
}

inline Floats from_int8(const int8_t* from) {
#ifdef __AVX512F__
  return to_floats((Ints)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)from)));
#else
  Floats value;
  for (int i = 0; i < kLanes; ++i) value[i] = from[i];
  return value;
#endif
}

// e4m3 is fp16 with three exponent bits fewer: moved into place, it is too small by 2^8.
inline Floats from_e4m3(const uint8_t* from) {
#ifdef __AVX512F__
  __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)from));
  __m256i sign = _mm256_slli_epi16(_mm256_and_si256(wide, _mm256_set1_epi16(0x80)), 8);
  __m256i rest = _mm256_slli_epi16(_mm256_and_si256(wide, _mm256_set1_epi16(0x7f)), 7);
  return (Floats)_mm512_maskz_cvtph_ps(0xffff, _mm256_or_si256(sign, rest)) * 256.0f;
#else
  Words codes;
  for (int i = 0; i < kLanes; ++i) codes[i] = from[i];
  return small_halves((codes & 0x80) << 8 | (codes & 0x7f) << 7) * 256.0f;
#endif
}

// Round a value of at most 448 to the nearest e4m3, ties to even.
inline uint8_t to_e4m3(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  uint8_t sign = bits >> 24 & 0x80;
  float magnitude = std::fabs(value);
  if (!(magnitude < 448.0f)) return sign | 0x7e;
  if (magnitude < 0x1p-6f) return sign | uint8_t(std::nearbyint(magnitude * 512.0f));
  std::memcpy(&bits, &magnitude, 4);
  bits += 0x7ffff + ((bits >> 20) & 1);
  return sign | uint8_t((bits >> 20) - (120 << 3));
}

inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }

inline float sum(Floats value) {
#ifdef __AVX512F__
  return _mm512_reduce_add_ps((__m512)value);
#else
  for (int width = kLanes / 2; width; width /= 2)
    for (int i = 0; i < width; ++i) value[i] += value[i + width];
  return value[0];
#endif
}

inline float maximum(Floats value) {
#ifdef __AVX512F__
  return _mm512_reduce_max_ps((__m512)value);
#else
  float most = value[0];
  for (int i = 1; i < kLanes; ++i) most = value[i] > most ? value[i] : most;
  return most;
#endif
}

inline int32_t maximum(Ints value) {
#ifdef __AVX512F__
  return _mm512_reduce_max_epi32((__m512i)value);
#else
  int32_t most = value[0];
  for (int i = 1; i < kLanes; ++i) most = value[i] > most ? value[i] : most;
  return most;
#endif
}

// The largest magnitude of two vectors; NaN when one of their items is NaN or infinite. Without
// their sign, floats are in the order of their bits.
inline float magnitude(Floats a, Floats b) {
  Ints left = (Ints)a & 0x7fffffff, right = (Ints)b & 0x7fffffff;
  int32_t bits = maximum(left > right ? left : right);
  if (bits >= 0x7f800000) bits = 0x7fc00000;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// The nearest integers, ties to even, as bytes; returns their sum.
inline int32_t to_int8(Floats values, int8_t* to) {
#ifdef __AVX512F__
  __m512i whole = _mm512_cvtps_epi32((__m512)values);
  _mm_storeu_si128((__m128i*)to, _mm512_cvtepi32_epi8(whole));
  return _mm512_reduce_add_epi32(whole);
#else
  int32_t total = 0;
  for (int i = 0; i < kLanes; ++i) total += to[i] = int8_t(std::nearbyint(values[i]));
  return total;
#endif
}

// The same of values in 0..255.
inline void to_uint8(Floats values, uint8_t* to) {
#ifdef __AVX512F__
  _mm_storeu_si128((__m128i*)to, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32((__m512)values)));
#else
  for (int i = 0; i < kLanes; ++i) to[i] = uint8_t(std::nearbyint(values[i]));
#endif
}

constexpr float kLog2e = 1.44269504f;

// 2^x within 3 ulp for x <= 0, zero below -126: x = n + f with n whole, |f| <= 1/2, and 2^f by a
// polynomial of the fifth degree, fitted to the least relative error. A NaN stays one.
inline Floats exponential2(Floats x) {
  const Floats magic = splat(12582912.0f);  // 1.5 * 2^23 rounds to an integer
  const Floats near = larger(x, splat(-126.0f)), whole = near + magic;
  const Ints n = (Ints)whole - (Ints)magic;
  const Floats f = near - (whole - magic);
  Floats p = splat(1.326472712e-3f);
  p = multiply_add(p, f, splat(9.671512645e-3f));
  p = multiply_add(p, f, splat(5.550733743e-2f));
  p = multiply_add(p, f, splat(2.402224209e-1f));
  p = multiply_add(p, f, splat(6.931469776e-1f));
  p = multiply_add(p, f, splat(1.0f));
  p = (Floats)((Ints)p + (n << 23));
  p = x < -126.0f ? Floats{} : p;
  return x == x ? p : x;
}

// 1 / (1 + e^-x), without overflow for either sign. A NaN stays one.
inline Floats sigmoid(Floats x) {
  Floats e = exponential2((x > 0.0f ? -x : x) * kLog2e);
  return (x > 0.0f ? splat(1.0f) : e) / (e + 1.0f);
}

inline Floats silu(Floats x) { return x * sigmoid(x); }

inline Floats hyperbolic_tangent(Floats x) { return sigmoid(x * 2.0f) * 2.0f - 1.0f; }

// x * (1 + tanh(u)) / 2 = x * sigmoid(2 u) with u = sqrt(2 / pi) * (x + 0.044715 x^3) (Hendrycks and
// Gimpel 2016).
inline Floats gelu_tanh(Floats x) {
  const float twice = 1.595769122f;
  return x * sigmoid(multiply_add(x * x * x, splat(0.044715f), x) * twice);
}

}  // namespace tidegate
