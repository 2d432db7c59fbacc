// Exact sums over the tokens of a row: mass, moment, count. Weights are relative to the logit `highest`.
#pragma once
#include <atomic>

#include "cpu/row.h"

namespace warpdraw::WARPDRAW_ISA {

inline constexpr float kLight = -10.0f;  // below this exponent four masses add up in 32 bits

WD_INLINE void add_masses(MassSum& sum, const Tile& w, bool light) {
  if (light)
    for (int i = 0; i < kVectors; i += 4) sum.add_light(w.x + i);
  else
    for (const Floats v : w.x) sum.add(v);
}

// The mass of all candidates.
template <typename T> std::uint64_t mass_of_all(const Row<T>& row, float highest, float scale) {
  std::atomic<std::uint64_t> total{0};
  row.in_parts([&](std::int64_t begin, std::int64_t end) {
    MassSum sum;
    for (std::int64_t tile = begin; tile < end; ++tile) {
      const float t = (row.maxima[tile] - highest) * scale;
      if (!(t >= -41.0f)) continue;  // of mass zero
      Tile w = row.read(tile);
      for (Floats& v : w.x) v = weights((v - highest) * scale);
      add_masses(sum, w, t < kLight);
    }
    total.fetch_add(sum.total(), std::memory_order_relaxed);
  });
  return total.load(std::memory_order_relaxed);
}

// The mass of the tokens that are kept.
template <typename T, typename Kept> std::uint64_t mass_kept(const Row<T>& row, float highest, float scale, const Kept& keeps) {
  MassSum sum;
  row.for_tiles_reaching(last_of(keeps).x, [&](std::int64_t tile) {
    add_masses(sum, kept_weights(row.read(tile), tile, highest, scale, keeps), (row.maxima[tile] - highest) * scale < kLight);
  });
  return sum.total();
}

// Mass, moment and count of the tokens that are kept.
template <typename T> Sums sums_kept(const Row<T>& row, float highest, float scale, const Interval& keeps) {
  MassSum mass, moment;
  std::int64_t count = 0;
  row.for_tiles_reaching(keeps.last.x, [&](std::int64_t tile) {
    const Tile x = row.read(tile);
    for (int i = 0; i < kVectors; ++i) {
      const Mask mask = kept(x.x[i], std::uint32_t(tile * kTile + i * kLanes), keeps);
      const Floats t = (x.x[i] - highest) * scale, w = weights(t);
      mass.add(keep(mask, w));
      moment.add(keep(mask, moments(w, t)));
      count += __builtin_popcount(mask);
    }
  });
  return {mass.total(), moment.total(), count};
}

}  // namespace warpdraw::WARPDRAW_ISA
