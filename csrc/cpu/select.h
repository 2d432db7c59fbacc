// Where the filters cut a row: the last kept token of the total order, found among candidates above a pivot instead of by a
// sort.
#pragma once
#include <algorithm>
#include <vector>

#include "cpu/tiles.h"

namespace warpdraw::WARPDRAW_ISA {

// Tokens whose logit reaches a threshold, as rank keys.
struct Candidates {
  std::vector<float> x;
  std::vector<std::uint32_t> id;
  std::vector<std::uint64_t> key;
  std::size_t count = 0;

  template <typename T> void gather(const Row<T>& row, float threshold) {
    const std::size_t room = std::size_t(row.tiles + 1) * kTile;
    if (x.size() < room) x.resize(room), id.resize(room), key.resize(room);
    count = 0;
    row.for_tiles_reaching(threshold, [&](std::int64_t tile) {
      const Tile here = row.read(tile);
      for (int i = 0; i < kVectors; ++i) {
        const Mask mask = at_least(here.x[i], floats(threshold));
        compress_store(&x[count], mask, here.x[i]);
        compress_store(&id[count], mask, lane_index() + std::uint32_t(tile * kTile + i * kLanes));
        count += std::size_t(__builtin_popcount(mask));
      }
    });
    for (std::size_t i = 0; i < count; ++i) key[i] = rank_key(x[i], id[i]);
  }
};

// The mass of ranked tokens.
inline std::uint64_t mass_of(const std::uint64_t* keys, std::size_t count, float x_max, float scale) {
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
inline Boundary nucleus(std::uint64_t* keys, std::size_t count, std::uint64_t target, float x_max, float scale) {
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

// The smallest logit whose weight is at least min_p: the weight never falls as the logit grows.
inline float min_p_logit(float min_p, float x_max, float scale) {
  if (min_p <= 0.0f) return -kLargest;
  std::uint32_t low = ordered(-kLargest), high = ordered(x_max);
  while (low < high) {
    const std::uint32_t middle = low + (high - low) / 2;
    if (weight(exponent(unordered(middle), x_max, scale)) >= min_p)
      high = middle;
    else
      low = middle + 1;
  }
  return unordered(low);
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

// The first k of the tokens whose logit is at least `lowest`. Leaves them in front of the candidates.
template <typename T> Boundary top_k(const Row<T>& row, std::int64_t k, float lowest, Candidates& candidates) {
  const float threshold = std::max(top_k_pivot(row, std::min(k, row.vocab)), lowest);
  candidates.gather(row, threshold);
  if (std::int64_t(candidates.count) <= k) return {threshold, 0xffffffffu};
  std::uint64_t* keys = candidates.key.data();
  std::nth_element(keys, keys + (k - 1), keys + candidates.count, std::greater<>());
  candidates.count = std::size_t(k);
  return boundary_of(keys[k - 1]);
}

// The nucleus of the whole row: gathers from the top until the mass suffices.
template <typename T> Boundary top_p(const Row<T>& row, float p, float scale, Candidates& candidates) {
  const std::uint64_t target = nucleus_mass(p, mass_kept(row, scale, keep_all()));
  for (std::int64_t wanted = 64;; wanted *= 8) {
    const bool all = wanted >= row.vocab / 2;
    candidates.gather(row, all ? -kLargest : top_k_pivot(row, wanted));
    std::uint64_t* keys = candidates.key.data();
    if (all || mass_of(keys, candidates.count, row.x_max, scale) >= target)
      return nucleus(keys, candidates.count, target, row.x_max, scale);
  }
}

// The first token of the total order.
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

// The boundary that all filters of a row leave together. The row holds a candidate and no +inf.
template <typename T> Boundary select(const Row<T>& row, const Filter& filter, Candidates& candidates) {
  if (filter.greedy()) return first_token(row);
  if (filter.keeps_all()) return keep_all();
  const Boundary min_p{min_p_logit(filter.min_p, row.x_max, filter.filter_scale), 0xffffffffu};
  const bool min_p_first = filter.order == Order::vllm;
  const bool nucleus_of_all = filter.order == Order::flashinfer_joint || (!filter.k && !(min_p_first && filter.min_p > 0.0f));
  Boundary result = min_p;
  if (filter.p < 1.0f && nucleus_of_all) result = stricter(result, top_p(row, filter.p, filter.filter_scale, candidates));
  if (filter.k) result = stricter(result, top_k(row, filter.k, min_p_first ? min_p.x : -kLargest, candidates));
  if (filter.p < 1.0f && !nucleus_of_all) {
    if (!filter.k) candidates.gather(row, min_p.x);
    std::uint64_t* keys = candidates.key.data();
    const std::uint64_t total = mass_of(keys, candidates.count, row.x_max, filter.filter_scale);
    result = stricter(result, nucleus(keys, candidates.count, nucleus_mass(filter.p, total), row.x_max, filter.filter_scale));
  }
  return result;
}

}  // namespace warpdraw::WARPDRAW_ISA
