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

template <typename T> WD_HD inline Span<T> row_of(const View<const T, 2>& list, std::int64_t row) {
  if (!list) return {};
  return {list.row(row), list.shape[1]};
}

struct Edits {
  bool valid;
  std::int64_t vocab;          // ids from here on are no candidates
  Span<std::int32_t> bitmask;  // words of 32 bits, 1 allows
  Span<std::int32_t> allowed, banned, stop, bias_ids;
  Span<float> bias;
  Span<std::int32_t> history;  // as far as it counts
  std::int64_t prompt;         // length of the prompt in it
  std::int64_t least_output;   // tokens after it before one may stop
  float repetition, frequency, presence, dry_multiplier, dry_base;
  std::int64_t dry_allowed, ngram;
  Span<std::int32_t> breakers;
  bool stops_banned;  // too few tokens yet

  WD_HD void set_history(Span<std::int32_t> tokens) {
    history = tokens;
    stops_banned = history.size - prompt < least_output;
  }

  WD_HD bool counts_tokens() const { return repetition != 1.0f || frequency != 0.0f || presence != 0.0f; }
  WD_HD bool changes_row() const {
    return bitmask.size || allowed.size || banned.size || bias.size || (stop.size && stops_banned) || reads_history();
  }
  WD_HD bool reads_history() const { return history.size && (counts_tokens() || dry_multiplier > 0.0f || ngram > 0); }
};

// What can be said of a row without looking through its lists.
WD_HD inline Edits edits_of(const Parameters& in, std::int64_t row, std::int64_t vocab) {
  Edits e{};
  e.vocab = in.vocab_size[row];
  e.valid = e.vocab >= 0 && e.vocab <= vocab;
  if (e.vocab == 0) e.vocab = vocab;
  if (in.bitmask) e.bitmask = {in.bitmask.of(row), in.bitmask.size};
  e.valid = e.valid && (!in.bitmask || e.vocab <= 32 * e.bitmask.size);
  e.allowed = row_of(in.allowed_ids, row), e.banned = row_of(in.banned_ids, row), e.stop = row_of(in.stop_ids, row);
  e.bias_ids = row_of(in.bias_ids, row), e.bias = row_of(in.bias, row);

  e.history = row_of(in.history, row);
  if (in.history_length) {
    const std::int64_t length = in.history_length(row);
    e.valid = e.valid && length >= 0 && length <= e.history.size;
    e.history.size = length;
  }
  e.prompt = in.prompt_length[row];
  e.valid = e.valid && e.prompt >= 0 && e.prompt <= e.history.size;
  e.least_output = in.min_tokens[row];
  e.set_history(e.history);
  e.repetition = in.repetition_penalty[row], e.frequency = in.frequency_penalty[row], e.presence = in.presence_penalty[row];
  e.dry_multiplier = in.dry_multiplier[row], e.dry_base = in.dry_base[row], e.dry_allowed = in.dry_allowed_length[row];
  e.ngram = in.no_repeat_ngram[row];
  e.breakers = row_of(in.dry_breakers, row);
  e.valid = e.valid && e.least_output >= 0 && e.repetition > 0.0f && e.repetition <= kLargest &&
            fabsf(e.frequency) <= kLargest && fabsf(e.presence) <= kLargest && e.dry_multiplier >= 0.0f &&
            e.dry_multiplier <= kLargest && e.dry_base >= 1.0f && e.dry_base <= kLargest && e.dry_allowed >= 1 && e.ngram >= 0;
  return e;
}

// Whether the lists of a row that is valid so far hold what they may: all(count, test) says whether test(i) holds of every i.
template <typename All> WD_HD inline bool lists_are_valid(const Edits& e, std::int64_t vocab, All all) {
  const auto ids = [&](Span<std::int32_t> list, std::int32_t lowest = -1) {
    return all(list.size,
               [=](std::int64_t i) { return std::uint32_t(list[i]) - std::uint32_t(lowest) < std::uint32_t(vocab - lowest); });
  };
  bool valid = ids(e.allowed) && ids(e.banned) && ids(e.stop) && ids(e.bias_ids);
  valid = valid && all(e.bias.size, [&](std::int64_t i) { return e.bias_ids[i] < 0 || e.bias[i] == e.bias[i]; });
  if (valid && e.dry_multiplier > 0.0f) valid = ids(e.breakers);
  if (valid && e.reads_history()) valid = ids(e.history, 0);
  return valid;
}

static inline bool lists_are_valid(const Edits& edits, std::int64_t vocab) {
  return lists_are_valid(edits, vocab, [](std::int64_t count, auto test) {
    bool every = true;
    for (std::int64_t i = 0; i < count; ++i) every &= test(i);
    return every;
  });
}

static inline Edits make_edits(const Inputs& in, std::int64_t row) {
  const std::int64_t vocab = in.logits.shape[1];
  Edits edits = edits_of(in, row, vocab);
  edits.valid = edits.valid && lists_are_valid(edits, vocab);
  return edits;
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
