// Runs a kernel's work on every row of a batch, on one of two paths. cluster: the blocks of a cluster keep a row in their
// shared memory, so that it is read once. split: a first kernel finds the maxima of the tiles, blocks sharing a row; a second
// one does the rest, a block for each row, and reads again only what it needs.
#pragma once
#include "core/filter.h"
#include "cuda/launch.h"
#include "cuda/row.cuh"

namespace warpdraw::WARPDRAW_SIMT {

// What a kernel gets. Work says what belongs to a row, edits(b, vocab) and filter(b), and what becomes of it: run(row, b,
// filter), or reject(team, b) if there is nothing to draw from.
template <typename T, typename Work> struct RowsParams {
  View<const T, 2> logits;
  Work work;
  RowRoom plan;
  char* room;
  int each;            // tiles of a block
  bool shares_maxima;  // whether they fit in shared memory
};

WD_HD inline std::int64_t round_up(std::int64_t value, std::int64_t to) { return (value + to - 1) / to * to; }
inline constexpr std::int64_t kScratchBytes = (sizeof(Scratch) + 15) / 16 * 16;
WD_HD inline std::int64_t maxima_bytes(std::int64_t tiles) { return round_up(tiles * std::int64_t(sizeof(float)), 16); }

// One row in a kernel, as far as both paths treat it alike.
template <typename T, typename Work> struct Visit {
  const RowsParams<T, Work>& p;
  Scratch& scratch;
  Team team;
  std::int64_t b;
  Edits edits;
  Filter filter;
  char* room;

  WD_DEVICE Visit(const RowsParams<T, Work>& params, std::int64_t row)
      : p(params),
        scratch(*reinterpret_cast<Scratch*>(shared_memory())),
        team(scratch.team),
        b(row),
        edits(params.work.edits(row, params.logits.shape[1])),
        filter(params.work.filter(row)),
        room(params.room + row * params.plan.bytes) {}

  WD_DEVICE bool is_valid() const {
    if constexpr (Work::kAll) return filter.valid && edits.valid && block_finds_valid(edits, p.logits.shape[1]);
    return filter.valid && edits.valid;
  }
  WD_DEVICE const T* memory() const { return p.logits.row(b); }

  using Rows = Row<T, Work::kAll>;
  // For a block whose tiles begin at `first`.
  WD_DEVICE Rows row(int first, int each, float* maxima) {
    const std::int64_t size = p.logits.shape[1];
    const int tiles = tiles_of(size), end = first + each;
    Rows row{.team = team,
             .scratch = scratch,
             .logits = memory(),
             .origin = 0,
             .size = size,
             .vocab = edits.vocab >= 0 && edits.vocab <= size ? edits.vocab : 0,
             .each = each,
             .tiles = tiles,
             .first = first < tiles ? first : tiles,
             .last = end < tiles ? end : tiles,
             .maxima = maxima,
             .overlay = {}};
    if constexpr (Work::kAll) row.overlay = overlay_of(edits, p.plan, room);
    return row;
  }
  WD_DEVICE void build_overlay(const Rows& row) {
    if constexpr (Work::kAll)
      if (row.overlay.changes()) OverlayBuilder<T>(team, edits, memory(), row.overlay, row.first, row.last).build();
  }
  WD_DEVICE void work(Rows& row) {
    share_maxima(row);
    if (!(row.x_max >= -kLargest)) return p.work.reject(team, b);
    mark_infinity(row);
    p.work.run(row, b, filter);
  }
};

template <typename T, typename Work> WD_KERNEL cluster_kernel(WD_GRID_CONSTANT const RowsParams<T, Work> p) {
  Visit<T, Work> visit(p, std::uint32_t(block_x()) / std::uint32_t(cluster_size()));
  if (Work::kAll && !visit.is_valid()) return p.work.reject(visit.team, visit.b);
  auto* maxima = reinterpret_cast<float*>(shared_memory() + kScratchBytes);
  auto* resident = reinterpret_cast<T*>(shared_memory() + kScratchBytes + maxima_bytes(tiles_of(p.logits.shape[1])));
  auto row = visit.row(visit.team.rank * p.each, p.each, maxima);
  visit.build_overlay(row);
  read_row(row, visit.memory(), resident);
  // Where no list has to be looked through, the row is on its way before its parameters are.
  if (!Work::kAll && !visit.is_valid()) return p.work.reject(visit.team, visit.b);
  visit.work(row);
  visit.team.wait();  // others may still read what is here
}

template <typename T, typename Work> WD_KERNEL maxima_kernel(WD_GRID_CONSTANT const RowsParams<T, Work> p) {
  const std::uint32_t blocks = std::uint32_t(tiles_of(p.logits.shape[1]) + p.each - 1) / std::uint32_t(p.each);
  const std::uint32_t block = std::uint32_t(block_x());
  Visit<T, Work> visit(p, block / blocks);
  if (Work::kAll && !visit.is_valid()) return;
  auto row = visit.row(int(block % blocks) * p.each, p.each, reinterpret_cast<float*>(visit.room + p.plan.maxima));
  visit.build_overlay(row);
  read_row(row, visit.memory(), static_cast<T*>(nullptr));
}

template <typename T, typename Work> WD_KERNEL finish_kernel(WD_GRID_CONSTANT const RowsParams<T, Work> p) {
  Visit<T, Work> visit(p, block_x());
  wait_for_previous_kernel();
  if (!visit.is_valid()) return p.work.reject(visit.team, visit.b);
  const int tiles = tiles_of(p.logits.shape[1]);
  auto* found = reinterpret_cast<float*>(visit.room + p.plan.maxima);
  auto* maxima = p.shares_maxima ? reinterpret_cast<float*>(shared_memory() + kScratchBytes) : found;
  auto row = visit.row(0, tiles, maxima);
  for (int tile = thread(); tile < tiles && p.shares_maxima; tile += kThreads) maxima[tile] = found[tile];
  visit.work(row);
}

// How many blocks of a cluster share a row; 0 if it does not fit on chip. Two blocks on a multiprocessor, so that one row is
// loaded while another is worked on; more blocks for few rows.
template <typename T> int cluster_for(const DeviceInfo& device, std::int64_t rows, int tiles) {
  const auto bytes = [&](int blocks) {
    return kScratchBytes + maxima_bytes(tiles) + tiles_for_each(tiles, blocks) * kTile * std::int64_t(sizeof(T));
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
void run_rows(const Queue& queue, const Tensor& logits, const Inputs* in, const Work& work, bool reads_again) {
  const DeviceInfo& device = device_info(queue.device);
  const View<const T, 2> view(logits);
  const std::int64_t rows = view.shape[0], vocab = view.shape[1];
  const int tiles = tiles_of(vocab);
  const int blocks = device.capability >= 90 ? cluster_for<T>(device, rows, tiles) : 0;
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
  RowsParams<T, Work> p{
      .logits = view, .work = work, .plan = RowRoom(in, vocab, !clusters), .room = nullptr, .each = 0, .shares_maxima = true};
  if (p.plan.bytes) p.room = static_cast<char*>(queue.room(queue.context, std::size_t(rows * p.plan.bytes)));
  if (clusters) {
    p.each = tiles_for_each(tiles, blocks);
    const std::int64_t shared = kScratchBytes + maxima_bytes(tiles) + p.each * kTile * std::int64_t(sizeof(T));
    return launch(cluster_kernel<T, Work>,
                  {.blocks_x = rows * blocks, .cluster = blocks, .shared = std::size_t(shared), .stream = queue.stream}, p);
  }
  // As many blocks as the device holds at a time, but no more than a row has groups of tiles to give to its warps.
  const std::int64_t wanted = (8 * std::int64_t(device.multiprocessors) + rows - 1) / rows, most = (tiles + 31) / 32;
  p.each = tiles_for_each(tiles, int(wanted < most ? wanted : most));
  launch(maxima_kernel<T, Work>,
         {.blocks_x = rows * ((tiles + p.each - 1) / p.each), .shared = std::size_t(kScratchBytes), .stream = queue.stream}, p);
  p.shares_maxima = kScratchBytes + maxima_bytes(tiles) <= std::int64_t(device.shared);
  launch(finish_kernel<T, Work>,
         {.blocks_x = rows,
          .shared = std::size_t(kScratchBytes + (p.shares_maxima ? maxima_bytes(tiles) : 0)),
          .stream = queue.stream,
          .follows = true},
         p);
}

}  // namespace warpdraw::WARPDRAW_SIMT
