// What sample reports beside the token.
#pragma once
#include "core/outputs.h"
#include "cpu/select.h"

namespace warpdraw::WARPDRAW_ISA {

// The place of a token in the total order of the row as it is in memory, +inf included; from 1.
template <typename T> std::int32_t rank_of(const Row<T>& row, std::uint32_t token) {
  const float x = row.logit(token);
  std::int64_t before = 0;
  row.for_tiles_reaching(x, [&](std::int64_t tile) {
    const Tile here = row.read(tile);
    before += __builtin_popcountll(kept_in_tile(here, tile, Boundary{x, token}));
  });
  return std::int32_t(before);
}

template <typename T> void report_kept(const SampleOutputs& out, std::int64_t b, const Row<T>& row, const Interval& keeps) {
  if (!out.kept_count && !out.kept_ids) return;
  const std::int64_t room = out.kept_ids ? out.kept_ids.shape[1] : 0;
  std::int64_t count = 0;
  row.for_tiles_reaching(keeps.last.x, [&](std::int64_t tile) {
    std::uint64_t mask = kept_in_tile(row.read(tile), tile, keeps);
    std::int64_t place = count;
    count += __builtin_popcountll(mask);
    for (; mask && place < room; mask &= mask - 1)
      out.kept_ids.row(b)[place++] = std::int32_t(tile * kTile + __builtin_ctzll(mask));
  });
  if (out.kept_count) out.kept_count(b) = std::int32_t(count);
  out.fill_kept(b, count);
}

template <typename T> void report_top(const SampleOutputs& out, std::int64_t b, const Row<T>& row, const Interval& keeps,
                                      float highest, float scale, std::uint64_t total, Candidates& candidates) {
  const std::size_t count = rank_first(row, out.top_count(), keeps, candidates);
  std::uint64_t* keys = candidates.key.data();
  std::sort(keys, keys + count, std::greater<>());
  for (std::size_t i = 0; i < count; ++i)
    out.set_top(b, std::int64_t(i), key_id(keys[i]), log_probability(exponent(key_logit(keys[i]), highest, scale), total));
  out.fill_top(b, std::int64_t(count));
}

// What is said of the row before restrictions, penalties and filters.
template <typename T>
void report_raw(const SampleOutputs& out, std::int64_t b, const Row<T>& row, std::uint32_t token, Candidates& candidates) {
  const std::uint64_t total = out.needs_raw_mass() ? mass_of_all(row, row.x_max, kLog2E) : 1;
  if (out.raw_logprob) out.raw_logprob(b) = log_probability(exponent(row.logit(token), row.x_max, kLog2E), total);
  if (out.top_of == TopOf::raw && out.top_count())
    report_top(out, b, row, {keep_none(), keep_all()}, row.x_max, kLog2E, total, candidates);
}

}  // namespace warpdraw::WARPDRAW_ISA
