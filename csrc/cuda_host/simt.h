// The primitives of cuda/simt.h on fibers. Where threads wait for each other, the place of the call is an argument.
#pragma once
#include <bit>
#include <cstring>
#include <stdexcept>

#include "cuda_host/scheduler.h"

#define WD_DEVICE inline
#define WD_KERNEL inline void
#define WD_GRID_CONSTANT
#define WD_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

namespace warpdraw::simt::inline WARPDRAW_SIMT {

constexpr int kThreads = fibers::kBlockThreads;
constexpr int kBlocks = kShape.blocks;
static_assert(kWarp == fibers::kLanes);

inline int thread() { return fibers::current->index; }
inline int lane() { return fibers::current->index % kWarp; }
inline int warp() { return fibers::current->index / kWarp; }
inline long long block_x() { return fibers::current->block->x; }
inline long long block_y() { return fibers::current->block->y; }
inline char* shared_memory() { return fibers::current->block->shared; }

inline void sync(WD_HERE) { fibers::meet(fibers::current->block->meeting, {fibers::Primitive::sync, file, line}); }
inline int sync_count(bool predicate, WD_HERE) {
  return int(fibers::meet(fibers::current->block->meeting, {fibers::Primitive::sync_count, file, line}, predicate));
}
inline bool sync_and(bool predicate, WD_HERE) {
  return fibers::meet(fibers::current->block->meeting, {fibers::Primitive::sync_and, file, line}, predicate) == kThreads;
}
inline bool sync_or(bool predicate, WD_HERE) {
  return fibers::meet(fibers::current->block->meeting, {fibers::Primitive::sync_or, file, line}, predicate) != 0;
}

inline int cluster_rank() { return fibers::current->block->rank; }
inline int cluster_size() { return fibers::cluster_blocks(); }
inline void cluster_sync(WD_HERE) { fibers::meet(fibers::cluster_meeting(), {fibers::Primitive::cluster_sync, file, line}); }
template <typename T> T* peer(T* shared, int rank) {
  using namespace fibers;
  if (rank < 0 || rank >= cluster_blocks()) throw std::runtime_error("peer: no block of this rank in the cluster");
  const std::ptrdiff_t offset = (char*)shared - fibers::current->block->shared;
  if (offset < 0 || offset > std::ptrdiff_t(shared_bytes())) throw std::runtime_error("peer: not in shared memory");
  return (T*)(cluster_block(rank).shared + offset);
}

// A value goes through the meeting of its warp as bits.
template <typename T> T exchange(T value, int from_lane, const fibers::Call& call) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  auto& warp = *fibers::current->warp;
  auto& values = warp.value[warp.meeting.count % 2];
  std::memcpy(&values[lane()], &value, sizeof value);
  fibers::meet(warp.meeting, call);
  std::memcpy(&value, &values[from_lane], sizeof value);
  return value;
}
template <typename T> T shuffle(T value, int from_lane, WD_HERE) {
  return exchange(value, from_lane & (kWarp - 1), {fibers::Primitive::shuffle, file, line});
}
template <typename T> T shuffle_xor(T value, int mask, WD_HERE) {
  return exchange(value, (lane() ^ mask) & (kWarp - 1), {fibers::Primitive::shuffle_xor, file, line});
}
template <typename T> T shuffle_up(T value, int by, WD_HERE) {
  return exchange(value, lane() < by ? lane() : lane() - by, {fibers::Primitive::shuffle_up, file, line});
}
inline std::uint32_t ballot(bool predicate, WD_HERE) {
  return std::uint32_t(fibers::meet(fibers::current->warp->meeting, {fibers::Primitive::ballot, file, line},
                                    std::uint64_t{predicate} << lane()));
}
inline void warp_sync(WD_HERE) { fibers::meet(fibers::current->warp->meeting, {fibers::Primitive::warp_sync, file, line}); }

// One fiber runs at a time, so that every operation is atomic.
template <typename T> T atomic_exchange(T* place, std::type_identity_t<T> value) {
  const T before = *place;
  *place = value;
  return before;
}
template <typename T> T atomic_add(T* place, std::type_identity_t<T> value) {
  using Unsigned = std::make_unsigned_t<T>;  // wraps
  return atomic_exchange(place, T(Unsigned(*place) + Unsigned(value)));
}
template <typename T> T atomic_max(T* place, std::type_identity_t<T> value) {
  return atomic_exchange(place, *place < value ? value : *place);
}
template <typename T> T atomic_min(T* place, std::type_identity_t<T> value) {
  return atomic_exchange(place, value < *place ? value : *place);
}
template <typename T> T atomic_or(T* place, std::type_identity_t<T> value) { return atomic_exchange(place, T(*place | value)); }

inline void let_next_kernel_start() {}
inline void wait_for_previous_kernel() {}

inline constexpr bool kBulkCopies = true;
inline void begin_arrivals(Arrival* arrivals, int count) {
  for (int i = 0; i < count; ++i) fibers::begin_copies(arrivals + i);
}
inline void copy_bulk(void* shared, const void* from, std::uint32_t bytes, Arrival* arrival) {
  if (reinterpret_cast<std::uintptr_t>(shared) % 16 || reinterpret_cast<std::uintptr_t>(from) % 16 || bytes % 16 || !bytes)
    throw std::runtime_error("copy_bulk: expected addresses and a size that are multiples of 16");
  fibers::copy(arrival, shared, from, bytes);
}
inline void wait_for(Arrival* arrival, std::uint32_t turn) { fibers::wait_for_copy(arrival, turn); }

inline Bytes16 load_streaming(const Bytes16* from) {
  if (reinterpret_cast<std::uintptr_t>(from) % sizeof *from) throw std::runtime_error("load_streaming: misaligned address");
  Bytes16 value;
  std::memcpy(&value, static_cast<const void*>(from), sizeof value);
  return value;
}

inline int popcount(std::uint32_t bits) { return std::popcount(bits); }
inline int lowest_bit(std::uint32_t bits) { return bits ? std::countr_zero(bits) : -1; }
inline int highest_bit(std::uint32_t bits) { return 31 - std::countl_zero(bits); }

}  // namespace warpdraw::simt::inline WARPDRAW_SIMT

#undef WD_HERE
