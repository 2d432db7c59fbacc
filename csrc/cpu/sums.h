// Exact sums over the tokens of a row: mass, moment, count. Weights are relative to the logit `highest`.
#pragma once
#include <atomic>

#include "cpu/row.h"

namespace warpdraw::WARPDRAW_ISA {

inline constexpr float kLight = -10.0f;  // below this exponent four masses add up in 32 bits

WD_INLINE void add_masses(MassSum& sum, const Tile& masses, bool light) {
  if (light)
    for (int i = 0; i < kVectors; i += 4) sum.add_light(masses.x + i);
  else
    for (const Floats m : masses.x) sum.add(m);
}

// The masses of a tile's tokens; kSmall if all exponents are -1 or less.
template <bool kSmall> WD_INLINE Tile masses_of(Tile x, float highest, float scale) {
  for (Floats& v : x.x) v = weights<kSmall>((v - highest) * scale, kMassScale);
  return x;
}

// The mass of all candidates. Calls use(tile, its masses before they are rounded down).
template <typename T, typename Use> std::uint64_t mass_of_all(const Row<T>& row, float highest, float scale, Use use) {
  std::atomic<std::uint64_t> total{0};
  row.in_parts([&](std::int64_t begin, std::int64_t end) {
    MassSum sum;
    for (std::int64_t tile = begin; tile < end; ++tile) {
      const float t = (row.maxima[tile] - highest) * scale;
      const auto add = [&](const Tile& masses, bool light) {
        add_masses(sum, masses, light);
        use(tile, masses);
      };
      if (t < kLight)
        add(masses_of<true>(row.read(tile), highest, scale), true);
      else if (t < -1.0f)
        add(masses_of<true>(row.read(tile), highest, scale), false);
      else
        add(masses_of<false>(row.read(tile), highest, scale), false);
    }
    total.fetch_add(sum.total(), std::memory_order_relaxed);
  });
  return total.load(std::memory_order_relaxed);
}
template <typename T> std::uint64_t mass_of_all(const Row<T>& row, float highest, float scale) {
  return mass_of_all(row, highest, scale, [](std::int64_t, const Tile&) {});
}

// The mass of the tokens that are kept.
template <typename T, typename Kept> std::uint64_t mass_kept(const Row<T>& row, float highest, float scale, const Kept& keeps) {
  if (keeps_all(keeps)) return mass_of_all(row, highest, scale);
  MassSum sum;
  row.for_tiles_reaching(last_of(keeps).x, [&](std::int64_t tile) {
    const Tile masses = kept_weights(row.read(tile), tile, highest, scale, keeps, kMassScale);
    add_masses(sum, masses, (row.maxima[tile] - highest) * scale < kLight);
  });
  return sum.total();
}

// Mass, moment and count of the tokens that are kept.
template <typename T> Sums sums_kept(const Row<T>& row, float highest, float scale, const Interval& keeps) {
  constexpr float kLightMoment = -15.0f;  // below this exponent four moments add up in 32 bits
  MassSum mass, moment;
  std::int64_t count = 0;
  const bool all = keeps_all(keeps);
  row.for_tiles_reaching(keeps.last.x, [&](std::int64_t tile) {
    const Tile x = row.read(tile);
    Tile masses, moments;
    for (int i = 0; i < kVectors; ++i) {
      const Mask mask =
          all ? at_least(x.x[i], floats(-kLargest)) : kept(x.x[i], std::uint32_t(tile * kTile + i * kLanes), keeps);
      const Floats t = (x.x[i] - highest) * scale, m = weights(t, kMassScale);
      masses.x[i] = keep(mask, m);
      moments.x[i] = keep(mask, moments_of(m, t));
      count += __builtin_popcount(mask);
    }
    const float highest_t = (row.maxima[tile] - highest) * scale;
    add_masses(mass, masses, highest_t < kLight);
    add_masses(moment, moments, highest_t < kLightMoment);
  });
  return {mass.total(), moment.total(), count};
}

}  // namespace warpdraw::WARPDRAW_ISA
