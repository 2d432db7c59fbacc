// A tile of 64 logits in vectors.
#pragma once
#include "cpu/simd.h"

namespace warpdraw::WARPDRAW_ISA {

inline constexpr int kVectors = kTile / kLanes;  // vectors in a tile
inline constexpr Mask kAllLanes = Mask((std::uint64_t(1) << kLanes) - 1);

// The lanes of a vector that so many values reach.
WD_INLINE Mask first_lanes(std::int64_t count) { return count >= kLanes ? kAllLanes : Mask((1u << count) - 1); }

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

// The largest of a tile in each lane; NaN counts as -inf.
WD_INLINE Floats lane_maxima(const Tile& tile) {
  Floats highest = max(tile.x[0], floats(-HUGE_VALF));
  for (int i = 1; i < kVectors; ++i) highest = max(tile.x[i], highest);
  return highest;
}

// Which of a vector's tokens, from first_id on, stand before a cut.
WD_INLINE Mask kept(Floats x, std::uint32_t first_id, Boundary boundary) {
  const Mask tied = equal(x, floats(boundary.x));
  Mask mask = above(x, floats(boundary.x));
  if (tied) mask |= tied & at_most(lane_index() + first_id, words(boundary.id));
  return mask;
}
WD_INLINE Mask kept(Floats x, std::uint32_t first_id, const Interval& interval) {
  const Mask mask = kept(x, first_id, interval.last);
  return interval.is_prefix() ? mask : mask & ~kept(x, first_id, interval.first);
}

WD_INLINE Boundary last_of(Boundary boundary) { return boundary; }
WD_INLINE Boundary last_of(const Interval& interval) { return interval.last; }
WD_INLINE bool keeps_all(Boundary boundary) { return boundary.x <= -kLargest && boundary.id == kLastId; }
WD_INLINE bool keeps_all(const Interval& interval) { return interval.is_prefix() && keeps_all(interval.last); }

// The same for a whole tile, one bit a token.
template <typename Kept> WD_INLINE std::uint64_t kept_in_tile(const Tile& tile, std::int64_t index, const Kept& keep) {
  std::uint64_t mask = 0;
  for (int i = 0; i < kVectors; ++i)
    mask |= std::uint64_t(kept(tile.x[i], std::uint32_t(index * kTile + i * kLanes), keep)) << (i * kLanes);
  return mask;
}

// The weights of a tile's kept tokens in a unit, a power of two; zero elsewhere.
template <typename Kept> WD_INLINE Tile kept_weights(const Tile& tile, std::int64_t index, float highest, float scale,
                                                     const Kept& keeps, float unit = 1.0f) {
  Tile w;
  for (int i = 0; i < kVectors; ++i)
    w.x[i] =
        keep(kept(tile.x[i], std::uint32_t(index * kTile + i * kLanes), keeps), weights((tile.x[i] - highest) * scale, unit));
  return w;
}

WD_INLINE std::uint64_t mass_of_tile(const Tile& masses) {
  MassSum sum;
  for (const Floats m : masses.x) sum.add(m);
  return sum.total();
}

}  // namespace warpdraw::WARPDRAW_ISA
