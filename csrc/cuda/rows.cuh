// Runs a kernel's work on every row of a batch, on one of two paths. cluster: the blocks of a cluster keep a row in their
// shared memory, so that it is read once. split: a first kernel finds the maxima of the tiles, blocks sharing a row; a second
// one does the rest, a block for each row, and reads again only what it needs.
#pragma once
#include "cuda/launch.h"
#include "cuda/visit.cuh"

namespace warpdraw::WARPDRAW_SIMT {

template <typename T, typename Work> WD_KERNEL cluster_kernel(WD_GRID_CONSTANT const RowsParams<T, Work> p) {
  Visit<T, Work> visit(p, std::uint32_t(block_x()) / std::uint32_t(cluster_size()));
  if (!visit.memory || (Work::kAll && !visit.is_valid())) return p.work.reject(visit.team, visit.b);
  const std::int64_t bytes = maxima_bytes(tiles_of(p.vocab));
  auto* maxima = reinterpret_cast<float*>(shared_memory() + kScratchBytes);
  auto* resident = reinterpret_cast<T*>(shared_memory() + kScratchBytes + kRowsAtOnce<Work> * bytes);
  const int first = visit.team.rank * p.each;
  auto row = visit.row(first, p.each, maxima);
  visit.build_overlay(row);
  read_row(row, visit.memory, resident);
  // Where no list has to be looked through, the row is on its way before its parameters are.
  if (!Work::kAll && !visit.is_valid()) return p.work.reject(visit.team, visit.b);
  auto draft = visit.draft(first, p.each, reinterpret_cast<float*>(shared_memory() + kScratchBytes + bytes));
  visit.read(draft);
  visit.work(row, draft);
  visit.team.wait();  // others may still read what is here
}

template <typename T, typename Work> WD_KERNEL maxima_kernel(WD_GRID_CONSTANT const RowsParams<T, Work> p) {
  const std::uint32_t blocks = std::uint32_t(tiles_of(p.vocab) + p.each - 1) / std::uint32_t(p.each);
  const std::uint32_t block = std::uint32_t(block_x());
  Visit<T, Work> visit(p, block / blocks);
  if (!visit.memory || (Work::kAll && !visit.is_valid())) return;
  const int first = int(block % blocks) * p.each;
  auto row = visit.row(first, p.each, reinterpret_cast<float*>(visit.room + p.plan.maxima));
  visit.build_overlay(row);
  read_row(row, visit.memory, static_cast<T*>(nullptr));
  if (!WithDrafts<Work> || (!Work::kAll && !visit.is_valid())) return;
  auto draft = visit.draft(first, p.each, reinterpret_cast<float*>(visit.room + p.plan.draft_maxima));
  visit.read(draft);
}

template <typename T, typename Work> WD_KERNEL finish_kernel(WD_GRID_CONSTANT const RowsParams<T, Work> p) {
  Visit<T, Work> visit(p, block_x());
  wait_for_previous_kernel();
  if (!visit.is_valid()) return p.work.reject(visit.team, visit.b);
  const int tiles = tiles_of(p.vocab);
  // Where there is room, the maxima are looked at in shared memory.
  const auto near = [&](std::int64_t place, int row) {
    auto* found = reinterpret_cast<float*>(visit.room + place);
    if (!p.shares_maxima) return found;
    auto* maxima = reinterpret_cast<float*>(shared_memory() + kScratchBytes + row * maxima_bytes(tiles));
    for (int tile = thread(); tile < tiles; tile += kThreads) maxima[tile] = found[tile];
    return maxima;
  };
  auto row = visit.row(0, tiles, near(p.plan.maxima, 0));
  auto draft = visit.draft(0, tiles, nullptr);
  if constexpr (WithDrafts<Work>)
    if (visit.is_there(draft)) draft.maxima = near(p.plan.draft_maxima, 1);
  visit.work(row, draft);
}

// How many blocks of a cluster share a row; 0 if it does not fit on chip. Two blocks on a multiprocessor, so that one row is
// loaded while another is worked on; more blocks for few rows.
template <typename T> int cluster_for(const DeviceInfo& device, std::int64_t rows, int tiles, int at_once) {
  const auto bytes = [&](int blocks) {
    return kScratchBytes + at_once * maxima_bytes(tiles) + tiles_for_each(tiles, blocks) * kTile * std::int64_t(sizeof(T));
  };
  constexpr std::int64_t kReserved = 1024;  // of a block's shared memory, by the system
  const auto smallest = [&](std::int64_t room) {
    int blocks = 1;
    while (blocks <= device.cluster && bytes(blocks) > room) blocks *= 2;
    return blocks <= device.cluster ? blocks : 0;
  };
  int blocks = smallest(std::int64_t(device.shared_per_multiprocessor) / 2 - kReserved);
  if (blocks == 0) blocks = smallest(std::int64_t(device.shared));
  while (blocks > 0 && blocks < 8 && rows * blocks * 2 <= device.multiprocessors && tiles >= 8 * blocks) blocks *= 2;
  return blocks;
}

// `reads_again` says whether the work may go through whole rows a second time: a cluster has them on chip.
template <typename T, typename Work>
void run_rows(const Queue& queue, const Tensor& logits, const Parameters* in, const Work& work, bool reads_again) {
  const DeviceInfo& device = device_info(queue.device);
  const std::int64_t vocab = logits.shape[logits.ndim - 1];
  std::int64_t rows = logits.shape[0];
  if constexpr (OfNodes<Work>) rows = work.places();
  constexpr int kAtOnce = kRowsAtOnce<Work>;
  const int tiles = tiles_of(vocab);
  const int blocks = device.capability >= 90 ? cluster_for<T>(device, rows, tiles, kAtOnce) : 0;
  if (queue.path == Path::cluster && blocks == 0)
    throw std::invalid_argument(device.capability < 90
                                    ? "logits: the cluster path needs a GPU of compute capability 9.0 or later"
                                    : "logits: expected rows that fit in the shared memory of a cluster, got V = " +
                                          std::to_string(vocab) + "; the split path has no such limit");
  // Clusters wait for each other at every step, so they do best while all of them run at once. Beyond that a step of many rows
  // hides behind the reading of others.
  const bool at_once = rows * blocks <= 2 * std::int64_t(device.multiprocessors);
  const bool clusters = queue.path == Path::automatic ? blocks > 0 && (at_once || reads_again) : queue.path == Path::cluster;
  if (queue.ran) *queue.ran = clusters ? Path::cluster : Path::split;
  if (rows == 0) return;
  RowsParams<T, Work> p{.logits = decltype(p.logits)(logits),
                        .vocab = vocab,
                        .work = work,
                        .plan = RowRoom(in, vocab, !clusters),
                        .room = nullptr,
                        .each = 0,
                        .shares_maxima = true};
  if constexpr (WithDrafts<Work>) {
    if (!clusters) p.plan.draft_maxima = p.plan.place(maxima_bytes(tiles));
    p.plan.tried = p.plan.place(work.room());
  }
  if (p.plan.bytes) p.room = static_cast<char*>(queue.room(queue.context, std::size_t(rows * p.plan.bytes)));
  if (clusters) {
    p.each = tiles_for_each(tiles, blocks);
    const std::int64_t shared = kScratchBytes + kAtOnce * maxima_bytes(tiles) + p.each * kTile * std::int64_t(sizeof(T));
    return launch(cluster_kernel<T, Work>,
                  {.blocks_x = rows * blocks, .cluster = blocks, .shared = std::size_t(shared), .stream = queue.stream}, p);
  }
  // As many blocks as the device holds at a time, but no more than a row has groups of tiles to give to its warps.
  const std::int64_t wanted = (8 * std::int64_t(device.multiprocessors) + rows - 1) / rows, most = (tiles + 31) / 32;
  p.each = tiles_for_each(tiles, int(wanted < most ? wanted : most));
  launch(maxima_kernel<T, Work>,
         {.blocks_x = rows * ((tiles + p.each - 1) / p.each), .shared = std::size_t(kScratchBytes), .stream = queue.stream}, p);
  p.shares_maxima = kScratchBytes + kAtOnce * maxima_bytes(tiles) <= std::int64_t(device.shared);
  launch(finish_kernel<T, Work>,
         {.blocks_x = rows,
          .shared = std::size_t(kScratchBytes + (p.shares_maxima ? kAtOnce * maxima_bytes(tiles) : 0)),
          .stream = queue.stream,
          .follows = true},
         p);
}

}  // namespace warpdraw::WARPDRAW_SIMT
