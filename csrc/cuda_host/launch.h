// Launches on the host: every thread of the grid has run when launch returns.
#pragma once
#include "cuda_host/scheduler.h"

namespace warpdraw::simt::inline WARPDRAW_SIMT {

// As an H200's, so that tests meet the limits of the real thing.
inline const DeviceInfo& device_info(int) {
  static constexpr DeviceInfo kInfo{90, 227 << 10, 228 << 10, 132, 16};
  return kInfo;
}

template <typename Params> void launch(void (*kernel)(const Params), const Launch& launch, const Params& params) {
  check_launch(launch, device_info(0));
  fibers::run_grid(launch.blocks_x, launch.blocks_y, launch.cluster, launch.shared, [&] { kernel(params); });
}

}  // namespace warpdraw::simt::inline WARPDRAW_SIMT
