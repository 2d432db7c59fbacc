#include "cpu/candidates.h"

namespace warpdraw::WARPDRAW_ISA {

std::uint64_t mass_of(const std::uint64_t* keys, std::size_t count, float highest, float scale) {
  MassSum sum;
  for (std::size_t i = 0; i < count; i += kLanes) {
    alignas(64) float x[kLanes];
    for (std::size_t lane = 0; lane < kLanes; ++lane) x[lane] = i + lane < count ? key_logit(keys[i + lane]) : -HUGE_VALF;
    sum.add(weights((load(x) - highest) * scale, kMassScale));
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

}  // namespace warpdraw::WARPDRAW_ISA
