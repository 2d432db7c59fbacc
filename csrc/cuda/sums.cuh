// Exact sums over what an interval of the total order keeps of a row, and the logits at its ends. Weights are relative to the
// logit `highest`.
#pragma once
#include "core/filter.h"
#include "cuda/row.cuh"

namespace warpdraw::WARPDRAW_SIMT {

// Calls visit(logit, id, whether it is kept) for the tokens of the tiles that reach x.
template <typename R, typename Visit> WD_DEVICE void over_kept(const R& row, const Interval& keeps, float x, Visit visit) {
  row.over_tokens(x, [&](float logit, std::uint32_t id) { visit(logit, id, keeps.keeps(logit, id)); });
}
template <typename R, typename Visit> WD_DEVICE void over_kept(const R& row, const Interval& keeps, Visit visit) {
  over_kept(row, keeps, keeps.last.x, visit);
}

// A logit below which every mass is zero.
WD_DEVICE float massless_below(float highest, float scale) { return highest - 41.0f / scale; }

template <typename R> WD_CALL std::uint64_t mass_kept(const R row, float highest, float scale, const Interval keeps) {
  std::uint64_t sum = 0;
  const float x = fmaxf(keeps.last.x, massless_below(highest, scale));
  over_kept(row, keeps, x, [&](float logit, std::uint32_t, bool kept) {
    if (kept) sum += mass(weight(exponent(logit, highest, scale)));
  });
  return row.team.sum(sum);
}

template <typename R> WD_CALL Sums sums_kept(const R row, float highest, float scale, const Interval keeps) {
  std::uint64_t sums[3] = {};
  over_kept(row, keeps, [&](float logit, std::uint32_t, bool kept) {
    if (!kept) return;
    const float t = exponent(logit, highest, scale);
    sums[0] += mass(weight(t)), sums[1] += moment(t), ++sums[2];
  });
  row.team.in_team(sums, Sum{});
  return {sums[0], sums[1], std::int64_t(sums[2])};
}

template <typename R> WD_CALL float search_highest(const R row, const Interval keeps) {
  std::uint64_t highest = 0;
  over_kept(row, keeps, [&](float logit, std::uint32_t, bool kept) {
    if (kept) highest = Largest{}(highest, ordered(logit));
  });
  return unordered(std::uint32_t(row.team.largest(highest)));
}
template <typename R> WD_DEVICE float highest_kept(const R& row, const Interval& keeps) {
  return keeps.is_prefix() ? row.x_max : search_highest(row, keeps);
}

template <typename R> WD_CALL float lowest_kept(const R row, const Interval keeps) {
  std::uint64_t lowest = 0;
  over_kept(row, keeps, [&](float logit, std::uint32_t, bool kept) {
    if (kept) lowest = Largest{}(lowest, ~ordered(logit));
  });
  return unordered(~std::uint32_t(row.team.largest(lowest)));
}

struct Ids {
  std::uint32_t first, last;
};
// Of the kept tokens of one logit.
template <typename R> WD_CALL Ids ids_of(const R row, float x, const Interval keeps) {
  std::uint64_t found[2] = {};
  over_kept(row, keeps, x, [&](float logit, std::uint32_t id, bool kept) {
    if (!kept || logit != x) return;
    found[0] = Largest{}(found[0], ~id), found[1] = Largest{}(found[1], id);
  });
  row.team.in_team(found, Largest{});
  return {~std::uint32_t(found[0]), std::uint32_t(found[1])};
}

// The smallest logit up to `highest` of which `enough` holds; it goes on holding as the logit grows. The highest if it holds of
// none. A warp asks about 32 at a time.
template <typename Enough> WD_DEVICE float lowest_logit(float highest, Enough enough) {
  std::uint32_t low = ordered(-kLargest), high = ordered(highest);
  while (low < high) {
    const std::uint32_t step = (high - low) / kWarp + 1;  // asked: low, low + step, ...; beyond `high` it holds
    const std::uint64_t mine = low + std::uint64_t(step) * lane();
    bool holds = true;
    if (mine < high) holds = enough(unordered(std::uint32_t(mine)));
    const std::uint32_t holding = ballot(holds);
    const int first = holding ? lowest_bit(holding) : kWarp;
    const std::uint64_t at = low + std::uint64_t(step) * first;
    if (at < high) high = std::uint32_t(at);
    if (first > 0) low += step * (first - 1) + 1;
  }
  return unordered(high);
}

}  // namespace warpdraw::WARPDRAW_SIMT
