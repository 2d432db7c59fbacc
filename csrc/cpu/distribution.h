// A row after its filters, whatever the type of its logits: where a probability is wanted, it is read a tile at a time.
#pragma once
#include "cpu/select.h"

namespace warpdraw::WARPDRAW_ISA {

// A row that will be read next, so that memory may fetch it while there is still something to compute.
struct NextRow {
  const void* logits = nullptr;
  std::int64_t bytes_of_tile = 0;

  WD_MEMBER void fetch(std::int64_t tile) const {
    if (!logits) return;
    const char* begin = static_cast<const char*>(logits) + tile * bytes_of_tile;
    for (std::int64_t at = 0; at < bytes_of_tile; at += 64) __builtin_prefetch(begin + at, 0, 2);
  }
};

// It lasts as long as the room that its row was read into is not used again.
class Distribution {
 public:
  Distribution() = default;
  Distribution(DType dtype, const void* logits, const Edits& edits, const Filter& filter, RowSpace& space,
               Candidates& candidates) {
    with_float(dtype, [&]<typename T>() {
      with_row(static_cast<const T*>(logits), edits, space, [&](const auto& row) { set(row, filter, candidates); });
    });
  }

  bool empty() const { return empty_; }
  bool certain() const { return certain_; }  // the first token is all that is kept
  std::int64_t tiles() const { return tiles_; }
  const float* maxima() const { return maxima_; }
  const Interval& keeps() const { return keeps_; }
  bool keeps_all_candidates() const { return all_; }
  float highest() const { return highest_; }
  float scale() const { return scale_; }

  // Calls use(row).
  template <typename Use> decltype(auto) with(Use use) const {
    return with_float(dtype_, [&]<typename T>() {
      return use(Row<T>{static_cast<const T*>(logits_), vocab_, tiles_, maxima_, x_max_, overlay_});
    });
  }

  // The mass of what is kept; 0 if that is nothing. Summed when it is first asked for.
  std::uint64_t total(NextRow next = {}) {
    if (total_ || empty_) return total_;
    return total_ = with([&](const auto& row) {
             if (!all_) return mass_kept(row, highest_, scale_, keeps_);
             return mass_of_all(row, highest_, scale_, [&](std::int64_t tile, const Tile&) { next.fetch(tile); });
           });
  }

  // No more than the total, and quick: the largest token of each tile, if every candidate is kept.
  std::uint64_t least_total() {
    if (total_ || !all_) return total();
    MassSum sum;
    for (std::int64_t tile = 0; tile < tiles_; tile += kLanes)
      sum.add(weights((load(maxima_ + tile) - highest_) * scale_, kMassScale));
    return sum.total();
  }

  // The weights of a tile, 0 where nothing is kept.
  Tile weights_of_tile(std::int64_t tile) const {
    return with([&](const auto& row) { return weights_of_tile(row, tile); });
  }
  template <typename T> WD_MEMBER Tile weights_of_tile(const Row<T>& row, std::int64_t tile) const {
    if (empty_ || tile >= tiles_ || !(maxima_[tile] >= keeps_.last.x)) return {};
    const Tile x = row.read(tile);
    if (!all_) return kept_weights(x, tile, highest_, scale_, keeps_);
    Tile w;
    for (int i = 0; i < kVectors; ++i) w.x[i] = weights((x.x[i] - highest_) * scale_);
    return w;
  }
  float weight_of(std::int64_t token) const {
    if (empty_ || token >= vocab_) return 0.0f;
    const float x = logit(token);
    return keeps_.keeps(x, std::uint32_t(token)) ? weight(exponent(x, highest_, scale_)) : 0.0f;
  }
  float log_probability_of(std::int64_t token) { return log_probability(exponent(logit(token), highest_, scale_), total()); }

 private:
  template <typename T> void set(const Row<T>& row, Filter filter, Candidates& candidates) {
    dtype_ = dtype_of<T>, logits_ = row.logits, vocab_ = row.vocab, tiles_ = row.tiles;
    maxima_ = row.maxima, x_max_ = row.x_max, overlay_ = row.overlay;
    empty_ = !(row.x_max >= -kLargest);
    if (empty_) return;
    keeps_ = select(row, filter, candidates), all_ = keeps_all(keeps_);
    highest_ = highest_kept(row, keeps_), scale_ = filter.scale, certain_ = filter.greedy();
  }
  float logit(std::int64_t token) const {
    return with([&](const auto& row) { return row.logit(std::uint32_t(token)); });
  }

  DType dtype_ = DType::f32;
  const void* logits_ = nullptr;
  std::int64_t vocab_ = 0, tiles_ = 0;
  const float* maxima_ = nullptr;
  const Overlay* overlay_ = nullptr;
  float x_max_ = 0.0f, highest_ = 0.0f, scale_ = 0.0f;
  bool empty_ = true, certain_ = false, all_ = false;  // all_: every candidate is kept
  Interval keeps_{};
  std::uint64_t total_ = 0;
};

}  // namespace warpdraw::WARPDRAW_ISA
