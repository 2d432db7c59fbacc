#include "cpu/candidates.h"

namespace warpdraw::WARPDRAW_ISA {

std::uint64_t mass_of(const std::uint64_t* keys, std::size_t count, float highest, float scale) {
  MassSum sum;
  for (std::size_t i = 0; i < count; i += kLanes) {
    alignas(64) float x[kLanes];
    for (std::size_t lane = 0; lane < kLanes; ++lane) x[lane] = i + lane < count ? key_logit(keys[i + lane]) : -HUGE_VALF;
    sum.add(weights((load(x) - highest) * scale));
  }
  return sum.total();
}

Boundary nucleus(std::uint64_t* keys, std::size_t count, std::uint64_t target, float highest, float scale) {
  while (count > kTile) {  // keep the half that holds the crossing token
    std::nth_element(keys, keys + count / 2, keys + count, std::greater<>());
    const std::uint64_t upper = mass_of(keys, count / 2, highest, scale);
    if (upper >= target) {
      count /= 2;
    } else {
      target -= upper;
      keys += count / 2;
      count -= count / 2;
    }
  }
  std::sort(keys, keys + count, std::greater<>());
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < count; ++i)
    if ((sum += mass(weight(exponent(key_logit(keys[i]), highest, scale)))) >= target) return boundary_of(keys[i]);
  return boundary_of(keys[count - 1]);
}

// A histogram of their mass over the exponent leaves a few to rank.
Boundary nucleus(Candidates& candidates, float lowest, std::uint64_t target, float highest, float scale) {
  constexpr int kFew = 4 * kTile;
  if (candidates.count <= kFew) return nucleus(rank(candidates), candidates.count, target, highest, scale);
  const float t_min = exponent(lowest, highest, scale);  // -40 or more, because the mass is not zero
  const float bins_per_unit = t_min < 0.0f ? std::min((MassHistogram::kBins - 1) / -t_min, kLargest) : 0.0f;
  const auto bins_of = [&](Floats t) { return __builtin_convertvector((t - t_min) * bins_per_unit, Ints); };
  MassHistogram histogram;
  for (std::size_t i = 0; i < candidates.count; i += kLanes) {
    const Floats t = (load(&candidates.x[i]) - highest) * scale;
    histogram.add(bins_of(t), masses(weights(t)), std::min<std::size_t>(kLanes, candidates.count - i));
  }
  const int crossing = histogram.crossing(target);
  std::size_t count = 0;
  for (std::size_t i = 0; i < candidates.count; i += kLanes) {
    const Ints inside = bins_of((load(&candidates.x[i]) - highest) * scale) == crossing;
    const std::size_t left = candidates.count - i;
    Mask mask = bits(inside) & (left >= kLanes ? kAllLanes : Mask((1u << left) - 1));
    for (; mask; mask &= mask - 1) {
      const std::size_t at = i + std::size_t(__builtin_ctz(mask));
      candidates.key[count++] = rank_key(candidates.x[at], candidates.id[at]);
    }
  }
  return nucleus(candidates.key.data(), count, target, highest, scale);
}

}  // namespace warpdraw::WARPDRAW_ISA
