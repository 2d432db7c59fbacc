// One row in a kernel: where it is, what belongs to it, and its work once the maxima of its tiles are known.
#pragma once
#include "core/filter.h"
#include "cuda/row.cuh"

namespace warpdraw::WARPDRAW_SIMT {

// Work whose rows belong to the nodes of requests' drafts, and perhaps are compared with the rows that the drafts came from.
template <typename Work>
concept OfNodes = requires { typename Work::Place; };
template <typename Work>
concept WithDrafts = OfNodes<Work> && Work::kDrafts;

// What a kernel gets. Work says what belongs to a row, edits(b, vocab) and filter(b), and what becomes of it: run(row, b,
// filter), or reject(team, b) if there is nothing to draw from.
//
// Work of nodes has places instead of b, place(row), and knows more about them: which of them have a row, which are valid, and
// the row of draft logits, draft(place), if one is wanted: run(row, draft, place, filter, room).
template <typename T, typename Work> struct RowsParams {
  std::conditional_t<OfNodes<Work>, Rows<const T>, View<const T, 2> > logits;
  std::int64_t vocab;
  Work work;
  RowRoom plan;
  char* room;
  int each;            // tiles of a block
  bool shares_maxima;  // whether they fit in shared memory
  std::int64_t rows;
  bool resident;           // whether blocks of a cluster keep their tiles
  std::uint32_t clusters;  // of the grid
};

WD_HD inline std::int64_t round_up(std::int64_t value, std::int64_t to) { return (value + to - 1) / to * to; }
template <typename Work> inline constexpr int kRowsAtOnce = WithDrafts<Work> ? 2 : 1;  // whose maxima are in shared memory
inline constexpr std::int64_t kScratchBytes = (sizeof(Scratch) + 15) / 16 * 16;
WD_HD inline std::int64_t maxima_bytes(std::int64_t tiles) { return round_up(tiles * std::int64_t(sizeof(float)), 16); }

template <typename Work> WD_DEVICE auto place_of(const Work& work, std::int64_t row) {
  if constexpr (OfNodes<Work>)
    return work.place(row);
  else
    return row;
}
template <typename T> WD_DEVICE const T* memory_of(const View<const T, 2>& rows, std::int64_t b) { return rows.row(b); }
template <typename T, typename Place> WD_DEVICE const T* memory_of(const Rows<const T>& rows, const Place& place) {
  return place.exists ? rows.of(place.b, place.first_row, place.node) : nullptr;
}

// One row in a kernel, as far as both paths treat it alike.
template <typename T, typename Work> struct Visit {
  const RowsParams<T, Work>& p;
  Scratch& scratch;
  Team team;
  decltype(place_of(std::declval<Work>(), 0)) b;
  const T* memory;  // null if there is no such row
  Edits edits;
  Filter filter;
  char* room;

  WD_DEVICE Visit(const RowsParams<T, Work>& params, std::int64_t row)
      : p(params),
        scratch(*reinterpret_cast<Scratch*>(shared_memory())),
        team(scratch.team),
        b(place_of(params.work, row)),
        memory(memory_of(params.logits, b)),
        edits(params.work.edits(b, params.vocab)),
        filter(params.work.filter(b)),
        room(params.room + row * params.plan.bytes) {}

  WD_DEVICE bool is_valid() const {
    if (!memory || !filter.valid || !edits.valid) return false;
    if constexpr (OfNodes<Work>)
      if (!p.work.is_valid(b)) return false;
    if constexpr (Work::kAll) return block_finds_valid(edits, p.vocab);
    return true;
  }

  using Target = Row<T, Work::kAll>;
  using Draft = Row<AnyFloat, false>;
  struct NoDraft {};
  template <typename R, typename Elements>
  WD_DEVICE R row_at(Elements logits, std::int64_t vocab, int first, int each, float* maxima) {
    const int tiles = tiles_of(p.vocab), end = first + each;
    return {.team = team,
            .scratch = scratch,
            .logits = logits,
            .origin = 0,
            .size = p.vocab,
            .vocab = vocab,
            .each = each,
            .tiles = tiles,
            .first = first < tiles ? first : tiles,
            .last = end < tiles ? end : tiles,
            .maxima = maxima,
            .overlay = {}};
  }
  // For a block whose tiles begin at `first`.
  WD_DEVICE Target row(int first, int each, float* maxima) {
    const std::int64_t vocab = edits.vocab >= 0 && edits.vocab <= p.vocab ? edits.vocab : 0;
    Target row = row_at<Target>(memory, vocab, first, each, maxima);
    if constexpr (Work::kAll) row.overlay = overlay_of(edits, p.plan, room);
    return row;
  }
  WD_DEVICE void build_overlay(const Target& row) {
    if constexpr (Work::kAll)
      if (row.overlay.changes()) OverlayBuilder<T>(team, edits, memory, row.overlay, row.first, row.last).build();
  }
  // What the drafts of a valid place came from, if that matters.
  WD_DEVICE auto draft(int first, int each, float* maxima) {
    if constexpr (WithDrafts<Work>)
      return row_at<Draft>(p.work.draft(b), p.vocab, first, each, maxima);
    else
      return NoDraft{};
  }
  WD_DEVICE static bool is_there(const Draft& draft) { return draft.logits.data; }
  WD_DEVICE static bool is_there(NoDraft) { return false; }
  WD_DEVICE static void read(Draft& draft) {
    if (!is_there(draft)) return;
    switch (draft.logits.dtype) {
      case DType::f32:
        return read_row(draft, static_cast<const float*>(draft.logits.data), static_cast<float*>(nullptr));
      case DType::f16:
        return read_row(draft, static_cast<const f16*>(draft.logits.data), static_cast<f16*>(nullptr));
      default:
        return read_row(draft, static_cast<const bf16*>(draft.logits.data), static_cast<bf16*>(nullptr));
    }
  }
  WD_DEVICE static void read(NoDraft) {}

  // What is left to do once the blocks have the maxima of their tiles.
  WD_DEVICE void work(Target& row, Draft& draft) {
    if (!begin(row)) return;
    if (is_there(draft)) {
      share_maxima(draft);
      mark_infinity(draft);
    }
    p.work.run(row, draft, b, filter, room + p.plan.tried);
  }
  WD_DEVICE void work(Target& row, NoDraft) {
    if (begin(row)) p.work.run(row, b, filter);
  }

 private:
  WD_DEVICE bool begin(Target& row) {
    share_maxima(row);
    if (kShape.until == Until::maxima || !(row.x_max >= -kLargest)) {
      p.work.reject(team, b);
      return false;
    }
    mark_infinity(row);
    return true;
  }
};

}  // namespace warpdraw::WARPDRAW_SIMT
