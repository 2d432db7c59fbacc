// Rows over threads, in the default floating-point environment, and rows with +inf turned into ordinary ones.
#pragma once
#include <omp.h>

#include <vector>

#include "core/float_environment.h"
#include "cpu/tiles.h"

namespace warpdraw::WARPDRAW_ISA {

inline constexpr std::int64_t kElementsPerThread = 1 << 16;  // below this a second thread costs more than it brings

template <typename Work> void for_rows(std::int64_t rows, std::int64_t vocab, Work work) {
  const std::int64_t useful = std::min(rows, rows * vocab / kElementsPerThread);
  const int threads = int(std::min<std::int64_t>(useful, omp_get_max_threads()));
  if (threads <= 1) {
    for (std::int64_t row = 0; row < rows; ++row) work(row);
    return;
  }
#pragma omp parallel num_threads(threads)
  {
    const FloatEnvironment environment;
#pragma omp for schedule(dynamic, 1)
    for (std::int64_t row = 0; row < rows; ++row) work(row);
  }
}

// Calls use(row) with a row whose logits are finite or -inf; where +inf occurs, with the row that marks those tokens.
template <typename T, typename Use> void with_row(const T* logits, std::int64_t vocab, Use use) {
  thread_local std::vector<float> maxima, marked;
  const Row<T> row(logits, vocab, maxima);
  if (row.x_max <= kLargest) return use(row);
  if (std::int64_t(marked.size()) < vocab) marked.resize(vocab);
  for (std::int64_t i = 0; i < vocab; ++i) marked[i] = indicator_of_infinity(to_float(logits[i]));
  use(Row<float>(marked.data(), vocab, maxima));
}

}  // namespace warpdraw::WARPDRAW_ISA
