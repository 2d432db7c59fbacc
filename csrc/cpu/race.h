// The draw: the tile with the largest mass / E, then the token with the largest mass / E in it.
#pragma once
#include <vector>

#include "cpu/row.h"

namespace warpdraw::WARPDRAW_ISA {

struct RaceSpace {
  std::vector<std::uint32_t> tile;
  std::vector<float> maximum, noise, bound;

  void make_room(std::size_t count) {
    if (tile.size() < count) tile.resize(count), maximum.resize(count), noise.resize(count), bound.resize(count);
  }
};

WD_INLINE Floats keys_of(Floats mass, Floats noise) { return mass / noise; }

// Calls visit(place, exponentials) for the tokens of a tile or for tiles in a row, four vectors at a time; `first` is a
// multiple of 4.
template <typename Visit> WD_INLINE void for_noise(const Noise& noise, Stream stream, std::uint32_t first, Visit visit) {
  const NoiseWords run = noise_run(noise, stream, first);
  for (int i = 0; i < 4; ++i) visit(i * kLanes, exponentials(run.word[i]));
}

// The token that wins in a tile, from the weights of its tokens.
inline std::uint32_t race_tokens(const float (&w)[kTile], std::int64_t tile, const Noise& noise, Stream stream) {
  float best = 0.0f;
  int winner = 0;
  for (int begin = 0; begin < kTile; begin += 4 * kLanes)
    for_noise(noise, stream, std::uint32_t(tile * kTile + begin), [&](int at, Floats e) {
      const Floats keys = keys_of(masses(load(w + begin + at)), e);
      const float largest_key = largest(keys);
      if (largest_key > best) best = largest_key, winner = begin + at + __builtin_ctz(equal(keys, floats(best)));
    });
  return std::uint32_t(tile * kTile + winner);
}

// Bounds on the keys of tiles: each weighs at least what its largest kept token does, and at most 64 times the largest that may
// be.
struct TileBounds {
  float highest, scale;
  const Interval& keeps;
  Floats certain = floats(0.0f);  // the largest key that some tile is known to reach

  WD_MEMBER Floats of(Floats maximum, Floats e, Mask real) {
    const Floats key = keys_of(masses(weights((maximum - highest) * scale)), e), most = keys_of(masses(floats(1.0f)), e);
    const Mask below = above(floats(keeps.first.x), maximum);  // an interval may drop a tile's largest
    certain = max(keep(above(maximum, floats(keeps.last.x)) & below & real, key), certain);
    return choose(above(floats(highest), maximum), key, most) * float(kTile);
  }
};

// Only tiles that could win are read.
template <typename T>
std::uint32_t race(const Row<T>& row, float highest, float scale, const Interval& keeps, const Noise& noise, RaceSpace& space) {
  space.make_room(std::size_t(row.tiles) + 8 * kLanes);
  TileBounds bounds{highest, scale, keeps};
  std::size_t count = 0;
  const bool most = 4 * row.tiles_reaching(keeps.last.x) > row.tiles;  // then they stay where they are, and share noise
  if (most) {
    count = std::size_t(row.tiles);
    for (std::int64_t tile = 0; tile < row.tiles; tile += 4 * kLanes)
      for_noise(noise, Stream::tile, std::uint32_t(tile), [&](int at, Floats e) {
        const std::int64_t first = tile + at;
        if (first >= row.tiles) return;
        const Floats maxima = load(row.maxima + first);
        const Mask takes_part = at_least(maxima, floats(keeps.last.x)) & first_lanes(row.tiles - first);
        const Floats bound = keep(takes_part, bounds.of(maxima, e, takes_part));
        memcpy(&space.noise[std::size_t(first)], &e, sizeof e);
        memcpy(&space.bound[std::size_t(first)], &bound, sizeof bound);
      });
  } else {
    for (std::int64_t tile = 0; tile < row.tiles; tile += kLanes) {
      const Floats maxima = load(row.maxima + tile);
      const Mask mask = at_least(maxima, floats(keeps.last.x));
      if (!mask) continue;
      compress_store(&space.maximum[count], mask, maxima);
      compress_store(&space.tile[count], mask, lane_index() + std::uint32_t(tile));
      count += std::size_t(__builtin_popcount(mask));
    }
    for (std::size_t i = 0; i < count; i += kLanes) {
      Words tile;
      memcpy(&tile, &space.tile[i], sizeof tile);
      const Floats e = exponentials(noise_bits(noise, Stream::tile, tile));
      const Floats bound = bounds.of(load(&space.maximum[i]), e, first_lanes(std::int64_t(count - i)));
      memcpy(&space.noise[i], &e, sizeof e);
      memcpy(&space.bound[i], &bound, sizeof bound);
    }
  }

  float best = 0.0f;
  std::int64_t winner = -1;
  const float certain = largest(bounds.certain);
  for (std::size_t i = 0; i < count; i += kLanes) {
    const Floats bound = load(&space.bound[i]);
    Mask mask =
        at_least(bound, floats(std::max(certain, best))) & above(bound, floats(0.0f)) & first_lanes(std::int64_t(count - i));
    for (; mask; mask &= mask - 1) {
      const std::size_t at = i + std::size_t(__builtin_ctz(mask));
      if (space.bound[at] < best) continue;
      const std::int64_t tile = most ? std::int64_t(at) : space.tile[at];
      const float key =
          race_key(mass_of_tile(kept_weights(row.read(tile), tile, highest, scale, keeps, kMassScale)), space.noise[at]);
      if (key > best) best = key, winner = tile;
    }
  }
  alignas(64) float w[kTile];
  const Tile kept = kept_weights(row.read(winner), winner, highest, scale, keeps);
  memcpy(w, &kept, sizeof w);
  return race_tokens(w, winner, noise, Stream::token);
}

}  // namespace warpdraw::WARPDRAW_ISA
