// What restrictions, bias and penalties change of a row, kept beside it in a bitmap of the tokens concerned and an entry for
// each. A block builds the part that belongs to its tiles; the cost follows the lists and the history.
#pragma once
#include "core/edits.h"
#include "core/element.h"
#include "cuda/team.cuh"

namespace warpdraw::WARPDRAW_SIMT {

// A token that a list or the history names.
struct Entry {
  float x;  // its logit, edited in the end
  std::uint32_t first_bias, biases;
  std::int32_t in_history, in_output, copied, banned;
};

// Room in memory for one row, by offsets in bytes. Nothing is kept there of a row that nothing changes.
struct RowRoom {
  std::int64_t maxima = 0, draft_maxima = 0, tried = 0, allowed = 0, edited = 0, before = 0, entries = 0, bytes = 0;

  RowRoom(const Parameters* in, std::int64_t vocab, bool keeps_maxima) {
    const std::int64_t tiles = (vocab + kTile - 1) / kTile, words = 2 * tiles;
    if (keeps_maxima) maxima = place(tiles * std::int64_t(sizeof(float)));
    if (!in) return;
    const auto length = [](const auto& list) { return list ? list.shape[1] : 0; };
    const std::int64_t most = length(in->bias_ids) + length(in->history) + length(in->banned_ids) + length(in->stop_ids);
    if (in->allowed_ids) allowed = place(words * 4);
    if (most) edited = place(words * 4), before = place(words * 4), entries = place(most * std::int64_t(sizeof(Entry)));
  }
  // Of so many bytes more.
  std::int64_t place(std::int64_t size) {
    const std::int64_t at = bytes;
    bytes += (size + 127) / 128 * 128;
    return at;
  }
};

struct Overlay {
  const std::uint32_t* allowed = nullptr;  // a bit for each token that may be a candidate; null if all may
  const std::uint32_t* edited = nullptr;   // a bit for each token that has an entry; null if none has
  const std::uint32_t* before = nullptr;   // the place of the first entry of each word's tokens
  const Entry* entries = nullptr;

  WD_DEVICE bool changes() const { return allowed || edited; }
  // Whether the bitmaps leave a token as it is.
  WD_DEVICE float apply(float x, std::uint32_t id) const {
    const std::uint32_t word = id / 32, bit = 1u << id % 32;
    if (edited && (edited[word] & bit)) return entries[before[word] + popcount(edited[word] & (bit - 1))].x;
    return allowed && !(allowed[word] & bit) ? -HUGE_VALF : x;
  }
};

// Calls visit(i) for every i below the count, over the threads of a block.
template <typename Visit> WD_DEVICE void over_list(std::int64_t count, Visit visit) {
  for (std::int64_t i = thread(); i < count; i += kThreads) visit(i);
}

// lists_are_valid() by a whole block.
WD_DEVICE bool block_finds_valid(const Edits& edits, std::int64_t vocab) {
  return lists_are_valid(edits, vocab, [](std::int64_t count, auto test) {
    bool every = true;
    over_list(count, [&](std::int64_t i) { every &= test(i); });
    return count == 0 || sync_and(every);
  });
}

// Where the overlay of a row is.
WD_DEVICE Overlay overlay_of(const Edits& edits, const RowRoom& plan, char* room) {
  Overlay overlay;
  bool restricted = false;
  over_list(edits.allowed.size, [&](std::int64_t i) { restricted |= edits.allowed[i] >= 0; });
  if (edits.allowed.size && sync_or(restricted))
    overlay.allowed = reinterpret_cast<const std::uint32_t*>(room + plan.allowed);
  else
    overlay.allowed = reinterpret_cast<const std::uint32_t*>(edits.bitmask.data);
  if (edits.bias_ids.size || edits.banned.size || (edits.stop.size && edits.stops_banned) || edits.reads_history()) {
    overlay.edited = reinterpret_cast<const std::uint32_t*>(room + plan.edited);
    overlay.before = reinterpret_cast<const std::uint32_t*>(room + plan.before);
    overlay.entries = reinterpret_cast<const Entry*>(room + plan.entries);
  }
  return overlay;
}

// Builds the part of an overlay that belongs to the tokens of some tiles.
template <typename T> class OverlayBuilder {
 public:
  WD_DEVICE OverlayBuilder(Team& team, const Edits& edits, const T* logits, const Overlay& overlay, std::int64_t first_tile,
                           std::int64_t last_tile)
      : team_(team),
        edits_(edits),
        logits_(logits),
        overlay_(overlay),
        begin_(first_tile * kTile),
        end_(last_tile * kTile < edits.vocab ? last_tile * kTile : edits.vocab),
        first_word_(first_tile * 2),
        words_((last_tile - first_tile) * 2),
        edited_(const_cast<std::uint32_t*>(overlay.edited)),
        before_(const_cast<std::uint32_t*>(overlay.before)),
        entries_(const_cast<Entry*>(overlay.entries)) {}

  WD_DEVICE void build() {
    if (overlay_.allowed && overlay_.allowed != bitmask()) allow();
    if (!overlay_.edited) return;
    mark();
    number();
    start();
    const bool counts = edits_.counts_tokens(), copies = edits_.dry_multiplier > 0.0f;
    if (edits_.reads_history() && counts) count_tokens();
    if (edits_.reads_history() && copies) find_copies();
    if (edits_.reads_history() && edits_.ngram > 0) ban_ngrams();
    ban(edits_.banned);
    if (edits_.stops_banned) ban(edits_.stop);
    sync();
    over_entries([&](Entry& e, std::uint32_t) {
      if (counts && e.in_history) e.x = penalize_repetition(e.x, edits_.repetition);
      if (counts && e.in_output) {
        e.x -= edits_.frequency * float(e.in_output);
        e.x -= edits_.presence;
      }
      if (copies && e.copied >= edits_.dry_allowed)
        e.x -= dry_penalty(edits_.dry_multiplier, edits_.dry_base, e.copied - edits_.dry_allowed);
      if (e.banned) e.x = -HUGE_VALF;
    });
  }

 private:
  WD_DEVICE const std::uint32_t* bitmask() const { return reinterpret_cast<const std::uint32_t*>(edits_.bitmask.data); }
  WD_DEVICE bool is_mine(std::int32_t id) const { return id >= begin_ && id < end_; }
  WD_DEVICE Entry& entry(std::int32_t id) const {
    const std::uint32_t word = std::uint32_t(id) / 32, below = (1u << id % 32) - 1;
    return entries_[before_[word] + popcount(edited_[word] & below)];
  }
  // Calls visit(place in the list, its entry) for the tokens of a list that are this block's.
  template <typename Visit> WD_DEVICE void over_mine(Span<std::int32_t> ids, Visit visit) const {
    over_list(ids.size, [&](std::int64_t i) {
      if (is_mine(ids[i])) visit(i, entry(ids[i]));
    });
  }
  template <typename Visit> WD_DEVICE void over_entries(Visit visit) const {
    over_list(words_, [&](std::int64_t i) {
      const std::uint32_t word = std::uint32_t(first_word_ + i);
      std::uint32_t at = before_[word];
      for (std::uint32_t left = edited_[word]; left; left &= left - 1) visit(entries_[at++], word * 32 + lowest_bit(left));
    });
  }

  WD_DEVICE void allow() {
    auto* allowed = const_cast<std::uint32_t*>(overlay_.allowed);
    over_list(words_, [&](std::int64_t i) { allowed[first_word_ + i] = 0; });
    sync();
    over_list(edits_.allowed.size, [&](std::int64_t i) {
      const std::int32_t id = edits_.allowed[i];
      if (is_mine(id) && (!bitmask() || (bitmask()[id / 32] >> id % 32 & 1))) atomic_or(&allowed[id / 32], 1u << id % 32);
    });
  }

  template <typename Visit> WD_DEVICE void over_lists(Visit visit) const {
    visit(edits_.bias_ids);
    visit(edits_.banned);
    if (edits_.stops_banned) visit(edits_.stop);
    if (edits_.reads_history()) visit(edits_.history);
  }
  WD_DEVICE void mark() {
    over_list(words_, [&](std::int64_t i) { edited_[first_word_ + i] = 0; });
    sync();
    std::uint64_t lower = 0;
    over_lists([&](Span<std::int32_t> ids) {
      over_list(ids.size, [&](std::int64_t i) {
        const std::int32_t id = ids[i];
        lower += id >= 0 && id < begin_;
        if (is_mine(id)) atomic_or(&edited_[id / 32], 1u << id % 32);
      });
    });
    // Blocks have disjoint places: no more tokens can be before this one's than the lists name.
    base_ = team_.block_sum(lower);
  }
  WD_DEVICE void number() {
    std::uint64_t place = base_;
    for (std::int64_t i = 0; i < words_; i += kThreads) {
      const std::int64_t word = first_word_ + i + thread();
      const bool exists = i + thread() < words_;
      std::uint64_t total;
      const std::uint64_t lower = team_.block_sum_before(exists ? popcount(edited_[word]) : 0, total);
      if (exists) before_[word] = std::uint32_t(place + lower);
      place += total;
    }
  }
  WD_DEVICE void start() {
    const std::uint32_t* allowed = overlay_.allowed;
    over_entries([&](Entry& e, std::uint32_t id) {
      const bool may_be = !allowed || (allowed[id / 32] >> id % 32 & 1);
      e = {may_be ? to_float(logits_[id]) : -HUGE_VALF, 0xffffffff, 0, 0, 0, 0, 0};
    });
    sync();
    if (!edits_.bias_ids.size) return;
    over_mine(edits_.bias_ids, [&](std::int64_t i, Entry& e) {
      atomic_min(&e.first_bias, std::uint32_t(i));
      atomic_add(&e.biases, 1u);
    });
    sync();
    // Several of one token add up in their order.
    over_mine(edits_.bias_ids, [&](std::int64_t i, Entry& e) {
      if (e.first_bias != std::uint32_t(i)) return;
      e.x += edits_.bias[i];
      std::uint32_t left = e.biases - 1;
      for (std::int64_t j = i + 1; left; ++j)
        if (edits_.bias_ids[j] == edits_.bias_ids[i]) e.x += edits_.bias[j], --left;
    });
  }

  WD_DEVICE void count_tokens() {
    over_mine(edits_.history, [&](std::int64_t i, Entry& e) {
      atomic_add(&e.in_history, 1);
      if (i >= edits_.prompt) atomic_add(&e.in_output, 1);
    });
  }
  // How many of the tokens before the end of the history are also the ones up to place j, at most `most`.
  WD_DEVICE std::int64_t matches(std::int64_t j, std::int64_t most) const {
    const Span<std::int32_t> h = edits_.history;
    std::int64_t n = 0;
    while (n < most && n <= j && h[j - n] == h[h.size - 1 - n]) ++n;
    return n;
  }
  WD_DEVICE bool is_breaker(std::int32_t id) const {
    bool found = false;
    for (const std::int32_t breaker : edits_.breakers) found |= breaker == id;
    return found;
  }
  WD_DEVICE void find_copies() {
    const Span<std::int32_t> h = edits_.history;
    std::uint64_t last_breaker = 0;  // its place, from 1; a copy holds none
    over_list(edits_.breakers.size ? h.size : 0, [&](std::int64_t i) {
      if (is_breaker(h[i])) last_breaker = std::uint64_t(i + 1);  // places ascend
    });
    const std::int64_t limit = h.size - std::int64_t(team_.block_largest(last_breaker));
    over_list(h.size - 1, [&](std::int64_t j) {
      const std::int32_t next = h[j + 1];
      if (!is_mine(next) || h[j] != h[h.size - 1] || is_breaker(next)) return;
      atomic_max(&entry(next).copied, std::int32_t(matches(j, limit)));
    });
  }
  WD_DEVICE void ban_ngrams() {
    const std::int64_t shared = edits_.ngram - 1;
    over_mine(edits_.history, [&](std::int64_t last, Entry& e) {
      if (last >= shared && matches(last - 1, shared) == shared) e.banned = 1;
    });
  }
  WD_DEVICE void ban(Span<std::int32_t> ids) {
    over_mine(ids, [](std::int64_t, Entry& e) { e.banned = 1; });
  }

  Team& team_;
  const Edits& edits_;
  const T* logits_;
  Overlay overlay_;
  std::int64_t begin_, end_, first_word_, words_;
  std::uint64_t base_ = 0;
  std::uint32_t *edited_, *before_;
  Entry* entries_;
};

}  // namespace warpdraw::WARPDRAW_SIMT
