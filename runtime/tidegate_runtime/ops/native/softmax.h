// The softmax of rows of logits in chunks of the vocabulary, for drawing tokens: which chunk a draw
// falls into is found by the sums, and only that chunk is looked at again.
#pragma once

#include <algorithm>
#include <limits>

#include "pool.h"
#include "vector.h"

namespace tidegate {

constexpr int kChunk = 64;

// A token's share is 2^((logit - most) * heat). Row i of the results is row rows[i] of the logits.
struct Softmax {
  const float* logits;   // [., stride]
  const int32_t* rows;   // [count]
  const float* heats;    // [count] log2(e) / temperature
  float* most;           // [count] the largest logit
  float* sums;           // [count, chunks] of the shares
  float* highest;        // [count, chunks] share
  int64_t stride;
  int32_t count, size;

  int chunks() const { return (size + kChunk - 1) / kChunk; }
  const float* row(int i) const { return logits + rows[i] * stride; }

  // Sixteen logits; beyond the vocabulary there is nothing.
  Floats at(int i, int first) const {
    if (first + kLanes <= size) return load<Floats>(row(i) + first);
    Floats found = splat(-std::numeric_limits<float>::infinity());
    for (int lane = 0; first + lane < size; ++lane) found[lane] = row(i)[first + lane];
    return found;
  }

  Floats shares(int i, int first) const {
    return exponential2((at(i, first) - most[i]) * heats[i]);
  }

  void sum_row(int i) const {
    Floats largest = at(i, 0);
    for (int first = kLanes; first < size; first += kLanes) largest = larger(at(i, first), largest);
    most[i] = maximum(largest);
    for (int chunk = 0; chunk < chunks(); ++chunk) {
      Floats total = {}, high = {};
      for (int first = chunk * kChunk; first < (chunk + 1) * kChunk; first += kLanes) {
        Floats share = shares(i, first);
        total = total + share;
        high = larger(share, high);
      }
      sums[size_t(i) * chunks() + chunk] = sum(total);
      highest[size_t(i) * chunks() + chunk] = maximum(high);
    }
  }
};

}  // namespace tidegate
