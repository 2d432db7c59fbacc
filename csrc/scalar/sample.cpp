// sample by definition: filter, draw, report.
#include "core/outputs.h"
#include "scalar/draw.h"
#include "scalar/edits.h"

namespace warpdraw::scalar {
namespace {

// The first tokens of what is seen, and their log-probabilities.
void report_top(const SampleOutputs& out, std::int64_t b, const Row& row, Places seen, float scale) {
  if (out.top_count() == 0) return;
  const std::uint64_t total = row.sums(seen, scale).mass;
  std::size_t place = 0;
  for (; place < std::size_t(out.top_count()) && seen.begin + place < seen.end; ++place)
    out.set_top(b, std::int64_t(place), key_id(row.ranked[seen.begin + place]),
                log_probability(row.exponent_of(seen, seen.begin + place, scale), total));
  out.fill_top(b, std::int64_t(place));
}

void report_kept(const SampleOutputs& out, std::int64_t b, const Row& row, Places kept) {
  if (out.kept_count) out.kept_count(b) = std::int32_t(kept.end - kept.begin);
  if (!out.kept_ids) return;
  std::vector<std::uint32_t> ids;
  for (std::size_t i = kept.begin; i < kept.end; ++i) ids.push_back(key_id(row.ranked[i]));
  std::sort(ids.begin(), ids.end());
  ids.resize(std::min(ids.size(), std::size_t(out.kept_ids.shape[1])));
  std::copy(ids.begin(), ids.end(), out.kept_ids.row(b));
  out.fill_kept(b, std::int64_t(ids.size()));
}

}  // namespace

void sample(Queue, const Inputs& in, const Reports& reports) {
  const SampleOutputs out(reports);
  with_float(in.logits.dtype, [&]<typename T>() {
    const View<const T, 2> logits(in.logits);
    for (std::int64_t b = 0; b < logits.shape[0]; ++b) {
      const Noise noise{std::uint64_t(in.seed[b]), std::uint64_t(in.position[b])};
      const Edits edits = make_edits(in, b);
      Filter filter = make_filter(in, b, reports.order, noise);
      if (!edits.valid || !filter.valid) {
        out.reject(b);
        continue;
      }
      const std::vector<float> raw_logits = to_floats(logits.row(b), logits.shape[1]);
      std::vector<float> edited = raw_logits;
      edit_row(edits, edited);
      const Row row(edited), raw(raw_logits);
      const Places kept = row.kept(filter);
      if (kept.begin == kept.end) {
        out.reject(b);
        continue;
      }
      const std::uint32_t token = draw(row, kept, filter.scale, noise);
      out.accept(b, token);
      const auto log_probability_in = [&](const Row& of, Places seen, float scale) {
        const float t = exponent(of.x[token], of.logit(seen.begin), scale);
        return log_probability(t, of.sums(seen, scale).mass);
      };
      if (out.logprob) out.logprob(b) = log_probability_in(row, kept, filter.scale);
      if (out.raw_logprob) out.raw_logprob(b) = log_probability_in(raw, raw.all(), kLog2E);
      if (out.rank) {
        const float x = raw_logits[token];
        std::int32_t before = 0;
        for (std::size_t i = 0; i < raw_logits.size(); ++i) before += raw_logits[i] > x || (raw_logits[i] == x && i < token);
        out.rank(b) = before + 1;
      }
      report_kept(out, b, row, kept);
      if (out.top_of == TopOf::filtered)
        report_top(out, b, row, kept, filter.scale);
      else
        report_top(out, b, raw, raw.all(), kLog2E);
    }
  });
}

}  // namespace warpdraw::scalar
