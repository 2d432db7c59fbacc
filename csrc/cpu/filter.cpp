// filter_logits and filter_probs: what the filters keep, then one pass that writes the row.
#include "cpu/select.h"

namespace warpdraw::WARPDRAW_ISA {
namespace {

// Calls write(b, row, scale, keeps) for each row that keeps a token, reject(b) for the others.
template <typename T, typename Write, typename Reject>
void over_rows(const Inputs& in, Order order, Write write, Reject reject) {
  const View<const T, 2> logits(in.logits);
  in_parallel(logits.shape[0], logits.shape[0] * logits.shape[1] * std::int64_t(sizeof(T)), [&](std::int64_t b) {
    thread_local RowSpace space;
    thread_local Candidates candidates;
    const Edits edits = make_edits(in, b);
    Filter filter = make_filter(in, b, order, {std::uint64_t(in.seed[b]), std::uint64_t(in.position[b])});
    if (!edits.valid || !filter.valid) return reject(b);
    with_row(logits.row(b), edits, space, [&](const auto& row) {
      if (!(row.x_max >= -kLargest)) return reject(b);
      const Interval keeps = select(row, filter, candidates);
      write(b, row, filter.scale, keeps);
    });
  });
}

}  // namespace

void filter_logits(Queue, const Inputs& in, const Order& order, const Tensor& out_) {
  with_float(in.logits.dtype, [&]<typename T>() {
    const View<const T, 2> logits(in.logits);
    const View<T, 2> out(out_);
    const std::int64_t vocab = logits.shape[1];
    over_rows<T>(
        in, order,
        [&](std::int64_t b, const auto& row, float, const Interval& keeps) {
          for (std::int64_t tile = 0; tile * kTile < vocab; ++tile) {
            const std::int64_t begin = tile * kTile, count = std::min<std::int64_t>(kTile, vocab - begin);
            T* to = out.row(b) + begin;
            if (tile >= row.tiles || !(row.maxima[tile] >= keeps.last.x)) {
              std::fill_n(to, count, minus_infinity<T>());
              continue;
            }
            const T* from = logits.row(b) + begin;  // may be the same memory: a token is read before it is written
            const std::uint64_t mask = kept_in_tile(row.read(tile), tile, keeps);
            for (std::int64_t i = 0; i < count; ++i) to[i] = mask >> i & 1 ? from[i] : minus_infinity<T>();
          }
        },
        [&](std::int64_t b) { std::fill_n(out.row(b), vocab, minus_infinity<T>()); });
  });
}

void filter_probs(Queue, const Inputs& in, const Order& order, const Tensor& out_) {
  const View<float, 2> out(out_);
  with_float(in.logits.dtype, [&]<typename T>() {
    const std::int64_t vocab = in.logits.shape[1];
    over_rows<T>(
        in, order,
        [&](std::int64_t b, const auto& row, float scale, const Interval& keeps) {
          const float highest = highest_kept(row, keeps);
          const float unit = probability_unit(mass_kept(row, highest, scale, keeps));
          row.write(out.row(b), [&](const Tile& x, std::int64_t tile) {
            Tile w = kept_weights(x, tile, highest, scale, keeps);
            for (Floats& v : w.x) v *= unit;
            return w;
          });
          std::fill_n(out.row(b) + row.vocab, vocab - row.vocab, 0.0f);
        },
        [&](std::int64_t b) { std::fill_n(out.row(b), vocab, NAN); });
  });
}

}  // namespace warpdraw::WARPDRAW_ISA
