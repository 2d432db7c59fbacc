// filter_logits and filter_probs: the filters' boundary, then one pass that writes the row.
#include "cpu/rows.h"
#include "cpu/select.h"

namespace warpdraw::WARPDRAW_ISA {
namespace {

// Calls write(b, row, boundary) for each row that keeps a token, reject(b) for the others.
template <typename T, typename Write, typename Reject>
void over_rows(const View<const T, 2>& logits, const Filters& filters, Write write, Reject reject) {
  for_rows(logits.shape[0], logits.shape[1], [&](std::int64_t b) {
    const Filter filter =
        make_filter(filters.temperature[b], filters.top_k[b], filters.top_p[b], filters.min_p[b], filters.order);
    if (!filter.valid) return reject(b);
    with_row(logits.row(b), logits.shape[1], [&](const auto& row) {
      if (!(row.x_max >= -kLargest)) return reject(b);
      thread_local Candidates candidates;
      write(b, row, filter.scale, select(row, filter, candidates));
    });
  });
}

}  // namespace

void filter_logits(Queue, Tensor logits_, PerRow<float> temperature, PerRow<std::int32_t> top_k, PerRow<float> top_p,
                   PerRow<float> min_p, Order order, Tensor out_) {
  with_float(logits_.dtype, [&]<typename T>() {
    const View<const T, 2> logits(logits_);
    const View<T, 2> out(out_);
    const std::int64_t vocab = logits.shape[1];
    over_rows(
        logits, {temperature, top_k, top_p, min_p, order},
        [&](std::int64_t b, const auto& row, float, Boundary boundary) {
          for (std::int64_t tile = 0; tile < row.tiles; ++tile) {
            const std::int64_t begin = tile * kTile, count = std::min<std::int64_t>(kTile, vocab - begin);
            T* to = out.row(b) + begin;
            if (!(row.maxima[tile] >= boundary.x)) {
              std::fill_n(to, count, minus_infinity<T>());
              continue;
            }
            const T* from = logits.row(b) + begin;  // may be the same memory: a token is read before it is written
            const std::uint64_t mask = kept_in_tile(row.read(tile), tile, boundary);
            for (std::int64_t i = 0; i < count; ++i) to[i] = mask >> i & 1 ? from[i] : minus_infinity<T>();
          }
        },
        [&](std::int64_t b) { std::fill_n(out.row(b), vocab, minus_infinity<T>()); });
  });
}

void filter_probs(Queue, Tensor logits_, PerRow<float> temperature, PerRow<std::int32_t> top_k, PerRow<float> top_p,
                  PerRow<float> min_p, Order order, Tensor out_) {
  const View<float, 2> out(out_);
  with_float(logits_.dtype, [&]<typename T>() {
    const View<const T, 2> logits(logits_);
    over_rows(
        logits, {temperature, top_k, top_p, min_p, order},
        [&](std::int64_t b, const auto& row, float scale, Boundary boundary) {
          const float unit = probability_unit(mass_kept(row, scale, boundary));
          write_row(out.row(b), row, [&](const Tile& x, std::int64_t tile) {
            Tile w = kept_weights(x, tile, row.x_max, scale, boundary);
            for (Floats& v : w.x) v *= unit;
            return w;
          });
        },
        [&](std::int64_t b) { std::fill_n(out.row(b), logits.shape[1], NAN); });
  });
}

}  // namespace warpdraw::WARPDRAW_ISA
