// A row of logits seen as tiles of 64 tokens: reading one, and the maximum of each in a single pass over the row.
#pragma once
#include <vector>

#include "cpu/simd.h"

namespace warpdraw::WARPDRAW_ISA {

inline constexpr int kVectors = kTile / kLanes;  // vectors in a tile

struct Tile {
  Floats x[kVectors];
};

template <typename T> WD_INLINE Tile read_tile(const T* logits, std::int64_t vocab, std::int64_t tile) {
  const std::int64_t begin = tile * kTile;
  Tile out;
  if (begin + kTile <= vocab) {
    for (int i = 0; i < kVectors; ++i) out.x[i] = load(logits + begin + i * kLanes);
  } else {  // the last tile is filled up with tokens that are no candidates
    alignas(64) float buffer[kTile];
    for (int i = 0; i < kTile; ++i) buffer[i] = begin + i < vocab ? to_float(logits[begin + i]) : -HUGE_VALF;
    for (int i = 0; i < kVectors; ++i) out.x[i] = load(buffer + i * kLanes);
  }
  return out;
}

#if defined(__AVX512F__)

// From as many vectors as there are lanes, the maximum of each: a tree of 15 steps, each halving the number of vectors.
template <int Count> WD_INLINE Floats maxima_of(const Floats* v) {
  if constexpr (Count == 1) {
    return v[0];
  } else {
    const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i odd = _mm512_set_epi32(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
    Floats half[Count / 2];
    for (int i = 0; i < Count / 2; ++i)
      half[i] = max(Floats(_mm512_permutex2var_ps(v[2 * i], even, v[2 * i + 1])),
                    Floats(_mm512_permutex2var_ps(v[2 * i], odd, v[2 * i + 1])));
    return maxima_of<Count / 2>(half);
  }
}

#else

template <int Count> WD_INLINE Floats maxima_of(const Floats* v) {
  Floats out{};
  for (int i = 0; i < Count; ++i) out[i] = largest(v[i]);
  return out;
}

#endif

// A row and the maximum of each of its tiles; NaN counts as -inf. The maxima are padded with -inf to whole vectors.
template <typename T> struct Row {
  const T* logits;
  std::int64_t vocab, tiles;
  const float* maxima;
  float x_max;

  Row(const T* logits, std::int64_t vocab, std::vector<float>& workspace)
      : logits(logits), vocab(vocab), tiles((vocab + kTile - 1) / kTile) {
    if (std::int64_t(workspace.size()) < tiles + kLanes) workspace.resize(tiles + kLanes);
    maxima = workspace.data();
    Floats largest_seen = floats(-HUGE_VALF);
    for (std::int64_t tile = 0; tile < tiles; tile += kLanes) {
      Floats per_tile[kLanes];
      const int count = int(tiles - tile < kLanes ? tiles - tile : kLanes);
      for (int i = 0; i < kLanes; ++i) {
        per_tile[i] = floats(-HUGE_VALF);
        if (i < count) {
          const Tile here = read(tile + i);
          for (int j = 0; j < kVectors; ++j) per_tile[i] = max(here.x[j], per_tile[i]);
        }
      }
      const Floats found = maxima_of<kLanes>(per_tile);
      memcpy(workspace.data() + tile, &found, sizeof found);
      largest_seen = max(found, largest_seen);
    }
    x_max = largest(largest_seen);
  }

  Tile read(std::int64_t tile) const { return read_tile(logits, vocab, tile); }

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
};

// Which of a vector's tokens, from first_id on, a boundary keeps.
WD_INLINE Mask kept(Floats x, std::uint32_t first_id, Boundary boundary) {
  const Mask tied = equal(x, floats(boundary.x));
  Mask mask = above(x, floats(boundary.x));
  if (tied) mask |= tied & at_most(lane_index() + first_id, words(boundary.id));
  return mask;
}

// The same for a whole tile, one bit a token.
WD_INLINE std::uint64_t kept_in_tile(const Tile& tile, std::int64_t index, Boundary boundary) {
  std::uint64_t mask = 0;
  for (int i = 0; i < kVectors; ++i)
    mask |= std::uint64_t(kept(tile.x[i], std::uint32_t(index * kTile + i * kLanes), boundary)) << (i * kLanes);
  return mask;
}

// The weights of a tile's kept tokens, zero elsewhere.
WD_INLINE Tile kept_weights(const Tile& tile, std::int64_t index, float x_max, float scale, Boundary boundary) {
  Tile w;
  for (int i = 0; i < kVectors; ++i)
    w.x[i] = keep(kept(tile.x[i], std::uint32_t(index * kTile + i * kLanes), boundary), weights((tile.x[i] - x_max) * scale));
  return w;
}

// Writes f(tile's logits, tile) for every tile of a row.
template <typename T, typename F> void write_row(float* out, const Row<T>& row, F f) {
  for (std::int64_t tile = 0; tile < row.tiles; ++tile) {
    const Tile values = f(row.read(tile), tile);
    const std::int64_t left = row.vocab - tile * kTile;
    memcpy(out + tile * kTile, &values, std::size_t(left < kTile ? left : kTile) * sizeof(float));
  }
}

// The mass of all tokens that a boundary keeps.
template <typename T> std::uint64_t mass_kept(const Row<T>& row, float scale, Boundary boundary) {
  std::uint64_t total = 0;
  row.for_tiles_reaching(boundary.x, [&](std::int64_t tile) {
    total += mass_sum(kept_weights(row.read(tile), tile, row.x_max, scale, boundary).x, kVectors);
  });
  return total;
}

}  // namespace warpdraw::WARPDRAW_ISA
