// Where the filters cut a row: the last kept token of the total order, found among candidates above a pivot instead of by a
// sort.
#include "cpu/select.h"

#include <algorithm>

namespace warpdraw::WARPDRAW_ISA {

namespace {

template <typename T> void gather(const Row<T>& row, float threshold, Candidates& to) {
  const std::size_t room = std::size_t(row.tiles + 1) * kTile;
  if (to.x.size() < room) to.x.resize(room), to.id.resize(room), to.key.resize(room);
  to.count = 0;
  row.for_tiles_reaching(threshold, [&](std::int64_t tile) {
    const Tile here = row.read(tile);
    for (int i = 0; i < kVectors; ++i) {
      const Mask mask = at_least(here.x[i], floats(threshold));
      compress_store(&to.x[to.count], mask, here.x[i]);
      compress_store(&to.id[to.count], mask, lane_index() + std::uint32_t(tile * kTile + i * kLanes));
      to.count += std::size_t(__builtin_popcount(mask));
    }
  });
  const Floats filler = floats(-HUGE_VALF);
  memcpy(&to.x[to.count], &filler, sizeof filler);  // so that whole vectors can be read
}

std::uint64_t* rank(Candidates& candidates) {
  for (std::size_t i = 0; i < candidates.count; ++i) candidates.key[i] = rank_key(candidates.x[i], candidates.id[i]);
  return candidates.key.data();
}

// The mass of ranked tokens.
std::uint64_t mass_of(const std::uint64_t* keys, std::size_t count, float x_max, float scale) {
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < count; i += kLanes) {
    alignas(64) float x[kLanes];
    for (std::size_t lane = 0; lane < kLanes; ++lane) x[lane] = i + lane < count ? key_logit(keys[i + lane]) : -HUGE_VALF;
    const Floats w = weights((load(x) - x_max) * scale);
    total += mass_sum(&w, 1);
  }
  return total;
}

// The shortest prefix of the ranked tokens whose mass reaches the target; all of them if none does. Reorders the keys.
Boundary nucleus(std::uint64_t* keys, std::size_t count, std::uint64_t target, float x_max, float scale) {
  while (count > kTile) {  // keep the half that holds the crossing token
    std::nth_element(keys, keys + count / 2, keys + count, std::greater<>());
    const std::uint64_t upper = mass_of(keys, count / 2, x_max, scale);
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
    if ((sum += mass(weight(exponent(key_logit(keys[i]), x_max, scale)))) >= target) return boundary_of(keys[i]);
  return boundary_of(keys[count - 1]);
}

// The same among many candidates, all of logit `lowest` or more, none of mass zero: a histogram of their mass over the exponent
// leaves a few to rank.
Boundary nucleus(Candidates& candidates, float lowest, std::uint64_t target, float x_max, float scale) {
  constexpr int kBins = 1024, kFew = 4 * kTile;
  if (candidates.count <= kFew) return nucleus(rank(candidates), candidates.count, target, x_max, scale);
  const float t_min = exponent(lowest, x_max, scale);  // -40 or more, because the mass is not zero
  const float bins_per_unit = t_min < 0.0f ? std::min((kBins - 1) / -t_min, kLargest) : 0.0f;
  const auto bins_of = [&](Floats t) { return __builtin_convertvector((t - t_min) * bins_per_unit, Ints); };
  std::uint64_t bins[kBins] = {};
  for (std::size_t i = 0; i < candidates.count; i += kLanes) {
    const Floats t = (load(&candidates.x[i]) - x_max) * scale, m = masses(weights(t));
    const Ints bin = bins_of(t);
    const std::size_t lanes = std::min<std::size_t>(kLanes, candidates.count - i);
    for (std::size_t lane = 0; lane < lanes; ++lane) bins[bin[lane]] += std::uint64_t(m[lane]);
  }
  int crossing = kBins - 1;
  while (crossing > 0 && (bins[crossing] == 0 || bins[crossing] < target)) target -= bins[crossing--];
  std::size_t count = 0;
  for (std::size_t i = 0; i < candidates.count; i += kLanes) {
    const Ints inside = bins_of((load(&candidates.x[i]) - x_max) * scale) == crossing;
    const std::size_t left = candidates.count - i;
    Mask mask = bits(inside) & ((left >= kLanes ? 1u << kLanes : 1u << left) - 1);
    for (; mask; mask &= mask - 1) {
      const std::size_t at = i + std::size_t(__builtin_ctz(mask));
      candidates.key[count++] = rank_key(candidates.x[at], candidates.id[at]);
    }
  }
  return nucleus(candidates.key.data(), count, target, x_max, scale);
}

// The smallest logit up to x_max of which `enough` holds; it holds of x_max and goes on holding as the logit grows.
template <typename Enough> float lowest_logit(float x_max, Enough enough) {
  std::uint32_t low = ordered(-kLargest), high = ordered(x_max);
  while (low < high) {
    const std::uint32_t middle = low + (high - low) / 2;
    if (enough(unordered(middle)))
      high = middle;
    else
      low = middle + 1;
  }
  return unordered(low);
}

// The smallest logit whose weight is at least min_p.
float min_p_logit(float min_p, float x_max, float scale) {
  if (min_p <= 0.0f) return -kLargest;
  return lowest_logit(x_max, [&](float x) { return weight(exponent(x, x_max, scale)) >= min_p; });
}

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

template <typename T> float lowest_maximum(const Row<T>& row) {
  float lowest = row.x_max;
  for (std::int64_t tile = 0; tile < row.tiles; ++tile)
    if (row.maxima[tile] >= -kLargest && row.maxima[tile] < lowest) lowest = row.maxima[tile];
  return lowest;
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

// The first k of the tokens whose logit is at least `lowest`. Leaves their keys in front of the candidates.
template <typename T> Boundary top_k(const Row<T>& row, std::int64_t k, float lowest, Candidates& candidates) {
  const float threshold = std::max(top_k_pivot(row, std::min(k, row.vocab)), lowest);
  gather(row, threshold, candidates);
  std::uint64_t* keys = rank(candidates);
  if (std::int64_t(candidates.count) <= k) return {threshold, kLastId};
  std::nth_element(keys, keys + (k - 1), keys + candidates.count, std::greater<>());
  candidates.count = std::size_t(k);
  return boundary_of(keys[k - 1]);
}

// The nucleus of the tokens whose logit is at least `seen`. Even if every token of mass (total - target) / V or less were
// dropped, the rest would reach the target: those need no ranking.
template <typename T> Boundary top_p(const Row<T>& row, float p, float scale, float seen, Candidates& candidates) {
  const std::uint64_t total = mass_kept(row, scale, {seen, kLastId}), target = nucleus_mass(p, total);
  const std::uint64_t light = (total - target) / std::uint64_t(row.vocab);
  const float heavy = lowest_logit(row.x_max, [&](float x) { return mass(weight(exponent(x, row.x_max, scale))) > light; });
  const float lowest = std::max(seen, heavy);
  gather(row, lowest, candidates);
  return nucleus(candidates, lowest, target, row.x_max, scale);
}

}  // namespace

template <typename T> Boundary first_token(const Row<T>& row) {
  for (std::int64_t tile = 0; tile < row.tiles; ++tile) {
    if (row.maxima[tile] != row.x_max) continue;
    const Tile here = row.read(tile);
    for (int i = 0; i < kVectors; ++i)
      if (const Mask mask = equal(here.x[i], floats(row.x_max)))
        return {row.x_max, std::uint32_t(tile * kTile + i * kLanes + __builtin_ctz(mask))};
  }
  return {row.x_max, 0};
}

template <typename T> Boundary select(const Row<T>& row, const Filter& filter, Candidates& candidates) {
  if (filter.greedy()) return first_token(row);
  if (filter.keeps_all()) return keep_all();
  const float min_p = min_p_logit(filter.min_p, row.x_max, filter.filter_scale);
  const float seen = filter.order == Order::vllm ? min_p : -kLargest;  // the lowest logit that top-k and top-p see
  Boundary result{min_p, kLastId};
  if (filter.k) result = stricter(result, top_k(row, filter.k, seen, candidates));
  if (filter.p < 1.0f) {
    if (filter.k && filter.order != Order::flashinfer_joint) {  // the mass of what top-k left
      std::uint64_t* keys = candidates.key.data();
      const std::uint64_t total = mass_of(keys, candidates.count, row.x_max, filter.filter_scale);
      const std::uint64_t target = nucleus_mass(filter.p, total);
      result = stricter(result, nucleus(keys, candidates.count, target, row.x_max, filter.filter_scale));
    } else {
      result = stricter(result, top_p(row, filter.p, filter.filter_scale, seen, candidates));
    }
  }
  return result;
}

#define WARPDRAW_SELECT(T)                                             \
  template Boundary select(const Row<T>&, const Filter&, Candidates&); \
  template Boundary first_token(const Row<T>&);
WARPDRAW_SELECT(float)
WARPDRAW_SELECT(f16)
WARPDRAW_SELECT(bf16)

}  // namespace warpdraw::WARPDRAW_ISA
