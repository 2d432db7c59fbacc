// Work over torch's threads, in the default floating-point environment. No more threads than pay.
#pragma once
#include <omp.h>

#include <algorithm>
#include <cstdint>

#include "core/float_environment.h"

namespace warpdraw::WARPDRAW_ISA {

// Below this a second thread costs more than it brings.
inline constexpr std::int64_t kBytesPerThread = 192 << 10;

// Calls work(i) for each of `count` things that read `bytes` together.
template <typename Work> void in_parallel(std::int64_t count, std::int64_t bytes, Work work) {
  const std::int64_t useful = omp_in_parallel() ? 1 : std::min(count, bytes / kBytesPerThread);
  const int threads = int(std::min<std::int64_t>(useful, omp_get_max_threads()));
  if (threads <= 1) {
    for (std::int64_t i = 0; i < count; ++i) work(i);
    return;
  }
#pragma omp parallel num_threads(threads)
  {
    const FloatEnvironment environment;
#pragma omp for schedule(dynamic, 1)
    for (std::int64_t i = 0; i < count; ++i) work(i);
  }
}

}  // namespace warpdraw::WARPDRAW_ISA
