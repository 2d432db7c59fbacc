// The draw: the tile with the largest mass / E, then the token with the largest mass / E in it.
#pragma once
#include <vector>

#include "cpu/tiles.h"

namespace warpdraw::WARPDRAW_ISA {

struct RaceWorkspace {
  std::vector<std::uint32_t> tile;
  std::vector<float> maximum, noise, bound;
};

WD_INLINE Floats keys_of(Floats mass, Floats noise) { return mass / noise; }

template <typename T>
std::uint32_t race_tokens(const Row<T>& row, std::int64_t tile, float scale, Boundary boundary, const Noise& noise) {
  const Tile w = kept_weights(row.read(tile), tile, row.x_max, scale, boundary);
  float best = 0.0f;
  std::uint32_t winner = 0;
  for (int i = 0; i < kVectors; ++i) {
    const std::uint32_t first = std::uint32_t(tile * kTile + i * kLanes);
    const Floats keys = keys_of(masses(w.x[i]), exponentials(noise_bits(noise, Stream::token, lane_index() + first)));
    const float largest_key = largest(keys);
    if (largest_key > best) best = largest_key, winner = first + __builtin_ctz(equal(keys, floats(best)));
  }
  return winner;
}

// Only tiles that could win are read: a tile weighs at least what its largest token does, and at most 64 times that.
template <typename T>
std::uint32_t race(const Row<T>& row, float scale, Boundary boundary, const Noise& noise, RaceWorkspace& space) {
  const std::size_t room = std::size_t(row.tiles) + 2 * kLanes;
  if (space.tile.size() < room)
    space.tile.resize(room), space.maximum.resize(room), space.noise.resize(room), space.bound.resize(room);
  std::size_t count = 0;
  for (std::int64_t tile = 0; tile < row.tiles; tile += kLanes) {
    const Floats maxima = load(row.maxima + tile);
    const Mask mask = at_least(maxima, floats(boundary.x));
    compress_store(&space.maximum[count], mask, maxima);
    compress_store(&space.tile[count], mask, lane_index() + std::uint32_t(tile));
    count += std::size_t(__builtin_popcount(mask));
  }
  Floats certain = floats(0.0f);  // the largest key that some tile is known to reach
  for (std::size_t i = 0; i < count; i += kLanes) {
    Words tile;
    memcpy(&tile, &space.tile[i], sizeof tile);
    const Floats maximum = load(&space.maximum[i]);
    const Floats e = exponentials(noise_bits(noise, Stream::tile, tile));
    const Floats least = keys_of(masses(weights((maximum - row.x_max) * scale)), e);
    memcpy(&space.noise[i], &e, sizeof e);
    const Floats most = least * float(kTile);
    memcpy(&space.bound[i], &most, sizeof most);
    const Mask whole = above(maximum, floats(boundary.x)) & ((count - i >= kLanes ? 1u << kLanes : 1u << (count - i)) - 1);
    certain = max(keep(whole, least), certain);
  }
  float best = 0.0f;
  const float threshold = largest(certain);
  std::int64_t winner = -1;
  for (std::size_t i = 0; i < count; ++i) {
    if (space.bound[i] < threshold || space.bound[i] < best) continue;
    const Tile w = kept_weights(row.read(space.tile[i]), space.tile[i], row.x_max, scale, boundary);
    const float key = race_key(mass_sum(w.x, kVectors), space.noise[i]);
    if (key > best) best = key, winner = space.tile[i];
  }
  return race_tokens(row, winner, scale, boundary, noise);
}

}  // namespace warpdraw::WARPDRAW_ISA
