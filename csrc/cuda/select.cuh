// Where in the total order a sum over tokens crosses a target: the engine of top-k, top-p and typical-p. A histogram leaves few
// tokens to rank; where it leaves many, digits of their keys go on.
#pragma once
#include "cuda/sums.cuh"

namespace warpdraw::WARPDRAW_SIMT {

inline constexpr int kEach = kList / kThreads;  // of a thread
static_assert(kEach * kThreads == kList);

// Gathers the keys of the tokens that `take` wants, of tiles that reach x. Returns how many there are; they are in scratch.all,
// unless they are too many.
template <typename R, typename Take> WD_DEVICE std::uint32_t gather(const R& row, float x, Take take) {
  Scratch& scratch = row.scratch;
  row.team.claim();
  if (thread() == 0) scratch.count = 0;
  sync();
  row.over_tokens(x, [&](float logit, std::uint32_t id) {
    const bool mine = take(logit, id);
    const std::uint32_t taken = ballot(mine);
    if (!taken) return;
    std::uint32_t place = 0;
    if (lane() == 0) place = atomic_add(&scratch.count, std::uint32_t(popcount(taken)));
    place = shuffle(place, 0) + popcount(taken & ((1u << lane()) - 1));
    if (mine && place < kList) scratch.own[place] = rank_key(logit, id);
  });
  row.team.wait();
  // The lists of the blocks, one after another: the lane of a block knows where its list ends.
  const std::uint32_t count = row.team.of_peer(&scratch.count);
  std::uint32_t end = count;
  for (int by = 1; by < kWarp; by *= 2) {
    const std::uint32_t lower = shuffle_up(end, by);
    if (lane() >= by) end += lower;
  }
  const std::uint32_t total = shuffle(end, kWarp - 1);
  for (std::uint32_t base = 0; base < total && total <= kList; base += kThreads) {
    const std::uint32_t i = base + thread();
    int block = 0;
    for (int r = 0; r + 1 < row.team.size; ++r) block += i >= shuffle(end, r);
    const std::uint32_t begin = shuffle(end - count, block);
    if (i < total) scratch.all[i] = *peer(&scratch.own[i - begin], block);
  }
  row.team.lend();
  sync();
  return total;
}

// Sorts the gathered keys, the first of the total order first.
WD_DEVICE void rank(Scratch& scratch, std::uint32_t count) {
  std::uint64_t key[kEach];
  std::uint32_t place[kEach];
  WD_UNROLL
  for (int e = 0; e < kEach; ++e) {
    const std::uint32_t i = thread() + e * kThreads;
    place[e] = 0, key[e] = i < count ? scratch.all[i] : 0;
    for (std::uint32_t j = 0; i < count && j < count; ++j) place[e] += scratch.all[j] > key[e];
  }
  sync();
  WD_UNROLL
  for (int e = 0; e < kEach; ++e)
    if (thread() + e * kThreads < int(count)) scratch.all[place[e]] = key[e];
  sync();
}

// The first place of scratch.all, below count, where the sum of value(place) from the first on reaches the target; the last if
// none does. `before` is the sum up to there. A target of zero is reached by the first value that is more.
template <typename Value> WD_DEVICE std::uint32_t crossing(Team& team, Scratch& scratch, std::uint32_t count,
                                                           std::uint64_t target, Value value, std::uint64_t& before) {
  if (target == 0) target = 1;
  // Each thread has neighbouring places.
  std::uint64_t mine[kEach], sum = 0, total;
  WD_UNROLL
  for (int e = 0; e < kEach; ++e) {
    const std::uint32_t i = thread() * kEach + e;
    sum += mine[e] = i < count ? value(i) : 0;
  }
  std::uint64_t upto = team.block_sum_before(sum, total);
  if (thread() == 0 && total < target) scratch.found = count - 1, scratch.before = total - value(count - 1);
  WD_UNROLL
  for (int e = 0; e < kEach; ++e) {
    const std::uint32_t i = thread() * kEach + e;
    if (i < count && upto < target && upto + mine[e] >= target) scratch.found = i, scratch.before = upto;
    upto += mine[e];
  }
  sync();
  before = scratch.before;
  return scratch.found;
}

// Sums measure(logit) over tokens into scratch.all, by bin(logit, id), which is negative for those that do not take part.
template <typename R, typename Bin, typename Measure> WD_DEVICE void sum_bins(const R& row, float x, Bin bin, Measure measure) {
  Scratch& scratch = row.scratch;
  row.team.claim();
  for (int i = thread(); i < kList; i += kThreads) scratch.own[i] = 0;
  sync();
  row.over_tokens(x, [&](float logit, std::uint32_t id) {
    const int at = bin(logit, id);
    if (at < 0) return;
    if (const std::uint64_t m = measure(logit)) atomic_add(&scratch.own[at], m);
  });
  row.team.wait();
  for (int i = thread(); i < kList; i += kThreads) {
    std::uint64_t sum = 0;
    WD_UNROLL
    for (int r = 0; r < kMostBlocks; ++r) sum += r < row.team.size ? *peer(&scratch.own[i], r) : 0;
    scratch.all[i] = sum;
  }
  row.team.lend();
  sync();
}

// Where the sum crosses: a key, and the sum of what has larger ones.
struct Crossing {
  std::uint64_t key, before;
};

// The largest key such that measure(logit), summed over the tokens of this key and of larger ones, together with `before`
// reaches the target. key(logit, id) is zero for tokens that do not take part; the others' are in [low, high].
template <typename R, typename Key, typename Measure>
WD_DEVICE Crossing cross_keys(const R& row, float x, Key key, Measure measure, std::uint64_t low, std::uint64_t high,
                              std::uint64_t before, std::uint64_t target) {
  while (low < high) {
    int shift = 0;
    while ((high - low) >> shift >= kList) ++shift;
    sum_bins(
        row, x,
        [&](float logit, std::uint32_t id) {
          const std::uint64_t k = key(logit, id);
          return k >= low && k <= high && k ? int((high - k) >> shift) : -1;
        },
        measure);
    std::uint64_t inside;
    const std::uint64_t bin =
        crossing(row.team, row.scratch, kList, target - before, [&](std::uint32_t i) { return row.scratch.all[i]; }, inside);
    before += inside;
    high -= bin << shift;
    const std::uint64_t width = (std::uint64_t(1) << shift) - 1;
    low = high - low > width ? high - width : low;
  }
  return {high, before};
}

// Equal steps from one logit down to another; all that is lower falls into the last.
struct Steps {
  float half_high, per_unit;

  WD_DEVICE Steps(float low, float high) : half_high(high * 0.5f) {
    const float span = half_high - low * 0.5f;  // halves, so that it is finite
    per_unit = span > 0.0f ? fminf((kList - 1) / span, kLargest) : 0.0f;
  }
  WD_DEVICE int of(float x) const { return int(fminf((half_high - x * 0.5f) * per_unit, float(kList - 1))); }
};

// What a selection leaves of a row: an interval, and whether scratch.all holds exactly its tokens, ranked.
struct Selection {
  Interval keeps;
  std::int64_t listed = -1;  // how many; -1 if they are not listed
};

// What a token counts for: 1, or its mass.
struct Measure {
  bool counts;
  float highest, scale;  // of the mass

  WD_DEVICE std::uint64_t operator()(float x) const { return counts ? 1 : mass(weight(exponent(x, highest, scale))); }
};

// Ends the interval with the token where the sum of measure(logit) over it reaches the target, which it does at or above `low`.
// `high` is its largest logit.
template <typename R>
WD_CALL Selection cut(const R row, const Interval keeps, float low, float high, std::uint64_t target, const Measure measure) {
  const Steps steps(low, high);
  const auto in_play = [&](float logit, std::uint32_t id) { return logit >= low && keeps.keeps(logit, id); };
  sum_bins(row, low, [&](float logit, std::uint32_t id) { return in_play(logit, id) ? steps.of(logit) : -1; }, measure);
  std::uint64_t before, inside;
  const auto bins = [&](std::uint32_t i) { return row.scratch.all[i]; };
  const int bin = int(crossing(row.team, row.scratch, kList, target, bins, before));
  const auto member = [&](float logit, std::uint32_t id) { return in_play(logit, id) && steps.of(logit) == bin; };
  const std::uint32_t count = gather(row, low, member);
  if (count <= kList) {
    rank(row.scratch, count);
    const auto measured = [&](std::uint32_t i) { return measure(key_logit(row.scratch.all[i])); };
    const std::uint32_t at = crossing(row.team, row.scratch, count, target - before, measured, inside);
    return {{keeps.first, boundary_of(row.scratch.all[at])}};
  }
  const auto key = [&](float logit, std::uint32_t id) { return member(logit, id) ? rank_key(logit, id) : 0; };
  const Crossing found = cross_keys(row, low, key, measure, rank_key(low, kLastId), rank_key(high, 0), before, target);
  return {{keeps.first, boundary_of(found.key)}};
}

// A logit that at least k tiles reach with their maxima, and not many more; -kLargest if there are too few.
template <typename R> WD_DEVICE float pivot(const R& row, std::int64_t k) {
  const auto reaching = [&](float x) {
    std::uint64_t count = 0;
    for (int tile = thread(); tile < row.tiles; tile += kThreads) count += row.maxima[tile] >= x;
    return std::int64_t(row.team.block_sum(count));
  };
  if (reaching(-kLargest) < k) return -kLargest;
  std::uint64_t least = 0;  // of the maxima, those of candidates
  for (int tile = thread(); tile < row.tiles; tile += kThreads)
    if (row.maxima[tile] >= -kLargest) least = Largest{}(least, ~ordered(row.maxima[tile]));
  // A histogram of the maxima leaves little to look through.
  Scratch& scratch = row.scratch;
  const Steps steps(unordered(~std::uint32_t(row.team.block_largest(least))), row.x_max);
  auto* bins = reinterpret_cast<std::uint32_t*>(scratch.all);
  for (int i = thread(); i < kList; i += kThreads) bins[i] = 0;
  sync();
  for (int tile = thread(); tile < row.tiles; tile += kThreads)
    if (row.maxima[tile] >= -kLargest) atomic_add(&bins[steps.of(row.maxima[tile])], 1u);
  sync();
  std::uint64_t above;
  const auto tiles_in = [&](std::uint32_t i) { return std::uint64_t(bins[i]); };
  const int bin = int(crossing(row.team, scratch, kList, std::uint64_t(k), tiles_in, above));
  least = 0;
  std::uint64_t most = 0;  // of those in the bin
  for (int tile = thread(); tile < row.tiles; tile += kThreads) {
    if (!(row.maxima[tile] >= -kLargest) || steps.of(row.maxima[tile]) != bin) continue;
    least = Largest{}(least, ~ordered(row.maxima[tile])), most = Largest{}(most, ordered(row.maxima[tile]));
  }
  std::uint64_t ends[] = {least, most};
  row.team.in_block(ends, Largest{});
  std::uint32_t low = ~std::uint32_t(ends[0]), high = std::uint32_t(ends[1]);
  if (std::int64_t(above + bins[bin]) <= k + k / 4 + 4) high = low;
  for (int step = 0; low < high; ++step) {
    // The middle of the values converges fast on usual logits, the middle of the bits on any.
    std::uint32_t middle = low + (high - low + 1) / 2;
    if (step < 12) {
      middle = ordered(unordered(low) / 2 + unordered(high) / 2);
      middle = middle <= low ? low + 1 : middle > high ? high : middle;
    }
    const std::int64_t count = reaching(unordered(middle));
    if (count >= k) {
      low = middle;
      if (count <= k + k / 4 + 4) break;
    } else {
      high = middle - 1;
    }
  }
  return unordered(low);
}

// Lists the tokens of the interval that reach a logit; -1 if they are too many.
template <typename R> WD_CALL std::int64_t list(const R row, const Interval keeps, float x) {
  const std::uint32_t count =
      gather(row, x, [&](float logit, std::uint32_t id) { return logit >= x && keeps.keeps(logit, id); });
  if (count > kList) return -1;
  rank(row.scratch, count);
  return count;
}

// The first k tokens of what is seen.
template <typename R> WD_CALL Selection keep_first(const R row, const Selection seen, std::int64_t k) {
  const Interval keeps = seen.keeps;
  if (keeps.is_prefix() && k <= row.tiles && k <= kList) {  // the maxima of the tiles tell without reading the row again
    const float x = fmaxf(pivot(row, k), keeps.last.x);
    const std::int64_t listed = list(row, keeps, x);
    if (listed >= k) return {{keeps.first, boundary_of(row.scratch.all[k - 1])}, k};
    if (listed >= 0 && x <= keeps.last.x) return {keeps, listed};  // all that is seen
  }
  const std::int64_t count = sums_kept(row, row.x_max, kLog2E, keeps).count;
  if (count <= k) return {keeps};
  return cut(row, keeps, lowest_kept(row, keeps), highest_kept(row, keeps), std::uint64_t(k), {true, 0.0f, 0.0f});
}

// Ranks the first tokens of an interval, at most so many, in scratch.all; returns how many there are.
template <typename R> WD_DEVICE std::int64_t rank_first(const R& row, const Interval& keeps, std::int64_t most) {
  const Selection first = keep_first(row, Selection{keeps}, most < kList ? most : kList);
  return first.listed >= 0 ? first.listed : list(row, first.keeps, first.keeps.last.x);
}

}  // namespace warpdraw::WARPDRAW_SIMT
