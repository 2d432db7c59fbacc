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
          std::fill_n(out.row(b), vocab, minus_infinity<T>());
          row.for_tiles_reaching(boundary.x, [&](std::int64_t tile) {
            const Tile here = row.read(tile);
            for (int i = 0; i < kVectors; ++i) {
              const std::uint32_t first = std::uint32_t(tile * kTile + i * kLanes);
              for (Mask mask = kept(here.x[i], first, boundary); mask; mask &= mask - 1) {
                const std::uint32_t id = first + __builtin_ctz(mask);
                out.row(b)[id] = logits.row(b)[id];
              }
            }
          });
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
