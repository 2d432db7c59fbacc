// What sample does with a row: the filters, the race, the reports.
#pragma once
#include "cuda/filters.cuh"
#include "cuda/race.cuh"
#include "cuda/report.cuh"
#include "cuda/rows.cuh"

namespace warpdraw::WARPDRAW_SIMT {

// Without kEverything: top_k, top_p, min_p, temperature and the log-probability, of rows as they are in memory.
template <bool kEverything> struct SampleWork {
  static constexpr bool kAll = kEverything;

  Inputs in;
  SampleOutputs out;
  Order order;

  WD_DEVICE Noise noise(std::int64_t b) const { return {std::uint64_t(in.seed[b]), std::uint64_t(in.position[b])}; }
  WD_DEVICE Edits edits(std::int64_t b, std::int64_t vocab) const { return edits_of(in, b, vocab); }
  WD_DEVICE Filter filter(std::int64_t b) const { return make_filter(in, b, order, noise(b)); }
  WD_DEVICE void reject(const Team& team, std::int64_t b) const {
    if (team.rank == 0 && thread() == 0) out.reject(b);
  }

  template <typename R> WD_DEVICE void run(R& row, std::int64_t b, Filter& filter) const {
    const Selection kept = Filters(row, filter).chain();
    const Interval keeps = kept.keeps;
    if (kShape.until == Until::filters) return reject(row.team, b);
    const float highest = highest_kept(row, keeps);
    Drawn drawn{keeps.last.id, keeps.last.x, row.has(keeps.last.id / kTile)};
    if (!filter.greedy()) drawn = race(row, kept, highest, filter.scale, noise(b));
    if (drawn.is_mine && thread() == 0) out.accept(b, drawn.token);
    const bool writes = row.team.rank == 0 && thread() == 0;
    if constexpr (kAll) {
      if (out.logprob || out.needs_raw()) tell(row, drawn);
      report_kept(out, b, row, keeps);
      const bool top = out.top_of == TopOf::filtered && out.top_count();
      if (out.logprob || top) {
        const std::uint64_t total = mass_kept(row, highest, filter.scale, keeps);
        if (out.logprob && writes) out.logprob(b) = log_probability(exponent(drawn.x, highest, filter.scale), total);
        if (top) report_top(out, b, row, keeps, highest, filter.scale, total);
      }
      if (out.needs_raw()) report_raw(row, b, drawn.token, writes);
    } else if (out.logprob) {
      const std::uint64_t total = mass_kept(row, highest, filter.scale, keeps);
      if (drawn.is_mine && thread() == 0) out.logprob(b) = log_probability(exponent(drawn.x, highest, filter.scale), total);
    }
  }

 private:
  // Lets every block know what was drawn.
  template <typename R> WD_DEVICE static void tell(const R& row, Drawn& drawn) {
    std::uint64_t known = drawn.is_mine ? std::uint64_t(drawn.token + 1) << 32 | bits_of(drawn.x) : 0;
    known = row.team.largest(known);
    drawn.token = std::uint32_t(known >> 32) - 1, drawn.x = float_of(std::uint32_t(known));
  }
  // What is said of the row before restrictions, penalties and filters.
  template <typename R> WD_DEVICE void report_raw(R& row, std::int64_t b, std::uint32_t token, bool writes) const {
    undo_changes(row);
    float x = row.has(token / kTile) ? row.at(token) : 0.0f;
    x = float_of(std::uint32_t(row.team.largest(row.has(token / kTile) ? bits_of(x) : 0)));
    if (out.rank) {
      const std::int32_t rank = rank_of(row, {x, token});
      if (writes) out.rank(b) = rank;
    }
    if (row.x_max > kLargest) x = indicator_of_infinity(x);
    mark_infinity(row);
    const Interval all{keep_none(), keep_all()};
    const std::uint64_t total = out.needs_raw_mass() ? mass_kept(row, row.x_max, kLog2E, all) : 1;
    if (out.raw_logprob && writes) out.raw_logprob(b) = log_probability(exponent(x, row.x_max, kLog2E), total);
    if (out.top_of == TopOf::raw && out.top_count()) report_top(out, b, row, all, row.x_max, kLog2E, total);
  }
};

// Runs the kernels that have every feature.
void sample_with_everything(const Queue& queue, const Inputs& in, const Reports& reports, bool reads_again);

}  // namespace warpdraw::WARPDRAW_SIMT
