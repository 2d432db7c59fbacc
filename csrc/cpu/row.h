// A row of logits seen as tiles of 64 tokens, and the maximum of each tile from a single pass over the row.
#pragma once
#include <vector>

#include "cpu/overlay.h"
#include "cpu/threads.h"

namespace warpdraw::WARPDRAW_ISA {

// A tile's maximum in each of as many tiles as there are lanes is found at once; a row is split among threads by such groups.
inline constexpr std::int64_t kGroup = kLanes;

template <typename T> struct Row {
  const T* logits;
  std::int64_t vocab, tiles;
  const float* maxima;     // padded with -inf to whole vectors; NaN counts as -inf
  float x_max;             // of the candidates
  const Overlay* overlay;  // null if the row is as it is in memory

  Tile read(std::int64_t tile) const {
    Tile out = read_tile(logits, vocab, tile);
    if (overlay) overlay->apply(out, tile);
    return out;
  }
  float logit(std::uint32_t token) const {
    if (!overlay) return to_float(logits[token]);
    alignas(64) float x[kTile];
    const Tile tile = read(token / kTile);
    memcpy(x, &tile, sizeof x);
    return x[token % kTile];
  }

  // Calls visit(tile) for each tile whose maximum is at least x.
  template <typename Visit> void for_tiles_reaching(float x, Visit visit) const {
    for (std::int64_t tile = 0; tile < tiles; tile += kLanes)
      for (Mask mask = at_least(load(maxima + tile), floats(x)); mask; mask &= mask - 1) visit(tile + __builtin_ctz(mask));
  }
  std::int64_t tiles_reaching(float x) const {
    std::int64_t count = 0;
    for (std::int64_t tile = 0; tile < tiles; tile += kLanes)
      count += __builtin_popcount(at_least(load(maxima + tile), floats(x)));
    return count;
  }

  void write_tile(float* out, std::int64_t tile, const Tile& values) const {
    const std::int64_t left = vocab - tile * kTile;
    if (left >= kTile)
      memcpy(out + tile * kTile, &values, sizeof values);
    else
      memcpy(out + tile * kTile, &values, std::size_t(left) * sizeof(float));
  }
  // Writes f(tile's logits, tile) for every tile.
  template <typename F> void write(float* out, F f) const {
    in_parts([&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t tile = begin; tile < end; ++tile) {
        write_tile(out, tile, f(read(tile), tile));
      }
    });
  }

  // How many parts of the row pay when threads share it.
  std::int64_t parts() const {
    const std::int64_t bytes = vocab * std::int64_t(sizeof(T));
    return omp_in_parallel()
               ? 1
               : std::max<std::int64_t>(1, std::min<std::int64_t>(bytes / kBytesPerThread, omp_get_max_threads()));
  }
  // Calls work(first tile, last tile) for each part, over threads if there are several.
  template <typename Work> void in_parts(Work work) const {
    const std::int64_t count = parts(), groups = (tiles + kGroup - 1) / kGroup, each = (groups + count - 1) / count * kGroup;
    if (count == 1) return work(0, tiles);
    in_parallel(count, count * kBytesPerThread,
                [&](std::int64_t part) { work(std::min(part * each, tiles), std::min((part + 1) * each, tiles)); });
  }
};

// The maxima of a row that nothing has edited yet; its tiles may be restricted.
template <typename T, bool kRestricted>
void find_maxima_between(const Row<T>& row, float* maxima, std::int64_t begin, std::int64_t end) {
  std::int64_t tile = begin;
  for (const std::int64_t whole = std::min(end, row.vocab / kTile); tile + kGroup <= whole; tile += kGroup) {
    Floats highest[kGroup];
    for (int i = 0; i < kGroup; ++i) {
      const T* logits = row.logits + (tile + i) * kTile;
      Tile here;
      for (int j = 0; j < kVectors; ++j) here.x[j] = load(logits + j * kLanes);
      if constexpr (kRestricted) Overlay::restrict_tile(here, row.overlay->allowed(tile + i));
      highest[i] = lane_maxima(here);
    }
    const Floats found = maxima_of<kGroup>(highest);
    memcpy(maxima + tile, &found, sizeof found);
  }
  for (; tile < end; tile += kGroup) {
    Floats highest[kGroup];
    for (int i = 0; i < kGroup; ++i) highest[i] = tile + i < end ? lane_maxima(row.read(tile + i)) : floats(-HUGE_VALF);
    const Floats found = maxima_of<kGroup>(highest);
    memcpy(maxima + tile, &found, sizeof found);
  }
}

template <typename T> void find_maxima(const Row<T>& row, float* maxima) {
  row.in_parts([&](std::int64_t begin, std::int64_t end) {
    if (row.overlay)
      find_maxima_between<T, true>(row, maxima, begin, end);
    else
      find_maxima_between<T, false>(row, maxima, begin, end);
  });
}

inline float largest_of(const float* maxima, std::int64_t tiles) {
  Floats highest = floats(-HUGE_VALF);
  for (std::int64_t tile = 0; tile < tiles; tile += kLanes) highest = max(load(maxima + tile), highest);
  return largest(highest);
}

// Room for one row and what belongs to it.
struct RowSpace {
  std::vector<float> maxima, marked;
  Overlay overlay;
};

// Calls use(row) with a row whose logits are finite or -inf; where +inf occurs, with a row that marks those tokens.
template <typename T, typename Use> void use_finite(Row<T>& row, RowSpace& space, Use use) {
  row.x_max = largest_of(row.maxima, row.tiles);
  if (row.x_max <= kLargest) return use(row);
  space.marked.resize(std::size_t(row.tiles * kTile));
  for (std::int64_t tile = 0; tile < row.tiles; ++tile) {
    const Tile x = row.read(tile);
    memcpy(&space.marked[std::size_t(tile * kTile)], &x, sizeof x);
  }
  for (float& x : space.marked) x = indicator_of_infinity(x);
  Row<float> marked{space.marked.data(), row.vocab, row.tiles, row.maxima, 0.0f, nullptr};
  find_maxima(marked, space.maxima.data());
  use(marked);
}

template <typename T> Row<T> plain_row(const T* logits, std::int64_t vocab, RowSpace& space, const Overlay* overlay = nullptr) {
  const std::int64_t tiles = (vocab + kTile - 1) / kTile;
  if (std::int64_t(space.maxima.size()) < tiles + kLanes) space.maxima.resize(std::size_t(tiles + kLanes));
  const Row<T> row{logits, vocab, tiles, space.maxima.data(), 0.0f, overlay};
  find_maxima(row, space.maxima.data());
  return row;
}

// The row as it is in memory.
template <typename T, typename Use> void with_row(const T* logits, std::int64_t vocab, RowSpace& space, Use use) {
  Row<T> row = plain_row(logits, vocab, space);
  use_finite(row, space, use);
}

// The row with its restrictions, bias and penalties.
template <typename T, typename Use> void with_row(const T* logits, const Edits& edits, RowSpace& space, Use use) {
  if (!edits.changes_row()) return with_row(logits, edits.vocab, space, use);
  const std::int64_t tiles = (edits.vocab + kTile - 1) / kTile;
  space.overlay.restrict_to(edits, tiles);
  Row<T> row = plain_row(logits, edits.vocab, space, space.overlay.restricts() ? &space.overlay : nullptr);
  row.overlay = &space.overlay;
  space.overlay.edit(
      edits, tiles, [&](std::int64_t id) { return to_float(logits[id]); }, space.maxima.data(),
      [&](std::int64_t tile) { return largest(lane_maxima(row.read(tile))); });
  use_finite(row, space, use);
}

}  // namespace warpdraw::WARPDRAW_ISA
