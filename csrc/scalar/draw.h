// The draw by definition: race the tiles of 64 ids by their mass, then the tokens of the winning tile.
#pragma once
#include <map>

#include "scalar/row.h"

namespace warpdraw::scalar {

// The index whose mass / E is largest, the lowest one on a tie; masses are ordered by index.
inline std::uint32_t race(const std::map<std::uint32_t, std::uint64_t>& masses, const Noise& noise, Stream stream) {
  float best = -1.0f;
  std::uint32_t winner = 0;
  for (const auto& [index, m] : masses) {
    const float key = race_key(m, exponential(noise.bits(stream, index)));
    if (key > best) best = key, winner = index;
  }
  return winner;
}

inline std::uint32_t race_in_tiles(const std::map<std::uint32_t, std::uint64_t>& masses, const Noise& noise, Stream of_tile,
                                   Stream of_token) {
  std::map<std::uint32_t, std::uint64_t> tiles, members;
  for (const auto& [id, m] : masses) tiles[id / kTile] += m;
  const std::uint32_t tile = race(tiles, noise, of_tile);
  for (const auto& [id, m] : masses)
    if (id / kTile == tile) members[id] = m;
  return race(members, noise, of_token);
}

inline std::uint32_t draw(const Row& row, Places kept, float scale, const Noise& noise) {
  std::map<std::uint32_t, std::uint64_t> masses;
  for (std::size_t i = kept.begin; i < kept.end; ++i) masses[key_id(row.ranked[i])] = mass(row.weight_of(kept, i, scale));
  return race_in_tiles(masses, noise, Stream::tile, Stream::token);
}

}  // namespace warpdraw::scalar
