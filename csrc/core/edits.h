// One row's restrictions, bias and penalties: what changes logits before the temperature, and where it is read from.
#pragma once
#include "core/numerics.h"
#include "ops.h"

namespace warpdraw {

// A row of a tensor whose last axis is dense.
template <typename T> struct Span {
  const T* data = nullptr;
  std::int64_t size = 0;

  WD_HD const T& operator[](std::int64_t i) const { return data[i]; }
  WD_HD const T* begin() const { return data; }
  WD_HD const T* end() const { return data + size; }
};

template <typename T> static inline Span<T> row_of(const Tensor& tensor, std::int64_t row) {
  if (!tensor.present) return {};
  return {static_cast<const T*>(tensor.data) + row * tensor.stride[0], tensor.shape[1]};
}

struct Edits {
  bool valid;
  std::int64_t vocab;          // ids from here on are no candidates
  Span<std::int32_t> bitmask;  // words of 32 bits, 1 allows
  Span<std::int32_t> allowed, banned, stop, bias_ids;
  Span<float> bias;
  Span<std::int32_t> history;  // as far as it counts
  std::int64_t prompt;         // length of the prompt in it
  float repetition, frequency, presence, dry_multiplier, dry_base;
  std::int64_t dry_allowed, ngram;
  Span<std::int32_t> breakers;
  bool stops_banned;  // too few tokens yet

  WD_HD bool counts_tokens() const { return repetition != 1.0f || frequency != 0.0f || presence != 0.0f; }
  WD_HD bool changes_row() const {
    return bitmask.size || allowed.size || banned.size || bias.size || (stop.size && stops_banned) || reads_history();
  }
  WD_HD bool reads_history() const { return history.size && (counts_tokens() || dry_multiplier > 0.0f || ngram > 0); }
};

// Whether all ids lie in [lowest, vocab).
static inline bool all_ids(Span<std::int32_t> ids, std::int64_t vocab, std::int32_t lowest = -1) {
  std::uint32_t outside = 0;
  for (const std::int32_t id : ids) outside |= std::uint32_t(id) - std::uint32_t(lowest) >= std::uint32_t(vocab - lowest);
  return !outside;
}

static inline Edits make_edits(const Inputs& in, std::int64_t row) {
  const std::int64_t all = in.logits.shape[1];
  Edits e{};
  e.vocab = in.vocab_size[row];
  e.valid = e.vocab >= 0 && e.vocab <= all;
  if (e.vocab == 0) e.vocab = all;
  e.bitmask = row_of<std::int32_t>(in.bitmask, row);
  e.valid = e.valid && (!in.bitmask.present || e.vocab <= 32 * e.bitmask.size);
  e.allowed = row_of<std::int32_t>(in.allowed_ids, row), e.banned = row_of<std::int32_t>(in.banned_ids, row);
  e.stop = row_of<std::int32_t>(in.stop_ids, row);
  e.bias_ids = row_of<std::int32_t>(in.bias_ids, row), e.bias = row_of<float>(in.bias, row);
  e.valid = e.valid && all_ids(e.allowed, all) && all_ids(e.banned, all) && all_ids(e.stop, all) && all_ids(e.bias_ids, all);
  for (std::int64_t i = 0; i < e.bias.size; ++i) e.valid = e.valid && (e.bias_ids[i] < 0 || e.bias[i] == e.bias[i]);

  e.history = row_of<std::int32_t>(in.history, row);
  if (in.history_length.present) {
    const std::int64_t length = View<const std::int32_t, 1>(in.history_length)(row);
    e.valid = e.valid && length >= 0 && length <= e.history.size;
    e.history.size = length;
  }
  e.prompt = in.prompt_length[row];
  e.valid = e.valid && e.prompt >= 0 && e.prompt <= e.history.size;
  const std::int64_t least = in.min_tokens[row];
  e.stops_banned = e.history.size - e.prompt < least;
  e.repetition = in.repetition_penalty[row], e.frequency = in.frequency_penalty[row], e.presence = in.presence_penalty[row];
  e.dry_multiplier = in.dry_multiplier[row], e.dry_base = in.dry_base[row], e.dry_allowed = in.dry_allowed_length[row];
  e.ngram = in.no_repeat_ngram[row];
  e.breakers = row_of<std::int32_t>(in.dry_breakers, row);
  e.valid = e.valid && least >= 0 && e.repetition > 0.0f && e.repetition <= kLargest && fabsf(e.frequency) <= kLargest &&
            fabsf(e.presence) <= kLargest && e.dry_multiplier >= 0.0f && e.dry_multiplier <= kLargest && e.dry_base >= 1.0f &&
            e.dry_base <= kLargest && e.dry_allowed >= 1 && e.ngram >= 0;
  if (e.valid && e.dry_multiplier > 0.0f) e.valid = all_ids(e.breakers, all);
  if (e.valid && e.reads_history()) e.valid = all_ids(e.history, all, 0);
  return e;
}

// Keskar et al. 2019: the sign decides, so that r > 1 always makes a token less likely.
WD_HD inline float penalize_repetition(float x, float r) { return x > 0.0f ? x / r : x * r; }

// m * b^extra, finite.
WD_HD inline float dry_penalty(float multiplier, float base, std::int64_t extra) {
  float power = 1.0f;
  for (std::int64_t i = 0; i < extra && power < kLargest && base > 1.0f; ++i) power *= base;
  const float penalty = multiplier * (power < kLargest ? power : kLargest);
  return penalty < kLargest ? penalty : kLargest;
}

}  // namespace warpdraw
