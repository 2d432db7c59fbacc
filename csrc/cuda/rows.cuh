// Runs a kernel's work on every row of a batch, on one of two paths. cluster: the blocks of a cluster keep a row in their
// shared memory, so that it is read once. split: a first kernel finds the maxima of the tiles, blocks sharing a row; a second
// one does the rest, a block for each row, and reads again only what it needs.
#pragma once
#include "cuda/launch.h"
#include "cuda/visit.cuh"

namespace warpdraw::WARPDRAW_SIMT {

// Room of a block of a cluster, by offsets in bytes.
template <typename T, typename Work> struct BlockRoom {
  std::int64_t resident, ring, bytes;

  WD_HD BlockRoom(int tiles, int each, bool keeps)
      : resident(kScratchBytes + kRowsAtOnce<Work> * maxima_bytes(tiles)),
        ring(resident + (keeps ? each * kTile * std::int64_t(sizeof(T)) : 0)),
        bytes(ring + Ring::kBytes) {}
};

// Asks for the beginning of a row that will be read next, where it is read through a ring.
template <typename T, typename Work>
WD_DEVICE void ask_ahead(const RowsParams<T, Work>& p, std::int64_t row, int rank, Ring& ring) {
  if (!Ring::kExists || row >= p.rows) return;
  const T* memory = memory_of(p.logits, place_of(p.work, row));
  if (!memory || !starts_at_16_bytes(memory)) return;
  const int tiles = tiles_of(p.vocab), first = rank * p.each, last = first + p.each < tiles ? first + p.each : tiles;
  const auto* from = reinterpret_cast<const Bytes16*>(memory + std::int64_t(first) * kTile);
  ring.ask_ahead(from, whole_tiles(p.vocab, first, last) * int(kTile * sizeof(T) / 16));
}

template <typename T, typename Work> WD_DEVICE void cluster_row(const RowsParams<T, Work>& p, const BlockRoom<T, Work>& place,
                                                                std::int64_t b, std::int64_t next, Ring& ring) {
  Visit<T, Work> visit(p, b);
  if (!visit.memory || (Work::kAll && !visit.is_valid())) return p.work.reject(visit.team, visit.b);
  auto* maxima = reinterpret_cast<float*>(shared_memory() + kScratchBytes);
  auto* resident = p.resident ? reinterpret_cast<T*>(shared_memory() + place.resident) : nullptr;
  const int first = visit.team.rank * p.each;
  auto row = visit.row(first, p.each, maxima);
  visit.build_overlay(row);
  read_row(row, visit.memory, resident, &ring);
  ask_ahead(p, next, visit.team.rank, ring);
  // Where no list has to be looked through, the row is on its way before its parameters are.
  if (kShape.until == Until::read || (!Work::kAll && !visit.is_valid())) {
    sync();  // the next row's maxima come after the last of this one
    return p.work.reject(visit.team, visit.b);
  }
  auto draft =
      visit.draft(first, p.each, reinterpret_cast<float*>(shared_memory() + kScratchBytes + maxima_bytes(tiles_of(p.vocab))));
  visit.read(draft);
  visit.work(row, draft);
  visit.team.wait();  // others may still read what is here
}

// A cluster for each row, or as many as run at once, each of which takes its rows in turn.
template <typename T, typename Work> WD_KERNEL cluster_kernel(WD_GRID_CONSTANT const RowsParams<T, Work> p) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900  // never launched there, and so no part of a wheel that has little room
  (void)p;
#else
  const BlockRoom<T, Work> place(tiles_of(p.vocab), p.each, p.resident);
  Ring ring(shared_memory() + place.ring);
  std::uint32_t b = std::uint32_t(block_x()) / std::uint32_t(cluster_size());
  for (; b < p.rows; b += p.clusters) cluster_row(p, place, b, b + std::int64_t(p.clusters), ring);
  ring.drain();
#endif
}

template <typename T, typename Work> WD_KERNEL maxima_kernel(WD_GRID_CONSTANT const RowsParams<T, Work> p) {
  let_next_kernel_start();
  const std::uint32_t blocks = std::uint32_t(tiles_of(p.vocab) + p.each - 1) / std::uint32_t(p.each);
  const std::uint32_t block = std::uint32_t(block_x());
  Visit<T, Work> visit(p, block / blocks);
  if (!visit.memory || (Work::kAll && !visit.is_valid())) return;
  const int first = int(block % blocks) * p.each;
  auto row = visit.row(first, p.each, reinterpret_cast<float*>(visit.room + p.plan.maxima));
  visit.build_overlay(row);
  Ring ring(shared_memory() + kScratchBytes);
  read_row(row, visit.memory, static_cast<T*>(nullptr), &ring);
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

inline constexpr std::int64_t kReservedBytes = 1024;  // of a block's shared memory, by the system

// How one launch shares the rows out over clusters.
struct Clusters {
  int blocks = 0;  // that share a row; 0 if it does not fit on chip
  bool resident = true, persistent = false;
};

// Two blocks on a multiprocessor, so that one row is loaded while another is worked on; more blocks for few rows.
template <typename T, typename Work> Clusters clusters_for(const DeviceInfo& device, std::int64_t rows, int tiles) {
  const auto bytes = [&](int blocks) { return BlockRoom<T, Work>(tiles, tiles_for_each(tiles, blocks), true).bytes; };
  const auto smallest = [&](std::int64_t room) {
    int blocks = 1;
    while (blocks <= device.cluster && bytes(blocks) > room) blocks *= 2;
    return blocks <= device.cluster ? blocks : 0;
  };
  if (device.capability < 90) return {};
  int blocks = smallest(std::int64_t(device.shared_per_multiprocessor) / 2 - kReservedBytes);
  if (blocks == 0) blocks = smallest(std::int64_t(device.shared));
  while (blocks > 0 && blocks < 8 && rows * blocks * 2 <= device.multiprocessors && tiles >= 8 * blocks) blocks *= 2;
  return {blocks};
}

// What a tuner wants instead.
template <typename T, typename Work>
Clusters as_wished(const Wish& wish, Clusters by_rule, const DeviceInfo& device, int tiles) {
  Clusters wanted = by_rule;
  if (wish.cluster) wanted.blocks = wish.cluster;
  if (wish.resident >= 0) wanted.resident = wish.resident;
  if (wish.persistent >= 0) wanted.persistent = wish.persistent;
  if (device.capability < 90) throw std::invalid_argument("cluster: expected a GPU of compute capability 9.0 or later");
  if (wanted.blocks > device.cluster)
    throw std::invalid_argument("cluster: expected at most " + std::to_string(device.cluster) + " blocks on this device, got " +
                                std::to_string(wanted.blocks));
  const BlockRoom<T, Work> room(tiles, tiles_for_each(tiles, wanted.blocks), wanted.resident);
  if (room.bytes > std::int64_t(device.shared))
    throw std::invalid_argument("cluster: expected blocks of at most " + std::to_string(device.shared) +
                                " bytes of shared memory, but this row in " + std::to_string(wanted.blocks) + " needs " +
                                std::to_string(room.bytes) + " for each");
  return wanted;
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
  const Wish& wish = queue.wish;
  const Path path = queue.path == Path::automatic && wish.split ? Path::split : queue.path;
  const bool wished = path != Path::split && (wish.cluster || wish.resident >= 0 || wish.persistent >= 0);
  Clusters shared = clusters_for<T, Work>(device, rows, tiles);
  if (wished && (shared.blocks || wish.cluster)) shared = as_wished<T, Work>(wish, shared, device, tiles);
  const int blocks = shared.blocks;
  if (path == Path::cluster && blocks == 0)
    throw std::invalid_argument(device.capability < 90
                                    ? "logits: the cluster path needs a GPU of compute capability 9.0 or later"
                                    : "logits: expected rows that fit in the shared memory of a cluster, got V = " +
                                          std::to_string(vocab) + "; the split path has no such limit");
  // Clusters wait for each other at every step, so they do best while all of them run at once. Beyond that a step of many rows
  // hides behind the reading of others.
  const bool at_once = rows * blocks <= 2 * std::int64_t(device.multiprocessors);
  const bool clusters =
      path == Path::cluster || (path == Path::automatic && blocks > 0 && (at_once || reads_again || wish.cluster));
  if (queue.ran) *queue.ran = clusters ? Path::cluster : Path::split;
  if (rows == 0) return;
  RowsParams<T, Work> p{.logits = decltype(p.logits)(logits),
                        .vocab = vocab,
                        .work = work,
                        .plan = RowRoom(in, vocab, !clusters),
                        .room = nullptr,
                        .each = 0,
                        .shares_maxima = true,
                        .rows = rows,
                        .resident = shared.resident,
                        .clusters = 0};
  if constexpr (WithDrafts<Work>) {
    if (!clusters) p.plan.draft_maxima = p.plan.place(maxima_bytes(tiles));
    p.plan.tried = p.plan.place(work.room());
  }
  if (p.plan.bytes) p.room = static_cast<char*>(queue.room(queue.context, std::size_t(rows * p.plan.bytes)));
  if (clusters) {
    p.each = tiles_for_each(tiles, blocks);
    const std::int64_t bytes = BlockRoom<T, Work>(tiles, p.each, shared.resident).bytes;
    const std::int64_t fitting = std::int64_t(device.shared_per_multiprocessor) / (bytes + kReservedBytes);
    const std::int64_t at_a_time = device.multiprocessors * (fitting < kBlocks ? fitting : kBlocks) / blocks;
    p.clusters = std::uint32_t(!shared.persistent || rows < at_a_time ? rows : at_a_time > 1 ? at_a_time : 1);
    return launch(cluster_kernel<T, Work>,
                  {.blocks_x = std::int64_t(p.clusters) * blocks,
                   .cluster = blocks,
                   .shared = std::size_t(bytes),
                   .stream = queue.stream},
                  p);
  }
  // As many blocks as the device holds at a time, but no more than a row has groups of tiles to give to its warps.
  constexpr std::int64_t kReading = 1024 / kThreads;  // on a multiprocessor: what the registers of this kernel allow
  std::int64_t wanted = kReading * device.multiprocessors / rows;
  const std::int64_t most = (tiles + 31) / 32;
  wanted = wanted < 1 ? 1 : wanted < most ? wanted : most;
  p.each = tiles_for_each(tiles, int(wanted));
  launch(maxima_kernel<T, Work>,
         {.blocks_x = rows * ((tiles + p.each - 1) / p.each),
          .shared = std::size_t(kScratchBytes + Ring::kBytes),
          .stream = queue.stream},
         p);
  if (kShape.until == Until::read) return;
  p.shares_maxima = kScratchBytes + kAtOnce * maxima_bytes(tiles) <= std::int64_t(device.shared);
  launch(finish_kernel<T, Work>,
         {.blocks_x = rows,
          .shared = std::size_t(kScratchBytes + (p.shares_maxima ? kAtOnce * maxima_bytes(tiles) : 0)),
          .stream = queue.stream,
          .follows = true},
         p);
}

}  // namespace warpdraw::WARPDRAW_SIMT
