// sample: one pass for the tile maxima, what the filters keep among a few candidates, then the race.
#include "cpu/race.h"
#include "cpu/report.h"

namespace warpdraw::WARPDRAW_ISA {
namespace {

struct Space {
  RowSpace row, raw;
  Candidates candidates;
  RaceSpace race;
};

template <typename T>
void sample_row(const Inputs& in, const SampleOutputs& out, Order order, const View<const T, 2>& logits, std::int64_t b) {
  thread_local Space space;
  const Noise noise{std::uint64_t(in.seed[b]), std::uint64_t(in.position[b])};
  const Edits edits = make_edits(in, b);
  Filter filter = make_filter(in, b, order, noise);
  if (!edits.valid || !filter.valid) return out.reject(b);
  bool drawn = false;
  std::uint32_t token = 0;
  with_row(logits.row(b), edits, space.row, [&](const auto& row) {
    if (!(row.x_max >= -kLargest)) return out.reject(b);
    const Interval keeps = select(row, filter, space.candidates);
    const float highest = highest_kept(row, keeps);
    token = filter.greedy() ? keeps.last.id : race(row, highest, filter.scale, keeps, noise, space.race);
    drawn = true;
    out.accept(b, token);
    report_kept(out, b, row, keeps);
    const bool top = out.top_of == TopOf::filtered && out.top_count();
    if (!out.logprob && !top) return;
    const std::uint64_t total = mass_kept(row, highest, filter.scale, keeps);
    if (out.logprob) out.logprob(b) = log_probability(exponent(row.logit(token), highest, filter.scale), total);
    if (top) report_top(out, b, row, keeps, highest, filter.scale, total, space.candidates);
  });
  if (!drawn || !out.needs_raw()) return;
  const std::int64_t vocab = logits.shape[1];
  Row<T> raw = plain_row(logits.row(b), vocab, space.raw);
  if (out.rank) out.rank(b) = rank_of(raw, token);
  use_finite(raw, space.raw, [&](const auto& row) { report_raw(out, b, row, token, space.candidates); });
}

}  // namespace

void sample(Queue, const Inputs& in, const Reports& reports) {
  const SampleOutputs out(reports);
  with_float(in.logits.dtype, [&]<typename T>() {
    const View<const T, 2> logits(in.logits);
    in_parallel(logits.shape[0], logits.shape[0] * logits.shape[1] * std::int64_t(sizeof(T)),
                [&](std::int64_t b) { sample_row(in, out, reports.order, logits, b); });
  });
}

}  // namespace warpdraw::WARPDRAW_ISA
