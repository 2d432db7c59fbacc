// Restrictions, bias and penalties by definition, each over the whole row or the whole history.
#pragma once
#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "core/edits.h"

namespace warpdraw::scalar {

inline bool contains(Span<std::int32_t> ids, std::int64_t id) { return std::find(ids.begin(), ids.end(), id) != ids.end(); }

// How many of the tokens before the end of the history, breakers excluded, are also the ones up to place j.
inline std::int64_t copied(const Edits& edits, std::int64_t j) {
  const Span<std::int32_t> h = edits.history;
  std::int64_t n = 0;
  while (n <= j && h[j - n] == h[h.size - 1 - n] && !contains(edits.breakers, h[j - n])) ++n;
  return n;
}

inline void edit_row(const Edits& edits, std::vector<float>& x) {
  const float none = -HUGE_VALF;
  const Span<std::int32_t> h = edits.history;

  const bool restricted = std::any_of(edits.allowed.begin(), edits.allowed.end(), [](std::int32_t id) { return id >= 0; });
  for (std::int64_t id = 0; id < std::int64_t(x.size()); ++id)
    if (id >= edits.vocab || (edits.bitmask.size && !(std::uint32_t(edits.bitmask[id / 32]) >> id % 32 & 1)) ||
        (restricted && !contains(edits.allowed, id)))
      x[id] = none;

  for (std::int64_t i = 0; i < edits.bias_ids.size; ++i)
    if (edits.bias_ids[i] >= 0) x[edits.bias_ids[i]] += edits.bias[i];

  if (edits.counts_tokens()) {
    std::map<std::int32_t, int> in_output;  // of each id of the history
    for (std::int64_t i = 0; i < h.size; ++i) in_output[h[i]] += i >= edits.prompt;
    for (const auto& [id, count] : in_output) {
      x[id] = penalize_repetition(x[id], edits.repetition);
      if (count == 0) continue;
      x[id] -= edits.frequency * float(count);
      x[id] -= edits.presence;
    }
  }

  if (edits.dry_multiplier > 0.0f) {
    std::map<std::int32_t, std::int64_t> longest;
    for (std::int64_t j = 0; j + 1 < h.size; ++j)
      if (!contains(edits.breakers, h[j + 1])) longest[h[j + 1]] = std::max(longest[h[j + 1]], copied(edits, j));
    for (const auto& [id, n] : longest)
      if (n >= edits.dry_allowed) x[id] -= dry_penalty(edits.dry_multiplier, edits.dry_base, n - edits.dry_allowed);
  }

  if (edits.ngram > 0)
    for (std::int64_t j = 0; j + edits.ngram <= h.size; ++j)
      if (std::equal(h.data + j, h.data + j + edits.ngram - 1, h.data + h.size - (edits.ngram - 1)))
        x[h[j + edits.ngram - 1]] = none;

  for (const std::int32_t id : edits.banned)
    if (id >= 0) x[id] = none;
  for (const std::int32_t id : edits.stop)
    if (id >= 0 && edits.stops_banned) x[id] = none;
}

}  // namespace warpdraw::scalar
