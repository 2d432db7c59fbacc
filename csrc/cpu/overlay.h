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
    reset(own_words_, 2 * tiles, 0);
    for (const std::int32_t id : edits.allowed)
      if (id >= 0 && may_be(id)) own_words_[std::size_t(id / 32)] |= std::int32_t(1u << id % 32);
    words_ = own_words_.data(), word_count_ = 2 * tiles;
  }
  bool restricts() const { return words_; }

  // Which tokens of a tile may be candidates, one bit each.
  WD_MEMBER std::uint64_t allowed(std::int64_t tile) const {
    std::uint64_t mask = ~std::uint64_t(0);
    if (words_ && 2 * tile + 1 < word_count_)
      memcpy(&mask, words_ + 2 * tile, sizeof mask);
    else if (words_)
      mask = std::uint32_t(words_[2 * tile]);
    return mask;
  }

  // Changes a tile that was read from the row.
  WD_MEMBER void apply(Tile& tile, std::int64_t index) const {
    restrict_tile(tile, allowed(index));
    if (edited_ && known_[std::size_t(index)]) apply_entries(tile, std::size_t(index));
  }
  static WD_MEMBER void restrict_tile(Tile& tile, std::uint64_t mask) {
    if (~mask)
      for (int i = 0; i < kVectors; ++i)
        tile.x[i] = choose(Mask(mask >> (i * kLanes)) & kAllLanes, tile.x[i], floats(-HUGE_VALF));
  }

  // Computes the edited logits from those of the row, and brings the maxima of their tiles up to date; rescan(tile) finds one.
  template <typename Logit, typename Rescan>
  void edit(const Edits& edits, std::int64_t tiles, Logit logit, float* maxima, Rescan rescan) {
    reset(known_, tiles, std::uint64_t(0)), reset(block_, tiles, 0);
    count_ = blocks_ = 0, edited_ = true;
    make_room(edits.bias_ids.size + edits.history.size + edits.banned.size + edits.stop.size, tiles);
    for (std::int64_t i = 0; i < edits.bias_ids.size; ++i)
      if (const std::int32_t at = entry(edits.bias_ids[i], logit); at >= 0) x_[at] += edits.bias[i];
    if (edits.reads_history() && edits.counts_tokens()) penalize_counts(edits, logit);
    if (edits.reads_history() && (edits.dry_multiplier > 0.0f || edits.ngram > 0)) penalize_copies(edits, logit);
    const auto ban = [&](Span<std::int32_t> ids) {
      for (const std::int32_t id : ids)
        if (const std::int32_t at = entry(id, logit); at >= 0) x_[at] = -HUGE_VALF;
    };
    ban(edits.banned);
    if (edits.stops_banned) ban(edits.stop);

    reset(searched_, blocks_, std::uint32_t(0));
    for (std::int32_t at = 0; at < count_; ++at) {  // a tile's maximum changes if it was this token, or this token exceeds it
      const std::size_t tile = std::size_t(id_[std::size_t(at)] / kTile);
      if (was_[std::size_t(at)] < maxima[tile] && !(x_[std::size_t(at)] > maxima[tile])) continue;
      if (searched_[std::size_t(block_[tile])]++ == 0) maxima[tile] = rescan(std::int64_t(tile));
    }
  }

 private:
  template <typename T> static void reset(std::vector<T>& room, std::int64_t count, T value) {
    if (std::int64_t(room.size()) < count) room.resize(std::size_t(count));
    std::fill_n(room.begin(), count, value);
  }
  bool may_be(std::int64_t id) const { return id < vocab_ && (!words_ || (std::uint32_t(words_[id / 32]) >> id % 32 & 1)); }

  void make_room(std::int64_t entries, std::int64_t tiles) {
    const std::size_t room = std::size_t(entries + kLanes), blocks = std::size_t(std::min(entries, tiles));
    if (searched_.size() < blocks) searched_.resize(blocks), place_.resize(blocks * kTile);
    if (id_.size() >= room) return;
    id_.resize(room), in_history_.resize(room), in_output_.resize(room);
    was_.resize(room), x_.resize(room), copied_.resize(room);
  }

  // The entry of an id, a new one if it has none yet, without its logit; -1 if it is no candidate anyway.
  WD_MEMBER std::int32_t entry_without_logit(std::int32_t id) {
    if (id < 0 || !may_be(id)) return -1;
    const std::size_t tile = std::size_t(id / kTile);
    const std::uint64_t bit = std::uint64_t(1) << id % kTile;
    if (known_[tile] & bit) return place_[std::size_t(block_[tile]) * kTile + std::size_t(id % kTile)];
    if (!known_[tile]) block_[tile] = blocks_++;
    known_[tile] |= bit;
    const std::int32_t at = count_++;
    id_[std::size_t(at)] = std::uint32_t(id), in_history_[std::size_t(at)] = in_output_[std::size_t(at)] = 0;
    return place_[std::size_t(block_[tile]) * kTile + std::size_t(id % kTile)] = at;
  }
  template <typename Logit> void read_logits(std::int32_t begin, Logit logit) {
    for (std::int32_t at = begin; at < count_; ++at) was_[std::size_t(at)] = x_[std::size_t(at)] = logit(id_[std::size_t(at)]);
  }
  template <typename Logit> std::int32_t entry(std::int32_t id, Logit logit) {
    const std::int32_t known = count_, at = entry_without_logit(id);
    read_logits(known, logit);
    return at;
  }

  template <typename Logit> void penalize_counts(const Edits& edits, Logit logit) {
    const std::int32_t known = count_;
    const auto count = [&](std::int64_t begin, std::int64_t end, std::int32_t in_output) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int32_t at = entry_without_logit(edits.history[i]);
        if (at >= 0) in_history_[std::size_t(at)] = 1, in_output_[std::size_t(at)] += in_output;
      }
    };
    count(0, edits.prompt, 0);
    count(edits.prompt, edits.history.size, 1);
    read_logits(known, logit);
    for (std::int32_t at = 0; at < count_; at += kLanes) {  // with the operations of penalize_repetition()
      Ints in_history, in_output;
      memcpy(&in_history, &in_history_[std::size_t(at)], sizeof in_history);
      memcpy(&in_output, &in_output_[std::size_t(at)], sizeof in_output);
      const Floats x = load(&x_[std::size_t(at)]), zero = floats(0.0f);
      const Floats repeated = choose(above(x, zero), x / edits.repetition, x * edits.repetition);
      const Floats less = repeated - __builtin_convertvector(in_output, Floats) * edits.frequency - edits.presence;
      const Floats result = choose(bits(in_output > 0), less, choose(bits(in_history > 0), repeated, x));
      memcpy(&x_[std::size_t(at)], &result, sizeof result);
    }
  }

  template <typename Logit> void penalize_copies(const Edits& edits, Logit logit) {
    const Span<std::int32_t> h = edits.history;
    match_ends(h);
    if (edits.dry_multiplier > 0.0f) {
      const auto is_breaker = [&](std::int32_t id) {
        return std::find(edits.breakers.begin(), edits.breakers.end(), id) != edits.breakers.end();
      };
      std::fill(copied_.begin(), copied_.end(), 0);
      std::int64_t limit = 0;  // a copy holds no breaker
      while (limit < h.size && !is_breaker(h[h.size - 1 - limit])) ++limit;
      for (std::int64_t j = 0; j + 1 < h.size; ++j) {
        const std::int64_t copied = std::min(matches_[std::size_t(j)], limit);
        if (copied < edits.dry_allowed || is_breaker(h[j + 1])) continue;
        if (const std::int32_t at = entry(h[j + 1], logit); at >= 0)
          copied_[std::size_t(at)] = std::max(copied_[std::size_t(at)], copied);
      }
      for (std::int32_t at = 0; at < count_; ++at)
        if (const std::int64_t copied = copied_[std::size_t(at)])
          x_[std::size_t(at)] -= dry_penalty(edits.dry_multiplier, edits.dry_base, copied - edits.dry_allowed);
    }
    for (std::int64_t last = edits.ngram - 1; edits.ngram > 0 && last < h.size; ++last)
      if (edits.ngram == 1 || matches_[std::size_t(last - 1)] >= edits.ngram - 1)
        if (const std::int32_t at = entry(h[last], logit); at >= 0) x_[std::size_t(at)] = -HUGE_VALF;
  }

  // For each place j of the history, how many tokens up to j are also the last ones of all: the Z-algorithm from the end.
  void match_ends(Span<std::int32_t> h) {
    const std::int64_t n = h.size;
    reset(matches_, n, std::int64_t(0));
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

  void apply_entries(Tile& tile, std::size_t index) const {
    alignas(64) float buffer[kTile];
    memcpy(buffer, &tile, sizeof tile);
    const std::int32_t* place = &place_[std::size_t(block_[index]) * kTile];
    for (std::uint64_t left = known_[index]; left; left &= left - 1) {
      const int i = __builtin_ctzll(left);
      buffer[i] = x_[std::size_t(place[i])];
    }
    memcpy(&tile, buffer, sizeof tile);
  }

  const std::int32_t* words_ = nullptr;
  std::int64_t word_count_ = 0, vocab_ = 0;
  bool edited_ = false;
  std::vector<std::int32_t> own_words_;  // where a list of allowed ids joins the bitmask
  std::vector<std::uint64_t> known_;     // which tokens of each tile have an entry
  std::vector<std::int32_t> block_;      // where the tile keeps their places, if it has some
  std::vector<std::uint32_t> searched_;  // whether the tile of a block has been searched for its maximum again
  std::vector<std::int32_t> place_;      // blocks of 64: the entry of each of a tile's tokens, if it is known

  // An entry for each id that something changes.
  std::int32_t count_ = 0, blocks_ = 0;
  std::vector<std::uint32_t> id_;
  std::vector<std::int32_t> in_history_, in_output_;  // whether it occurs there, and how often
  std::vector<float> was_, x_;                        // the logit before and after
  std::vector<std::int64_t> copied_;                  // the longest copy of the history's end that the id followed
  std::vector<std::int64_t> matches_;
};

}  // namespace warpdraw::WARPDRAW_ISA
