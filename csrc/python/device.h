// What a call asks of the CUDA runtime. A build without CUDA has nobody to ask.
#pragma once

#ifdef WARPDRAW_HAS_cuda
#include <cuda_runtime_api.h>

#include <array>
#include <atomic>
#include <stdexcept>
#include <string>

namespace warpdraw {

inline void check_cuda(cudaError_t status) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // else a later and innocent call reports it
  throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(status));
}

// Makes a device the thread's own while it lives: kernels are launched there.
class CurrentDevice {
 public:
  explicit CurrentDevice(int ordinal) {
    check_cuda(cudaGetDevice(&previous_));
    // Setting a device is not free, and restoring one that was never used would make a context there.
    changed_ = previous_ != ordinal;
    if (changed_) check_cuda(cudaSetDevice(ordinal));
  }
  ~CurrentDevice() {
    if (changed_) cudaSetDevice(previous_);
  }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  int previous_ = 0;
  bool changed_ = false;
};

// 80 for sm_80; asked once for each device.
inline int capability_of(int ordinal) {
  static std::array<std::atomic<int>, 64> known{};
  const bool kept = ordinal >= 0 && ordinal < int(known.size());
  if (kept && known[ordinal].load(std::memory_order_relaxed)) return known[ordinal].load(std::memory_order_relaxed);
  int major = 0, minor = 0;
  check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, ordinal));
  check_cuda(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, ordinal));
  if (kept) known[ordinal].store(10 * major + minor, std::memory_order_relaxed);
  return 10 * major + minor;
}

}  // namespace warpdraw
#else

namespace warpdraw {

struct CurrentDevice {
  explicit CurrentDevice(int) {}
};
inline int capability_of(int) { return 0; }

}  // namespace warpdraw
#endif
