// Where sample writes its results for a row; tokens may be int32 or int64, log-probabilities are optional.
#pragma once
#include "ops.h"

namespace warpdraw {

struct SampleOutputs {
  View<std::int64_t, 1> tokens;
  View<std::int32_t, 1> tokens_int32;
  View<bool, 1> valid;
  View<float, 1> logprob, raw_logprob;

  SampleOutputs(const Tensor& tokens_, const Tensor& valid_, const Tensor& logprob_, const Tensor& raw_logprob_)
      : valid(valid_), logprob(logprob_), raw_logprob(raw_logprob_) {
    if (tokens_.dtype == DType::i32)
      tokens_int32 = View<std::int32_t, 1>(tokens_);
    else
      tokens = View<std::int64_t, 1>(tokens_);
  }

  void accept(std::int64_t row, std::uint32_t token) const { write(row, token, true); }

  // A row with nothing to draw from: token -1, no probability.
  void reject(std::int64_t row) const {
    write(row, -1, false);
    if (logprob) logprob(row) = kNotANumber;
    if (raw_logprob) raw_logprob(row) = kNotANumber;
  }

 private:
  static constexpr float kNotANumber = __builtin_nanf("");

  void write(std::int64_t row, std::int64_t token, bool is_valid) const {
    if (tokens_int32)
      tokens_int32(row) = std::int32_t(token);
    else
      tokens(row) = token;
    valid(row) = is_valid;
  }
};

}  // namespace warpdraw
