// Starts kernels, and says what a device allows them.
#pragma once
#include <cstddef>
#include <stdexcept>
#include <string>

#include "cuda/simt.h"

namespace warpdraw::simt::inline WARPDRAW_SIMT {

// A grid of blocks of kThreads threads.
struct Launch {
  long long blocks_x;
  long long blocks_y = 1;
  int cluster = 1;         // blocks, along x
  std::size_t shared = 0;  // bytes a block
  void* stream = nullptr;
  bool follows = false;  // may start while the kernel before it ends; calls wait_for_previous_kernel() before it reads its work
};

struct DeviceInfo {
  int capability;      // 80, 90
  std::size_t shared;  // bytes that a block may ask for
  std::size_t shared_per_multiprocessor;
  int multiprocessors;
  int cluster;  // the most blocks
};

const DeviceInfo& device_info(int ordinal);

// What CUDA would only call an invalid argument.
inline void check_launch(const Launch& launch, const DeviceInfo& device) {
  auto require = [](bool holds, const char* what, long long is, long long most) {
    if (!holds)
      throw std::runtime_error(std::string("launch: ") + what + " is " + std::to_string(is) + "; the limit is " +
                               std::to_string(most));
  };
  require(launch.blocks_x >= 1 && launch.blocks_x <= 0x7fffffff, "blocks_x", launch.blocks_x, 0x7fffffff);
  require(launch.blocks_y >= 1 && launch.blocks_y <= 65535, "blocks_y", launch.blocks_y, 65535);
  require(launch.cluster >= 1 && launch.cluster <= device.cluster, "cluster", launch.cluster, device.cluster);
  require(launch.shared <= device.shared, "shared", (long long)launch.shared, (long long)device.shared);
  if (launch.blocks_x % launch.cluster) throw std::runtime_error("launch: blocks_x is no multiple of cluster");
}

}  // namespace warpdraw::simt::inline WARPDRAW_SIMT

#ifndef __CUDACC__
#include "cuda_host/launch.h"
#else
#include <array>
#include <mutex>
#include <set>
#include <utility>

namespace warpdraw::simt::inline WARPDRAW_SIMT {

inline void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // or the next call would report it again
  throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

inline const DeviceInfo& device_info(int ordinal) {
  static std::mutex mutex;
  static std::array<DeviceInfo, 64> known{};
  if (ordinal < 0 || ordinal >= int(known.size())) throw std::runtime_error("CUDA: no device " + std::to_string(ordinal));
  const std::lock_guard lock(mutex);
  DeviceInfo& info = known[ordinal];
  if (info.capability) return info;
  auto attribute = [&](cudaDeviceAttr which) {
    int value = 0;
    check(cudaDeviceGetAttribute(&value, which, ordinal));
    return value;
  };
  DeviceInfo found;
  found.capability = 10 * attribute(cudaDevAttrComputeCapabilityMajor) + attribute(cudaDevAttrComputeCapabilityMinor);
  found.shared = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  found.shared_per_multiprocessor = attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor);
  found.multiprocessors = attribute(cudaDevAttrMultiProcessorCount);
  // More than 8 is an extra of the data-center devices; consumer devices of 12.x keep to 8.
  found.cluster = found.capability < 90 ? 1 : found.capability < 120 ? 16 : 8;
  return info = found;
}

// Lets a kernel have all the shared memory and the clusters that the device has. By default it may not.
inline void raise_limits(const void* kernel, int device) {
  static std::mutex mutex;
  static std::set<std::pair<const void*, int> > raised;
  const std::lock_guard lock(mutex);
  if (raised.contains({kernel, device})) return;
  const DeviceInfo& info = device_info(device);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(info.shared)));
  if (info.cluster > 8) check(cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
  raised.insert({kernel, device});
}

// On the current device.
template <typename Params> void launch(void (*kernel)(const Params), const Launch& launch, const Params& params) {
  const auto* symbol = reinterpret_cast<const void*>(kernel);
  int device = 0;
  check(cudaGetDevice(&device));
  check_launch(launch, device_info(device));
  constexpr std::size_t kPlain = 48 << 10;  // what every kernel may have
  if (launch.shared > kPlain || launch.cluster > 8) raise_limits(symbol, device);

  cudaLaunchConfig_t configuration{};
  configuration.gridDim = dim3(unsigned(launch.blocks_x), unsigned(launch.blocks_y));
  configuration.blockDim = dim3(kThreads);
  configuration.dynamicSmemBytes = launch.shared;
  configuration.stream = static_cast<cudaStream_t>(launch.stream);
  cudaLaunchAttribute attributes[2]{};
  configuration.attrs = attributes;
  if (launch.cluster > 1) {
    cudaLaunchAttribute& cluster = attributes[configuration.numAttrs++];
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {unsigned(launch.cluster), 1, 1};
  }
  if (launch.follows && device_info(device).capability >= 90) {
    cudaLaunchAttribute& follows = attributes[configuration.numAttrs++];
    follows.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    follows.val.programmaticStreamSerializationAllowed = 1;
  }
  void* arguments[] = {const_cast<Params*>(&params)};
  check(cudaLaunchKernelExC(&configuration, symbol, arguments));
}

}  // namespace warpdraw::simt::inline WARPDRAW_SIMT
#endif
