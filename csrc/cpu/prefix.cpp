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
  Floats lowest = floats(-row.x_max);  // negated, because there is max but no min
  for (std::int64_t tile = 0; tile < row.tiles; tile += kLanes) {
    const Floats maxima = load(row.maxima + tile);
    lowest = max(choose(at_least(maxima, floats(-kLargest)), -maxima, lowest), lowest);
  }
  return -largest(lowest);
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

// A logit that is likely to be reached by the share of the mass, and by few tokens more: from every so many tiles.
template <typename T> float likely_nucleus(const Row<T>& row, double share, float highest, float scale) {
  constexpr int kBins = 256, kTiles = 128;
  constexpr float kBinsPerUnit = kBins / 41.0f;
  float bins[kBins + 1] = {}, total = 0.0f;
  const std::int64_t stride = std::max<std::int64_t>(1, row.tiles / kTiles);
  for (std::int64_t tile = stride / 2; tile < row.tiles; tile += stride) {
    const Tile x = row.read(tile);
    for (int i = 0; i < kVectors; ++i) {
      const Floats t = (x.x[i] - highest) * scale, w = weights(t);
      const Ints bin = __builtin_convertvector(choose(at_least(t, floats(-40.0f)), t * -kBinsPerUnit, floats(kBins)), Ints);
      for (int lane = 0; lane < kLanes; ++lane) bins[bin[lane]] += w[lane];
    }
  }
  for (const float bin : bins) total += bin;
  float sum = 0.0f;
  int at = 0;
  while (at < kBins && (sum += bins[at]) < float(share) * total) ++at;
  return highest - float(at + 1) / kBinsPerUnit / scale;
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

// Even if every token of mass (total - target) / V or less were dropped, the rest would reach the target: those need no
// ranking. A higher threshold does if the tokens above it reach the target, and is tried first.
template <typename T>
Boundary top_p(const Row<T>& row, float p, float scale, float highest, const Interval& seen, Candidates& candidates) {
  constexpr std::int64_t kFew = 64;
  const bool all = seen.is_prefix() && seen.last.x <= -kLargest;
  const std::uint64_t total = all ? mass_of_all(row, highest, scale) : mass_kept(row, highest, scale, seen);
  const std::uint64_t target = nucleus_mass(p, total), light = (total - target) / std::uint64_t(row.vocab);
  const float heavy = lowest_logit(highest, [&](float x) { return mass(weight(exponent(x, highest, scale))) > light; });
  const float lowest = std::max(seen.last.x, heavy);
  const auto suffices = [&](float threshold) {
    if (threshold <= lowest) return false;
    gather(row, threshold, seen, candidates);
    return mass_of(candidates, highest, scale) >= target;
  };
  float threshold = row.tiles > kFew ? top_k_pivot(row, kFew) : lowest;
  if (!suffices(threshold)) {
    threshold = likely_nucleus(row, 0.5 + 0.5 * double(target) / double(total), highest, scale);
    if (!suffices(threshold)) {
      threshold = lowest;
      gather(row, threshold, seen, candidates);
    }
  }
  return nucleus(candidates, threshold, target, highest, scale);
}

#define WARPDRAW_PREFIX(T)                                                                    \
  template std::size_t rank_first(const Row<T>&, std::int64_t, const Interval&, Candidates&); \
  template Boundary top_k(const Row<T>&, std::int64_t, const Interval&, Candidates&);         \
  template Boundary top_p(const Row<T>&, float, float, float, const Interval&, Candidates&);
WARPDRAW_PREFIX(float)
WARPDRAW_PREFIX(f16)
WARPDRAW_PREFIX(bf16)

}  // namespace warpdraw::WARPDRAW_ISA
