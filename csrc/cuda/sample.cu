// sample: what the filters keep of a row, then the race, then the reports.
#include "cuda/filters.cuh"
#include "cuda/race.cuh"
#include "cuda/report.cuh"
#include "cuda/rows.cuh"

namespace warpdraw::WARPDRAW_SIMT {
namespace {

struct SampleWork {
  Inputs in;
  SampleOutputs out;
  Order order;

  WD_DEVICE Noise noise(std::int64_t b) const { return {std::uint64_t(in.seed[b]), std::uint64_t(in.position[b])}; }
  WD_DEVICE Edits edits(std::int64_t b, std::int64_t vocab) const { return edits_of(in, b, vocab); }
  WD_DEVICE Filter filter(std::int64_t b) const { return make_filter(in, b, order, noise(b)); }
  WD_DEVICE void reject(const Team& team, std::int64_t b) const {
    if (team.rank == 0 && thread() == 0) out.reject(b);
  }

  template <typename T> WD_DEVICE void run(Row<T>& row, std::int64_t b, Filter& filter, std::int64_t each) const {
    const Interval keeps = Filters<T>(row, filter).chain().keeps;
    const float highest = highest_kept(row, keeps);
    Drawn drawn{keeps.last.id, keeps.last.x, row.has(keeps.last.id / kTile)};
    if (!filter.greedy()) drawn = Race<T>(row, keeps, highest, filter.scale, noise(b)).run();
    if (drawn.is_mine && thread() == 0) out.accept(b, drawn.token);
    report_kept(out, b, row, keeps);
    const bool top = out.top_of == TopOf::filtered && out.top_count();
    const bool writes = row.team.rank == 0 && thread() == 0;
    if (out.logprob || out.needs_raw()) tell(row, drawn);
    if (out.logprob || top) {
      const std::uint64_t total = mass_kept(row, highest, filter.scale, keeps);
      if (out.logprob && writes) out.logprob(b) = log_probability(exponent(drawn.x, highest, filter.scale), total);
      if (top) report_top(out, b, row, keeps, highest, filter.scale, total);
    }
    if (out.needs_raw()) report_raw(row, b, drawn.token, each, writes);
  }

 private:
  // Lets every block know what was drawn.
  template <typename T> WD_DEVICE static void tell(const Row<T>& row, Drawn& drawn) {
    std::uint64_t known = drawn.is_mine ? std::uint64_t(drawn.token + 1) << 32 | bits_of(drawn.x) : 0;
    known = row.team.largest(known);
    drawn.token = std::uint32_t(known >> 32) - 1, drawn.x = float_of(std::uint32_t(known));
  }
  // What is said of the row before restrictions, penalties and filters.
  template <typename T>
  WD_DEVICE void report_raw(Row<T>& row, std::int64_t b, std::uint32_t token, std::int64_t each, bool writes) const {
    if (row.overlay.changes() || row.vocab != row.size || row.marks_infinity) {
      row.team.claim();
      row.overlay = {}, row.vocab = row.size, row.marks_infinity = false;
      find_maxima(row);
      share_maxima(row, each);
    }
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

template <typename T> bool is_on(const PerRow<T>& parameter, T off) { return parameter.tensor || parameter.value != off; }

// Whether some row may need a sum over all of its tokens. With top_k it needs one over few.
bool sums_rows(const Inputs& in, const Reports& reports) {
  const SampleOutputs out(reports);
  const bool whole = is_on(in.top_p, 1.0f) || out.logprob || (out.top_of == TopOf::filtered && out.top_count());
  return (whole && !is_on(in.top_k, 0)) || out.needs_raw_mass() || is_on(in.typical_p, 1.0f) || is_on(in.top_n_sigma, 0.0f) ||
         is_on(in.dynatemp_range, 0.0f) || is_on(in.epsilon, 0.0f) || is_on(in.eta, 0.0f) || is_on(in.xtc_probability, 0.0f);
}

}  // namespace

void sample(Queue queue, const Inputs& in, const Reports& reports) {
  const SampleWork work{in, SampleOutputs(reports), reports.order};
  with_float(in.logits.dtype, [&]<typename T>() { run_rows<T>(queue, in.logits, &in, work, sums_rows(in, reports)); });
}

}  // namespace warpdraw::WARPDRAW_SIMT
