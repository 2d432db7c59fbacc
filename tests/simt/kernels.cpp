// Small kernels for test_simt.py. A fault that is asked for leaves out what makes the kernel right.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <stdexcept>
#include <string>

#include "cuda/launch.h"

namespace warpdraw::WARPDRAW_SIMT {
namespace {

using simt::kThreads;
using simt::kWarp;
using simt::thread;
using std::int64_t;

struct Params {
  const int64_t* in;
  int64_t* out;
  int fault;
};

WD_DEVICE int64_t place_in_grid(int blocks_x) { return (simt::block_y() * blocks_x + simt::block_x()) * kThreads + thread(); }

WD_KERNEL places_kernel(WD_GRID_CONSTANT const Params p) {
  int64_t* out = p.out + 7 * place_in_grid(int(p.in[0]));
  out[0] = thread(), out[1] = simt::lane(), out[2] = simt::warp();
  out[3] = simt::block_x(), out[4] = simt::block_y();
  out[5] = simt::cluster_rank(), out[6] = simt::cluster_size();
}

// Three rows of out for each type, all in eighths.
template <typename T> WD_DEVICE void shuffles_of(const Params& p, int64_t*& out) {
  const int mine = thread(), from = int(p.in[kThreads]), mask = int(p.in[kThreads + 1]), by = int(p.in[kThreads + 2]);
  const T value = T(T(p.in[mine]) / T(8));
  out[mine] = int64_t(simt::shuffle(value, (from + mine) % kWarp) * 8);
  out[mine + kThreads] = int64_t(simt::shuffle_xor(value, mask) * 8);
  out[mine + 2 * kThreads] = int64_t(simt::shuffle_up(value, by) * 8);
  out += 3 * kThreads;
}

WD_KERNEL shuffles_kernel(WD_GRID_CONSTANT const Params p) {
  int64_t* out = p.out;
  shuffles_of<std::int32_t>(p, out);
  shuffles_of<std::uint32_t>(p, out);
  shuffles_of<float>(p, out);
  shuffles_of<std::int64_t>(p, out);
  shuffles_of<std::uint64_t>(p, out);
  shuffles_of<double>(p, out);
}

WD_KERNEL votes_kernel(WD_GRID_CONSTANT const Params p) {
  for (int round = 0; round < 4; ++round) {
    const bool vote = p.in[round * kThreads + thread()] != 0;
    int64_t* out = p.out + 4 * (round * kThreads + thread());
    out[0] = simt::ballot(vote);
    out[1] = simt::sync_count(vote);
    out[2] = simt::sync_and(vote);
    out[3] = simt::sync_or(vote);
  }
}

// Row r of out: what operation r found; the last row: what it left, in the first places.
WD_KERNEL atomics_kernel(WD_GRID_CONSTANT const Params p) {
  struct Cells {
    std::int32_t add, least, most;
    std::uint32_t wrapped, smallest, largest, bits, swapped;
    std::uint64_t sum, peak;
  };
  auto& cells = *reinterpret_cast<Cells*>(simt::shared_memory());
  if (thread() == 0) cells = {2147483647, 0, 0, 4294967295, 4294967295, 0, 0, 99, 1ull << 40, 1ull << 40};
  simt::sync();
  const int value = int(p.in[thread()]);
  const int64_t found[] = {simt::atomic_add(&cells.add, 1),
                           simt::atomic_min(&cells.least, value),
                           simt::atomic_max(&cells.most, value),
                           simt::atomic_add(&cells.wrapped, 1),
                           simt::atomic_min(&cells.smallest, std::uint32_t(value)),
                           simt::atomic_max(&cells.largest, std::uint32_t(value)),
                           simt::atomic_or(&cells.bits, 1u << simt::lane()),
                           simt::atomic_exchange(&cells.swapped, std::uint32_t(thread())),
                           int64_t(simt::atomic_add(&cells.sum, 1ull << 33)),
                           int64_t(simt::atomic_max(&cells.peak, (1ull << 40) + std::uint64_t(thread())))};
  for (int row = 0; row < 10; ++row) p.out[row * kThreads + thread()] = found[row];
  simt::sync();
  const int64_t left[] = {cells.add,     cells.least, cells.most,    cells.wrapped,      cells.smallest,
                          cells.largest, cells.bits,  cells.swapped, int64_t(cells.sum), int64_t(cells.peak)};
  if (thread() < 10) p.out[10 * kThreads + thread()] = left[thread()];
}

WD_KERNEL bits_kernel(WD_GRID_CONSTANT const Params p) {
  const auto bits = std::uint32_t(p.in[thread()]);
  int64_t* out = p.out + 3 * thread();
  out[0] = simt::popcount(bits), out[1] = simt::lowest_bit(bits), out[2] = simt::highest_bit(bits);
}

WD_KERNEL load_kernel(WD_GRID_CONSTANT const Params p) {
  const char* from = reinterpret_cast<const char*>(p.in) + 16 * thread() + p.fault;
  const simt::Bytes16 bytes = simt::load_streaming(reinterpret_cast<const simt::Bytes16*>(from));
  p.out[2 * thread()] = bytes.x | int64_t(bytes.y) << 32;
  p.out[2 * thread() + 1] = bytes.z | int64_t(bytes.w) << 32;
}

// Every thread reads what its neighbour wrote, round after round. Fault 1: no barrier after the write; 2: none after the read.
WD_KERNEL block_kernel(WD_GRID_CONSTANT const Params p) {
  auto* cells = reinterpret_cast<int*>(simt::shared_memory());
  int64_t sum = 0;
  for (int round = 0; round < 3; ++round) {
    cells[thread()] = round * 100 + thread();
    if (p.fault != 1) simt::sync();
    sum = 1000 * sum + cells[(thread() + 13) % kThreads];
    if (p.fault != 2) simt::sync();
  }
  p.out[thread()] = sum;
}

// The same between the lanes of a warp.
WD_KERNEL warp_kernel(WD_GRID_CONSTANT const Params p) {
  auto* cells = reinterpret_cast<int*>(simt::shared_memory()) + simt::warp() * kWarp;
  int64_t sum = 0;
  for (int round = 0; round < 3; ++round) {
    cells[simt::lane()] = round * 100 + simt::lane();
    if (p.fault != 1) simt::warp_sync();
    sum = 1000 * sum + cells[(simt::lane() + 13) % kWarp];
    if (p.fault != 2) simt::warp_sync();
  }
  p.out[thread()] = sum;
}

// The same between the blocks of a cluster, a write into the memory of the next and a read from that of the one before. Fault
// 1: no barrier before the first write, 2: none before the read, 3: none before the end.
WD_KERNEL cluster_kernel(WD_GRID_CONSTANT const Params p) {
  auto* cells = reinterpret_cast<int*>(simt::shared_memory());
  const int size = simt::cluster_size(), rank = simt::cluster_rank();
  if (p.fault != 1) simt::cluster_sync();
  simt::peer(cells, (rank + 1) % size)[thread()] = 100 * rank + thread();
  if (p.fault != 2) simt::cluster_sync();
  p.out[simt::block_x() * kThreads + thread()] = simt::peer(cells, (rank + size - 1) % size)[thread()];
  if (p.fault != 3) simt::cluster_sync();
}

// Fault 1: half of a block leaves out a barrier; 2: the halves meet in different ones; 3: one lane leaves out a shuffle; 4: a
// block of a cluster ends while the others wait; 5: lanes of a warp wait for each other, but one waits for the block.
WD_KERNEL diverging_kernel(WD_GRID_CONSTANT const Params p) {
  const bool half = thread() < kThreads / 2;
  if (p.fault == 1 && half) simt::sync();
  if (p.fault == 2) {
    if (half)
      simt::sync();
    else
      simt::sync();
  }
  if (p.fault == 3 && thread() != 40) simt::shuffle(1, 0);
  if (p.fault == 4 && simt::cluster_rank() != 1) simt::cluster_sync();
  if (p.fault == 5) {
    if (thread() > kWarp)
      simt::warp_sync();
    else
      simt::sync();
  }
  p.out[simt::block_x() * kThreads + thread()] = 1;
}

// Fault 1: a thread throws while the others wait; 2: a launch in a kernel; 3 and 4: a peer that is none; 5: one cell too far.
WD_KERNEL failing_kernel(WD_GRID_CONSTANT const Params p) {
  auto* cells = reinterpret_cast<int*>(simt::shared_memory());
  if (p.fault == 1 && thread() == 5) throw std::out_of_range("thrown in a kernel");
  if (p.fault == 2) simt::launch(places_kernel, {.blocks_x = 1}, p);
  if (p.fault == 3) simt::peer(cells, simt::cluster_size());
  if (p.fault == 4) simt::peer(p.out, 0);
  cells[thread() + (p.fault == 5)] = thread();
  simt::sync();
  p.out[thread()] = cells[thread()];
}

// Which block was when, for each block; and what an untouched byte of shared memory holds.
WD_KERNEL order_kernel(WD_GRID_CONSTANT const Params p) {
  if (thread() != 0) return;
  p.out[1 + 2 * simt::block_x()] = simt::atomic_add(p.out, 1);
  p.out[2 + 2 * simt::block_x()] = static_cast<unsigned char>(simt::shared_memory()[17]);
  simt::shared_memory()[17] = 0;
}

const std::map<std::string, void (*)(const Params)> kKernels{
    {"places", places_kernel},   {"shuffles", shuffles_kernel},   {"votes", votes_kernel},     {"atomics", atomics_kernel},
    {"bits", bits_kernel},       {"load", load_kernel},           {"block", block_kernel},     {"warp", warp_kernel},
    {"cluster", cluster_kernel}, {"diverging", diverging_kernel}, {"failing", failing_kernel}, {"order", order_kernel}};

}  // namespace
}  // namespace warpdraw::WARPDRAW_SIMT

// Launches a kernel; what went wrong, or nothing.
extern "C" __attribute__((visibility("default"))) const char* run(const char* kernel, long long blocks_x, long long blocks_y,
                                                                  int cluster, std::size_t shared, int fault,
                                                                  const std::int64_t* in, std::int64_t* out) {
  using namespace warpdraw;
  thread_local std::string complaint;
  complaint.clear();
  try {
    simt::launch(WARPDRAW_SIMT::kKernels.at(kernel), {blocks_x, blocks_y, cluster, shared},
                 WARPDRAW_SIMT::Params{in, out, fault});
  } catch (const std::exception& error) {
    complaint = error.what();
  }
  return complaint.c_str();
}

// kernel blocks cluster bytes fault, in fives: launches them and prints their complaints.
int main(int count, char** words) {
  static std::int64_t in[1024] = {1}, out[8192];
  for (int i = 1; i + 4 < count; i += 5)
    std::puts(run(words[i], std::atoi(words[i + 1]), 1, std::atoi(words[i + 2]), std::size_t(std::atoi(words[i + 3])),
                  std::atoi(words[i + 4]), in, out));
}
