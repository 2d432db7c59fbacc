// The primitives that kernels are written in: CUDA's under nvcc, fibers' on the host (cuda_host/simt.h), with one meaning.
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "cuda/shapes.h"

// The namespace of the backend that this compilation makes, and the shape of its kernels.
#ifndef WARPDRAW_SIMT
#ifdef __CUDACC__
#define WARPDRAW_SIMT cuda
#else
#define WARPDRAW_SIMT cuda_host
#endif
#endif
#ifndef WARPDRAW_SHAPE
#define WARPDRAW_SHAPE usual
#endif

// Inline, so that one module can hold both backends.
namespace warpdraw::simt::inline WARPDRAW_SIMT {

constexpr int kWarp = 32;

#define WARPDRAW_SHAPE_CONSTANT(name, ...) inline constexpr Shape name{__VA_ARGS__};
namespace shapes {
WARPDRAW_SHAPE_CONSTANT(usual, WARPDRAW_USUAL_SHAPE)
WARPDRAW_SHAPES(WARPDRAW_SHAPE_CONSTANT)
}  // namespace shapes
inline constexpr Shape kShape = shapes::WARPDRAW_SHAPE;

struct alignas(16) Bytes16 {
  std::uint32_t x, y, z, w;
};

// Where a bulk copy ends, in shared memory.
struct Arrival {
  std::uint64_t barrier;
};

}  // namespace warpdraw::simt::inline WARPDRAW_SIMT

#ifndef __CUDACC__
#define WD_UNROLL
#define WD_CALL inline
#include "cuda_host/simt.h"
#else

#define WD_UNROLL _Pragma("unroll")
// Kernels with every feature call some functions, of which one copy exists then; lean ones have them inline. Such functions
// take rows by value, so that they stay in registers where they come from.
#ifdef WARPDRAW_CALLS
#define WD_CALL __device__ __noinline__
#else
#define WD_CALL WD_DEVICE
#endif

#define WD_DEVICE __device__ __forceinline__
#define WD_KERNEL __global__ void __launch_bounds__(::warpdraw::simt::kThreads, ::warpdraw::simt::kBlocks)
#define WD_GRID_CONSTANT __grid_constant__

namespace warpdraw::simt::inline WARPDRAW_SIMT {

constexpr int kThreads = kShape.threads;
constexpr int kBlocks = kShape.blocks;

WD_DEVICE int thread() { return int(threadIdx.x); }
WD_DEVICE int lane() { return int(threadIdx.x % kWarp); }
WD_DEVICE int warp() { return int(threadIdx.x / kWarp); }
WD_DEVICE long long block_x() { return blockIdx.x; }
WD_DEVICE long long block_y() { return blockIdx.y; }

// The block's dynamic shared memory.
WD_DEVICE char* shared_memory() {
  extern __shared__ __align__(16) char warpdraw_shared_memory[];
  return warpdraw_shared_memory;
}

// Barriers of the block; all of its threads must come, and to the same one.
WD_DEVICE void sync() { __syncthreads(); }
WD_DEVICE int sync_count(bool predicate) { return __syncthreads_count(predicate); }
WD_DEVICE bool sync_and(bool predicate) { return __syncthreads_and(predicate); }
WD_DEVICE bool sync_or(bool predicate) { return __syncthreads_or(predicate); }

// The blocks of a cluster. Before sm_90 each block is alone.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
WD_DEVICE int cluster_rank() {
  std::uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return int(rank);
}
WD_DEVICE int cluster_size() {
  std::uint32_t size;
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
  return int(size);
}
WD_DEVICE void cluster_sync() {
  if (cluster_size() == 1) return __syncthreads();
  asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
// The same place of shared memory in another block of the cluster.
template <typename T> WD_DEVICE T* peer(T* shared, int rank) {
  std::uint64_t there;
  asm("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(reinterpret_cast<std::uint64_t>(shared)), "r"(rank));
  return reinterpret_cast<T*>(there);
}
#else
WD_DEVICE int cluster_rank() { return 0; }
WD_DEVICE int cluster_size() { return 1; }
WD_DEVICE void cluster_sync() { __syncthreads(); }
template <typename T> WD_DEVICE T* peer(T* shared, int) { return shared; }
#endif

// Within a warp; all of its lanes must come.
inline constexpr unsigned kAllLanes = 0xffffffffu;
template <typename T> WD_DEVICE T shuffle(T value, int from_lane) { return __shfl_sync(kAllLanes, value, from_lane); }
template <typename T> WD_DEVICE T shuffle_xor(T value, int mask) { return __shfl_xor_sync(kAllLanes, value, mask); }
template <typename T> WD_DEVICE T shuffle_up(T value, int by) { return __shfl_up_sync(kAllLanes, value, unsigned(by)); }
WD_DEVICE std::uint32_t ballot(bool predicate) { return __ballot_sync(kAllLanes, predicate); }
WD_DEVICE void warp_sync() { __syncwarp(); }

// CUDA names its atomics for the types of C, of which unsigned long is none.
template <typename T> using Atomic =
    std::conditional_t<sizeof(T) == 8, unsigned long long, std::conditional_t<std::is_signed_v<T>, int, unsigned> >;
template <typename T> WD_DEVICE Atomic<T>* atomic(T* place) { return reinterpret_cast<Atomic<T>*>(place); }

// Each returns what was there before.
template <typename T> WD_DEVICE T atomic_add(T* place, std::type_identity_t<T> value) {
  return T(atomicAdd(atomic(place), Atomic<T>(value)));
}
template <typename T> WD_DEVICE T atomic_max(T* place, std::type_identity_t<T> value) {
  static_assert(sizeof(T) == 4 || std::is_unsigned_v<T>);
  return T(atomicMax(atomic(place), Atomic<T>(value)));
}
template <typename T> WD_DEVICE T atomic_min(T* place, std::type_identity_t<T> value) {
  static_assert(sizeof(T) == 4 || std::is_unsigned_v<T>);
  return T(atomicMin(atomic(place), Atomic<T>(value)));
}
template <typename T> WD_DEVICE T atomic_or(T* place, std::type_identity_t<T> value) {
  return T(atomicOr(atomic(place), Atomic<T>(value)));
}
template <typename T> WD_DEVICE T atomic_exchange(T* place, std::type_identity_t<T> value) {
  return T(atomicExch(atomic(place), Atomic<T>(value)));
}

// Lets a kernel that `follows` start once all blocks of this one have come here or ended.
WD_DEVICE void let_next_kernel_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Until the kernel before it in the stream is done, in a kernel that was launched with `follows`.
WD_DEVICE void wait_for_previous_kernel() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Global memory that the kernel reads once and nothing writes meanwhile.
WD_DEVICE Bytes16 load_streaming(const Bytes16* from) {
  Bytes16 value;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(from));
  return value;
}

// Copies to shared memory that the hardware makes meanwhile. A thread asks for one, whose end it and others wait for; the
// copies that end at one place take turns, and `turn` is how many ended there before.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
inline constexpr bool kBulkCopies = true;
WD_DEVICE std::uint32_t shared_address(const void* shared) { return std::uint32_t(__cvta_generic_to_shared(shared)); }
// By one thread; then a barrier, before others use them.
WD_DEVICE void begin_arrivals(Arrival* arrivals, int count) {
  for (int i = 0; i < count; ++i)
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(arrivals + i)) : "memory");
  asm volatile("fence.mbarrier_init.release.cluster;\n\tfence.proxy.async.shared::cta;" ::: "memory");
}
// 16 bytes or a multiple, at addresses that are multiples too.
WD_DEVICE void copy_bulk(void* shared, const void* from, std::uint32_t bytes, Arrival* arrival) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(arrival)), "r"(bytes) : "memory");
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared_address(shared)),
      "l"(from), "r"(bytes), "r"(shared_address(arrival))
      : "memory");
}
WD_DEVICE void wait_for(Arrival* arrival, std::uint32_t turn) {
  std::uint32_t ended = 0;
  while (!ended)
    asm volatile("{\n\t.reg .pred p;\n\tmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n\tselp.u32 %0, 1, 0, p;\n\t}"
                 : "=r"(ended)
                 : "r"(shared_address(arrival)), "r"(turn & 1)
                 : "memory");
}
#else
inline constexpr bool kBulkCopies = false;
WD_DEVICE void begin_arrivals(Arrival*, int) {}
WD_DEVICE void copy_bulk(void*, const void*, std::uint32_t, Arrival*) {}
WD_DEVICE void wait_for(Arrival*, std::uint32_t) {}
#endif

// The places of set bits, -1 where there is none.
WD_DEVICE int popcount(std::uint32_t bits) { return __popc(bits); }
WD_DEVICE int lowest_bit(std::uint32_t bits) { return __ffs(int(bits)) - 1; }
WD_DEVICE int highest_bit(std::uint32_t bits) { return 31 - __clz(int(bits)); }

}  // namespace warpdraw::simt::inline WARPDRAW_SIMT
#endif
