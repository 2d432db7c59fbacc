// The filters of the long tail: top-n-sigma, typical, epsilon, eta and xtc, over an interval of the total order.
#include <cmath>
#include <utility>

#include "cpu/select.h"

namespace warpdraw::WARPDRAW_ISA {
namespace {

// Calls visit(vector, first id, which tokens of it are kept).
template <typename T, typename Visit> void for_kept(const Row<T>& row, const Interval& keeps, Visit visit) {
  row.for_tiles_reaching(keeps.last.x, [&](std::int64_t tile) {
    const Tile x = row.read(tile);
    for (int i = 0; i < kVectors; ++i) {
      const std::uint32_t first = std::uint32_t(tile * kTile + i * kLanes);
      if (const Mask mask = kept(x.x[i], first, keeps)) visit(x.x[i], first, mask);
    }
  });
}

// The first and the last id of the kept tokens of one logit.
template <typename T> std::pair<std::uint32_t, std::uint32_t> ids_of(const Row<T>& row, float x, const Interval& keeps) {
  std::uint32_t lowest = kLastId, highest = 0;
  for_kept(row, {keeps.first, stricter(keeps.last, {x, kLastId})}, [&](Floats v, std::uint32_t first, Mask mask) {
    if (!(mask &= equal(v, floats(x)))) return;
    if (lowest == kLastId) lowest = first + std::uint32_t(__builtin_ctz(mask));
    highest = first + 31 - std::uint32_t(__builtin_clz(mask));
  });
  return {lowest, highest};
}

// Keeps the tokens with at least so much mass, and the first in any case.
template <typename T> Interval at_least(const Row<T>& row, Interval seen, float highest, float scale, double least_mass) {
  const auto passes = [&](float x) { return reaches(weight(exponent(x, highest, scale)), least_mass); };
  if (passes(highest))
    seen.last = stricter(seen.last, {lowest_logit(highest, passes), kLastId});
  else
    seen.last = {highest, ids_of(row, highest, seen).first};
  return seen;
}

// A token near the entropy: how far in exponents, and on which side of it.
struct Near {
  float distance, x;
  std::uint32_t id;
  bool above;

  // The nearer one first; the more probable side first; of that side the later in the total order, of the other the earlier.
  bool operator<(const Near& other) const {
    if (distance != other.distance) return distance < other.distance;
    if (above != other.above) return above;
    const bool earlier = x > other.x || (x == other.x && id < other.id);
    return above ? !earlier : earlier;
  }
};

}  // namespace

template <typename T> std::uint32_t first_id(const Row<T>& row, float x, const Interval& keeps) {
  return ids_of(row, x, keeps).first;
}

template <typename T> Boundary top_n_sigma(const Row<T>& row, float n) {
  const Interval all{keep_none(), keep_all()};
  Floats lowest = floats(row.x_max);
  std::int64_t count = 0;
  for_kept(row, all, [&](Floats x, std::uint32_t, Mask mask) {
    lowest = min(choose(mask, x, lowest), lowest);
    count += __builtin_popcount(mask);
  });
  const Deviations deviations(row.x_max, smallest(lowest));
  using Doubles = double __attribute__((vector_size(kLanes * 8)));
  std::uint64_t sum = 0, squares = 0;
  Doubles some{}, some_squares{};
  int added = 0;
  const auto move = [&] {  // while doubles hold the sums of whole numbers exactly
    for (int lane = 0; lane < kLanes; ++lane) sum += std::uint64_t(some[lane]), squares += std::uint64_t(some_squares[lane]);
    some = some_squares = Doubles{}, added = 0;
  };
  for_kept(row, all, [&](Floats x, std::uint32_t, Mask mask) {
    const Floats candidates = choose(mask, x, floats(row.x_max));  // others are no steps away
    const Doubles distance = (deviations.highest - __builtin_convertvector(candidates, Doubles)) * deviations.scale;
    const Doubles steps = __builtin_convertvector(__builtin_convertvector(distance, Ints), Doubles);
    some += steps, some_squares += steps * steps;
    if (++added == 4096) move();
  });
  move();
  const double least = deviations.threshold(n, sum, squares, count);
  if (least <= -double(kLargest)) return keep_all();
  float x = float(least);
  if (double(x) < least) x = std::nextafter(x, HUGE_VALF);
  return {x, kLastId};
}

// What typical_p sees is a prefix. The distances fall into a histogram of mass; only the bin where the target is reached is
// sorted.
template <typename T>
Interval typical_p(const Row<T>& row, float p, float scale, const Interval& seen, Candidates& candidates) {
  const float highest = highest_kept(row, seen);
  const Sums total = sums_kept(row, highest, scale, seen);
  const float mean = total.mean_exponent();
  std::uint64_t target = nucleus_mass(p, total.mass);

  // Tokens of mass zero are never where the target is reached.
  const float heavy = lowest_logit(highest, [&](float x) { return mass(weight(exponent(x, highest, scale))) > 0; });
  gather(row, std::max(seen.last.x, heavy), seen, candidates);
  const float farthest = std::max(-mean, mean - exponent(heavy, highest, scale));
  const float bins_per_unit = farthest > 0.0f ? (MassHistogram::kBins - 1) / farthest : 0.0f;
  const auto bins_of = [&](Floats t) {  // the nearest in the highest bin
    const Floats distance = max(t - mean, mean - t) * bins_per_unit;
    return MassHistogram::kBins - 1 - __builtin_convertvector(min(distance, floats(MassHistogram::kBins - 1)), Ints);
  };
  MassHistogram histogram;
  for (std::size_t i = 0; i < candidates.count; i += kLanes) {
    const Floats t = (load(&candidates.x[i]) - highest) * scale;
    histogram.add(bins_of(t), weights(t, kMassScale), std::min<std::size_t>(kLanes, candidates.count - i));
  }
  const int crossing = histogram.crossing(target);
  thread_local std::vector<Near> near;
  near.clear();
  for (std::size_t i = 0; i < candidates.count; i += kLanes) {
    const Floats t = (load(&candidates.x[i]) - highest) * scale;
    Mask mask = bits(bins_of(t) == crossing) & first_lanes(std::int64_t(candidates.count - i));
    for (; mask; mask &= mask - 1) {
      const int lane = __builtin_ctz(mask);
      near.push_back({fabsf(t[lane] - mean), candidates.x[i + lane], candidates.id[i + lane], t[lane] > mean});
    }
  }
  std::sort(near.begin(), near.end());
  std::size_t at = 0;
  for (std::uint64_t sum = 0; at + 1 < near.size(); ++at)
    if ((sum += mass(weight(exponent(near[at].x, highest, scale)))) >= target) break;
  const Near crossed = near[at];

  const auto above_mean = [&](float x) { return exponent(x, highest, scale) > mean; };
  const auto distance = [&](float x) { return fabsf(exponent(x, highest, scale) - mean); };
  if (crossed.above) {  // the other side as far as it is nearer
    const auto inside = [&](float x) { return above_mean(x) || distance(x) < crossed.distance; };
    return {before(crossed.x, crossed.id), stricter(seen.last, {lowest_logit(highest, inside), kLastId})};
  }
  const auto beyond = [&](float x) { return above_mean(x) && distance(x) > crossed.distance; };
  const Boundary first = beyond(highest) ? Boundary{lowest_logit(highest, beyond), kLastId} : keep_none();
  return {first, {crossed.x, crossed.id}};
}

template <typename T> Interval epsilon_eta_xtc(const Row<T>& row, const Filter& filter, Interval seen) {
  const float highest = highest_kept(row, seen), scale = filter.filter_scale();  // none of them drops the first
  const auto mass_only = [&] { return Sums{mass_kept(row, highest, scale, seen), 0, 0}; };
  if (filter.epsilon > 0.0f) seen = at_least(row, seen, highest, scale, epsilon_mass(filter.epsilon, mass_only()));
  if (filter.eta > 0.0f) seen = at_least(row, seen, highest, scale, eta_mass(filter.eta, sums_kept(row, highest, scale, seen)));
  if (filter.xtc_threshold <= 1.0f) {
    const Interval likely = at_least(row, seen, highest, scale, epsilon_mass(filter.xtc_threshold, mass_only()));
    Floats lowest = floats(highest);
    for_kept(row, likely, [&](Floats x, std::uint32_t, Mask mask) { lowest = min(choose(mask, x, lowest), lowest); });
    const float x = smallest(lowest);
    seen.first = before(x, ids_of(row, x, likely).second);
  }
  return seen;
}

#define WARPDRAW_INTERVAL(T)                                                              \
  template std::uint32_t first_id(const Row<T>&, float, const Interval&);                 \
  template Boundary top_n_sigma(const Row<T>&, float);                                    \
  template Interval typical_p(const Row<T>&, float, float, const Interval&, Candidates&); \
  template Interval epsilon_eta_xtc(const Row<T>&, const Filter&, Interval);
WARPDRAW_INTERVAL(float)
WARPDRAW_INTERVAL(f16)
WARPDRAW_INTERVAL(bf16)

}  // namespace warpdraw::WARPDRAW_ISA
