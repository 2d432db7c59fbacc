// Where sample writes its results for a row; tokens may be int32 or int64, most others are optional.
#pragma once
#include <cmath>

#include "ops.h"

namespace warpdraw {

struct SampleOutputs {
  View<std::int64_t, 1> tokens;
  View<std::int32_t, 1> tokens_int32;
  View<bool, 1> valid;
  View<float, 1> logprob, raw_logprob;
  View<std::int32_t, 1> rank, kept_count;
  View<std::int32_t, 2> kept_ids, top_ids;
  View<float, 2> top_logprobs;
  TopOf top_of;

  explicit SampleOutputs(const Reports& reports)
      : valid(reports.valid),
        logprob(reports.logprob),
        raw_logprob(reports.raw_logprob),
        rank(reports.rank),
        kept_count(reports.kept_count),
        kept_ids(reports.kept_ids),
        top_ids(reports.top_ids),
        top_logprobs(reports.top_logprobs),
        top_of(reports.top_of) {
    if (reports.tokens.dtype == DType::i32)
      tokens_int32 = View<std::int32_t, 1>(reports.tokens);
    else
      tokens = View<std::int64_t, 1>(reports.tokens);
  }

  WD_HD std::int64_t top_count() const { return top_ids ? top_ids.shape[1] : top_logprobs ? top_logprobs.shape[1] : 0; }
  WD_HD bool needs_raw_mass() const { return raw_logprob || (top_of == TopOf::raw && top_logprobs); }
  WD_HD bool needs_raw() const { return needs_raw_mass() || rank || (top_of == TopOf::raw && top_ids); }

  WD_HD void accept(std::int64_t row, std::uint32_t token) const { write(row, token, true); }

  // A row with nothing to draw from: token -1, no probability.
  WD_HD void reject(std::int64_t row) const {
    write(row, -1, false);
    if (logprob) logprob(row) = kNotANumber;
    if (raw_logprob) raw_logprob(row) = kNotANumber;
    if (rank) rank(row) = 0;
    if (kept_count) kept_count(row) = 0;
    fill_kept(row, 0);
    fill_top(row, 0);
  }

  WD_HD void set_top(std::int64_t row, std::int64_t place, std::uint32_t token, float value) const {
    if (top_ids) top_ids.row(row)[place] = std::int32_t(token);
    if (top_logprobs) top_logprobs.row(row)[place] = value;
  }
  // The places from `begin` on, which nothing fills.
  WD_HD void fill_top(std::int64_t row, std::int64_t begin) const {
    for (std::int64_t i = begin; i < top_count(); ++i) set_top(row, i, std::uint32_t(-1), -HUGE_VALF);
  }
  WD_HD void fill_kept(std::int64_t row, std::int64_t begin) const {
    for (std::int64_t i = begin; kept_ids && i < kept_ids.shape[1]; ++i) kept_ids.row(row)[i] = -1;
  }

 private:
  static constexpr float kNotANumber = __builtin_nanf("");

  WD_HD void write(std::int64_t row, std::int64_t token, bool is_valid) const {
    if (tokens_int32)
      tokens_int32(row) = std::int32_t(token);
    else
      tokens(row) = token;
    valid(row) = is_valid;
  }
};

}  // namespace warpdraw
