// What restrictions, bias and penalties change of a row, kept beside it: the row itself is never written. It costs time in
// proportion to the lists and the history.
#pragma once
#include <algorithm>
#include <vector>

#include "core/edits.h"
#include "cpu/tile.h"

namespace warpdraw::WARPDRAW_ISA {

class Overlay {
 public:
  // Starts a row: its bitmask and allowed ids.
  void restrict_to(const Edits& edits, std::int64_t tiles) {
    words_ = edits.bitmask.data, word_count_ = edits.bitmask.size, vocab_ = edits.vocab, edited_ = false;
    if (std::none_of(edits.allowed.begin(), edits.allowed.end(), [](std::int32_t id) { return id >= 0; })) return;
    own_words_.assign(std::size_t(2 * tiles), 0);
    for (const std::int32_t id : edits.allowed)
      if (id >= 0 && may_be(id)) own_words_[std::size_t(id / 32)] |= std::int32_t(1u << id % 32);
    words_ = own_words_.data(), word_count_ = 2 * tiles;
  }
  bool restricts() const { return words_; }

  // Which tokens of a tile may be candidates, one bit each.
  WD_MEMBER std::uint64_t allowed(std::int64_t tile) const {
    if (!words_) return ~std::uint64_t(0);
    const std::uint32_t low = std::uint32_t(words_[2 * tile]);
    const std::uint32_t high = 2 * tile + 1 < word_count_ ? std::uint32_t(words_[2 * tile + 1]) : 0;
    return std::uint64_t(high) << 32 | low;
  }

  // Changes a tile that was read from the row.
  WD_MEMBER void apply(Tile& tile, std::int64_t index) const {
    const std::uint64_t mask = allowed(index);
    if (~mask)
      for (int i = 0; i < kVectors; ++i)
        tile.x[i] = choose(Mask(mask >> (i * kLanes)) & kAllLanes, tile.x[i], floats(-HUGE_VALF));
    if (edited_ && first_[std::size_t(index)] >= 0) apply_entries(tile, first_[std::size_t(index)]);
  }

  // Computes the edited logits from those of the row, and brings the maxima of their tiles up to date; rescan(tile) finds one.
  template <typename Logit, typename Rescan>
  void edit(const Edits& edits, std::int64_t tiles, Logit logit, float* maxima, Rescan rescan) {
    first_.assign(std::size_t(tiles), -1);
    entries_.clear();
    edited_ = true;
    for (std::int64_t i = 0; i < edits.bias_ids.size; ++i)
      if (Entry* e = entry(edits.bias_ids[i], logit)) e->x += edits.bias[i];
    if (edits.reads_history() && edits.counts_tokens()) penalize_counts(edits, logit);
    if (edits.reads_history() && (edits.dry_multiplier > 0.0f || edits.ngram > 0)) penalize_copies(edits, logit);
    const auto ban = [&](Span<std::int32_t> ids) {
      for (const std::int32_t id : ids)
        if (Entry* e = entry(id, logit)) e->x = -HUGE_VALF;
    };
    ban(edits.banned);
    if (edits.stops_banned) ban(edits.stop);

    for (std::size_t i = 0; i < entries_.size(); ++i) {
      const std::int64_t tile = entries_[i].id / kTile;
      if (first_[std::size_t(tile)] != std::int32_t(i)) continue;  // once a tile
      float highest = maxima[tile];
      bool lowered = false;
      for (std::int32_t at = std::int32_t(i); at >= 0; at = entries_[std::size_t(at)].next) {
        const Entry& e = entries_[std::size_t(at)];
        lowered |= !(e.was < maxima[tile]) && !(e.x >= e.was);
        if (e.x > highest) highest = e.x;
      }
      maxima[tile] = lowered ? rescan(tile) : highest;
    }
  }

 private:
  struct Entry {
    std::uint32_t id;
    std::int32_t next;                           // in the same tile, or -1
    float was, x;                                // the logit before and after
    std::int32_t in_history, in_output, copied;  // how often the id occurs; the longest copy of the history's end before it
  };

  bool may_be(std::int64_t id) const { return id < vocab_ && (!words_ || (std::uint32_t(words_[id / 32]) >> id % 32 & 1)); }

  // The entry of an id, null if it is no candidate anyway. It is valid until the next one is made.
  template <typename Logit> Entry* entry(std::int32_t id, Logit logit) {
    if (id < 0 || !may_be(id)) return nullptr;
    std::int32_t& first = first_[std::size_t(id / kTile)];
    for (std::int32_t at = first; at >= 0; at = entries_[std::size_t(at)].next)
      if (entries_[std::size_t(at)].id == std::uint32_t(id)) return &entries_[std::size_t(at)];
    const float x = logit(id);
    entries_.push_back({std::uint32_t(id), first, x, x, 0, 0, 0});
    first = std::int32_t(entries_.size() - 1);
    return &entries_.back();
  }

  template <typename Logit> void penalize_counts(const Edits& edits, Logit logit) {
    for (std::int64_t i = 0; i < edits.history.size; ++i)
      if (Entry* e = entry(edits.history[i], logit)) ++e->in_history, e->in_output += i >= edits.prompt;
    for (Entry& e : entries_) {
      if (!e.in_history) continue;
      e.x = penalize_repetition(e.x, edits.repetition);
      if (!e.in_output) continue;
      e.x -= edits.frequency * float(e.in_output);
      e.x -= edits.presence;
    }
  }

  template <typename Logit> void penalize_copies(const Edits& edits, Logit logit) {
    const Span<std::int32_t> h = edits.history;
    match_ends(h);
    if (edits.dry_multiplier > 0.0f) {
      const auto is_breaker = [&](std::int32_t id) {
        return std::find(edits.breakers.begin(), edits.breakers.end(), id) != edits.breakers.end();
      };
      std::int64_t limit = 0;  // a copy holds no breaker
      while (limit < h.size && !is_breaker(h[h.size - 1 - limit])) ++limit;
      for (std::int64_t j = 0; j + 1 < h.size; ++j) {
        const std::int64_t copied = std::min(matches_[std::size_t(j)], limit);
        if (copied < edits.dry_allowed || is_breaker(h[j + 1])) continue;
        if (Entry* e = entry(h[j + 1], logit)) e->copied = std::max(e->copied, std::int32_t(copied));
      }
      for (Entry& e : entries_)
        if (e.copied) e.x -= dry_penalty(edits.dry_multiplier, edits.dry_base, e.copied - edits.dry_allowed);
    }
    for (std::int64_t last = edits.ngram - 1; edits.ngram > 0 && last < h.size; ++last)
      if (edits.ngram == 1 || matches_[std::size_t(last - 1)] >= edits.ngram - 1)
        if (Entry* e = entry(h[last], logit)) e->x = -HUGE_VALF;
  }

  // For each place j of the history, how many tokens up to j are also the last ones of all: the Z-algorithm from the end.
  void match_ends(Span<std::int32_t> h) {
    const std::int64_t n = h.size;
    matches_.assign(std::size_t(n), 0);
    const auto at = [&](std::int64_t i) { return h[n - 1 - i]; };
    const auto z = [&](std::int64_t i) -> std::int64_t& { return matches_[std::size_t(n - 1 - i)]; };
    if (n) z(0) = n;
    for (std::int64_t i = 1, begin = 0, end = 0; i < n; ++i) {
      std::int64_t length = i < end ? std::min(end - i, z(i - begin)) : 0;
      while (i + length < n && at(length) == at(i + length)) ++length;
      z(i) = length;
      if (i + length > end) begin = i, end = i + length;
    }
  }

  void apply_entries(Tile& tile, std::int32_t first) const {
    alignas(64) float buffer[kTile];
    memcpy(buffer, &tile, sizeof tile);
    for (std::int32_t at = first; at >= 0; at = entries_[std::size_t(at)].next)
      buffer[entries_[std::size_t(at)].id % kTile] = entries_[std::size_t(at)].x;
    memcpy(&tile, buffer, sizeof tile);
  }

  const std::int32_t* words_ = nullptr;
  std::int64_t word_count_ = 0, vocab_ = 0;
  bool edited_ = false;
  std::vector<std::int32_t> own_words_;  // where a list of allowed ids joins the bitmask
  std::vector<std::int32_t> first_;      // entry of each tile, or -1
  std::vector<Entry> entries_;
  std::vector<std::int64_t> matches_;
};

}  // namespace warpdraw::WARPDRAW_ISA
