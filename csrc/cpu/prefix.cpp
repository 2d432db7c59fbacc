// top-k, top-p and min-p: a pivot from the tiles' maxima leaves a few candidates to rank.
#include "cpu/select.h"

namespace warpdraw::WARPDRAW_ISA {
namespace {

// A logit that at least `wanted` of the counted values reach, and not many more; -kLargest if there are too few.
template <typename Count> float pivot(float lowest, float highest, std::int64_t wanted, Count reaching) {
  std::uint32_t low = ordered(lowest), high = ordered(highest);  // low is reached often enough, high + 1 is not
  if (reaching(lowest) < wanted) return -kLargest;
  for (int step = 0; low < high; ++step) {
    // The middle of the values converges fast on usual logits, the middle of the bits on any.
    std::uint32_t middle = low + (high - low + 1) / 2;
    if (step < 12) middle = std::clamp(ordered(unordered(low) / 2 + unordered(high) / 2), low + 1, high);
    const std::int64_t count = reaching(unordered(middle));
    if (count >= wanted) {
      low = middle;
      if (count <= wanted + wanted / 4 + 4) break;
    } else {
      high = middle - 1;
    }
  }
  return unordered(low);
}

// The lowest of the tiles' maxima that is a candidate.
template <typename T> float lowest_maximum(const Row<T>& row) {
  Floats lowest = floats(row.x_max);
  for (std::int64_t tile = 0; tile < row.tiles; tile += kLanes) {
    const Floats maxima = load(row.maxima + tile);
    lowest = min(choose(at_least(maxima, floats(-kLargest)), maxima, lowest), lowest);
  }
  return smallest(lowest);
}

// A logit that at least k tokens reach. While k is at most the number of tiles their maxima tell, without reading the row
// again.
template <typename T> float top_k_pivot(const Row<T>& row, std::int64_t k) {
  if (k <= row.tiles) {
    const float found = pivot(lowest_maximum(row), row.x_max, k, [&](float x) { return row.tiles_reaching(x); });
    if (found > -kLargest) return found;
  }
  return pivot(-kLargest, row.x_max, k, [&](float x) {
    std::int64_t count = 0;
    row.for_tiles_reaching(x, [&](std::int64_t tile) {
      const Tile here = row.read(tile);
      for (int i = 0; i < kVectors; ++i) count += __builtin_popcount(at_least(here.x[i], floats(x)));
    });
    return count;
  });
}

// Steps of the exponent between a logit and the highest one.
struct Steps {
  float highest, scale, t_min, per_unit;

  Steps(float lowest, float highest, float scale)
      : highest(highest),
        scale(scale),
        t_min(exponent(lowest, highest, scale)),
        per_unit(t_min < 0.0f ? std::min((MassHistogram::kBins - 1) / -t_min, kLargest) : 0.0f) {}
  WD_MEMBER Floats exponents(Floats x) const { return (x - highest) * scale; }
  WD_MEMBER Ints bins(Floats t) const { return __builtin_convertvector((t - t_min) * per_unit, Ints); }
  // The lowest logit of a bin.
  float lowest_of(int bin) const {
    return lowest_logit(highest, [&](float x) {
      const float t = exponent(x, highest, scale);
      return t >= t_min && int((t - t_min) * per_unit) >= bin;
    });
  }
};

// A logit such that the tokens from there up to `ceiling` are likely to hold so much mass, and little more: from every so many
// tiles.
template <typename T> float likely_logit(const Row<T>& row, std::uint64_t wanted, float lowest, float ceiling, float highest,
                                         float scale, Candidates& candidates) {
  constexpr int kTiles = 256;
  const std::int64_t stride = std::max<std::int64_t>(1, row.tiles / kTiles);
  const Steps steps(lowest, highest, scale);
  candidates.make_room(row.tiles);
  float* x = candidates.x.data();
  std::size_t count = 0;
  for (std::int64_t tile = stride / 2; tile < row.tiles; tile += stride) {
    if (!(row.maxima[tile] >= lowest)) continue;
    const Tile here = row.read(tile);
    for (int i = 0; i < kVectors; ++i) {
      const Mask mask =
          at_least(here.x[i], floats(lowest)) & above(floats(ceiling), here.x[i]) & at_least(floats(highest), here.x[i]);
      compress_store(x + count, mask, here.x[i]);
      count += std::size_t(__builtin_popcount(mask));
    }
  }
  MassHistogram histogram;
  for (std::size_t i = 0; i < count; i += kLanes) {
    const Floats t = steps.exponents(load(x + i));
    histogram.add(steps.bins(t), weights(t, kMassScale), std::min<std::size_t>(kLanes, count - i));
  }
  std::uint64_t target = wanted / std::uint64_t(stride);
  const int at = histogram.crossing(target);
  return at < 0 ? lowest : steps.lowest_of(at);
}

// The shortest prefix of the tokens whose logit is at least `lowest`, none of mass zero, that reaches the target. A histogram
// of their mass over the exponent leaves a few to rank. False if all of them together do not reach it.
template <typename T> bool nucleus_above(const Row<T>& row, float lowest, const Interval& seen, std::uint64_t target,
                                         float highest, float scale, Candidates& candidates, Boundary& found) {
  const Steps steps(lowest, highest, scale);
  gather(row, lowest, seen, candidates);
  MassHistogram histogram;
  for (std::size_t i = 0; i < candidates.count; i += kLanes) {
    const Floats t = steps.exponents(load(&candidates.x[i]));
    histogram.add(steps.bins(t), weights(t, kMassScale), std::min<std::size_t>(kLanes, candidates.count - i));
  }
  const int crossing = histogram.crossing(target);
  if (crossing < 0) return false;
  std::size_t count = 0;
  for (std::size_t i = 0; i < candidates.count; i += kLanes) {
    Mask mask = bits(steps.bins(steps.exponents(load(&candidates.x[i]))) == crossing);
    mask &= first_lanes(std::int64_t(candidates.count - i));
    for (; mask; mask &= mask - 1) {
      const std::size_t at = i + std::size_t(__builtin_ctz(mask));
      candidates.key[count++] = rank_key(candidates.x[at], candidates.id[at]);
    }
  }
  found = nucleus(candidates.key.data(), count, target, highest, scale);
  return true;
}

// What all tokens below a threshold weigh together, in units of the largest weight, with room for the rounding of the sums.
struct Bounds {
  double least, most;
};
inline double sum_of(Floats v) {
  double sum = 0.0;
  for (int lane = 0; lane < kLanes; ++lane) sum += double(v[lane]);
  return sum;
}
// A sum of so many fp32 terms is off by less than this part of it.
inline double slack(std::int64_t terms) { return double(terms + kLanes) * 0x1p-23; }

// From the tiles' maxima: each is a token, and no other of its tile weighs more.
template <typename T> Bounds mass_below_by_maxima(const Row<T>& row, float threshold, float highest, float scale) {
  Floats least = floats(0.0f), most = floats(0.0f);
  for (std::int64_t tile = 0; tile < row.tiles; tile += kLanes) {
    const Floats maxima = load(row.maxima + tile);
    const Floats w = weights((min(maxima, floats(threshold)) - highest) * scale);
    least += keep(above(floats(threshold), maxima), w), most += w;
  }
  const double floors = double(row.tiles) * 0x1p-40;  // a mass is a weight rounded down
  return {std::max(0.0, sum_of(least) * (1 - slack(row.tiles)) - floors), kTile * sum_of(most) * (1 + slack(row.tiles))};
}

// No more than this: of every two tokens that share a lane of neighbouring vectors, none weighs more than the larger. It takes
// half the exponentials.
template <bool kSmall, typename T> double most_below(const Row<T>& row, float threshold, float highest, float scale) {
  std::atomic<double> total{0.0};  // what order it is added up in may change the bound, but nothing that follows from it
  row.in_parts([&](std::int64_t begin, std::int64_t end) {
    Floats most = floats(0.0f);
    for (std::int64_t tile = begin; tile < end; ++tile) {
      const Tile x = row.read(tile);
      for (int i = 0; i < kVectors; i += 2) {
        const Floats larger = max(x.x[i], max(x.x[i + 1], floats(-kLargest)));  // NaN is no candidate
        most += weights<kSmall>((min(larger, floats(threshold)) - highest) * scale);
      }
    }
    total.fetch_add(sum_of(most), std::memory_order_relaxed);
  });
  return 2 * total.load(std::memory_order_relaxed) * (1 + slack(row.tiles * kVectors / 2));
}
template <typename T> double most_below(const Row<T>& row, float threshold, float highest, float scale) {
  const bool small = (threshold - highest) * scale < -1.0f;
  return small ? most_below<true>(row, threshold, highest, scale) : most_below<false>(row, threshold, highest, scale);
}

}  // namespace

float min_p_logit(float min_p, float highest, float scale) {
  if (min_p <= 0.0f) return -kLargest;
  return lowest_logit(highest, [&](float x) { return weight(exponent(x, highest, scale)) >= min_p; });
}

template <typename T> std::size_t rank_first(const Row<T>& row, std::int64_t k, const Interval& keeps, Candidates& candidates) {
  const float threshold = keeps.is_prefix() ? std::max(top_k_pivot(row, std::min(k, row.vocab)), keeps.last.x) : keeps.last.x;
  gather(row, threshold, keeps, candidates);
  std::uint64_t* keys = rank(candidates);
  if (std::int64_t(candidates.count) > k) {
    std::nth_element(keys, keys + (k - 1), keys + candidates.count, std::greater<>());
    candidates.count = std::size_t(k);
  }
  return candidates.count;
}

template <typename T> Boundary top_k(const Row<T>& row, std::int64_t k, const Interval& seen, Candidates& candidates) {
  // The k-th token is the least of those in front, if there are as many.
  if (std::int64_t(rank_first(row, k, seen, candidates)) < k) return seen.last;
  return boundary_of(*std::min_element(candidates.key.data(), candidates.key.data() + candidates.count));
}

// Three ways, the quick ones first. If the few tokens with the largest logits hold nearly all mass, bounds on the rest may
// decide. Else, with the mass of the row known, thresholds that probably suffice are tried. And even if every token of mass
// (total - target) / V or less were dropped, the rest would reach the target.
template <typename T>
Boundary top_p(const Row<T>& row, float p, float scale, float highest, const Interval& seen, Candidates& candidates) {
  constexpr std::int64_t kFew = 64;
  std::uint64_t few = 0;  // the mass of the tokens from `ceiling` on
  float ceiling = HUGE_VALF;
  Boundary found{};
  if (seen.is_prefix() && row.tiles > kFew) {
    const float threshold = std::max(top_k_pivot(row, kFew), seen.last.x);
    gather(row, threshold, seen, candidates);
    if (candidates.count <= 4 * kFew) {
      std::uint64_t* keys = rank(candidates);
      few = mass_of(candidates, highest, scale), ceiling = threshold;
      const auto target_with = [&](double rest) { return nucleus_mass(p, few + std::uint64_t(rest * double(kMassScale))); };
      const auto possible = [&](Bounds rest) { return target_with(rest.least) <= few; };
      const auto decided = [&](Bounds rest) {
        const std::uint64_t least = target_with(rest.least), most = target_with(rest.most) + 1;
        if (most > few) return false;
        found = nucleus(keys, candidates.count, most, highest, scale);
        return nucleus(keys, candidates.count, least, highest, scale) == found;
      };
      if (threshold <= seen.last.x) return nucleus(keys, candidates.count, target_with(0.0), highest, scale);
      const Bounds rough = mass_below_by_maxima(row, threshold, highest, scale);
      if (decided(rough)) return found;
      if (possible(rough) && decided({rough.least, most_below(row, threshold, highest, scale)})) return found;
    }
  }
  const std::uint64_t total = mass_kept(row, highest, scale, seen), target = nucleus_mass(p, total);
  if (few >= target && few > 0) return nucleus(candidates.key.data(), candidates.count, target, highest, scale);
  const std::uint64_t light = (total - target) / std::uint64_t(row.vocab);
  const float heavy = lowest_logit(highest, [&](float x) { return mass(weight(exponent(x, highest, scale))) > light; });
  const float lowest = std::max(seen.last.x, heavy);
  for (const std::uint64_t share : {3, 1}) {
    const std::uint64_t wanted = target - few + (total - target) / share;
    const float likely = likely_logit(row, wanted, lowest, ceiling, highest, scale, candidates);
    if (likely > lowest && nucleus_above(row, likely, seen, target, highest, scale, candidates, found)) return found;
  }
  nucleus_above(row, lowest, seen, target, highest, scale, candidates, found);
  return found;
}

#define WARPDRAW_PREFIX(T)                                                                    \
  template std::size_t rank_first(const Row<T>&, std::int64_t, const Interval&, Candidates&); \
  template Boundary top_k(const Row<T>&, std::int64_t, const Interval&, Candidates&);         \
  template Boundary top_p(const Row<T>&, float, float, float, const Interval&, Candidates&);
WARPDRAW_PREFIX(float)
WARPDRAW_PREFIX(f16)
WARPDRAW_PREFIX(bf16)

}  // namespace warpdraw::WARPDRAW_ISA
