// What no sampler can beat, for benchmarks: one read of the logits, and one read with an exponential of each.
#include "cpu/row.h"

namespace warpdraw::WARPDRAW_ISA {
namespace {

template <typename OfTile> void over_rows(const Tensor& logits_, const Tensor& out_, float start, OfTile of_tile) {
  const View<float, 1> out(out_);
  with_float(logits_.dtype, [&]<typename T>() {
    const View<const T, 2> logits(logits_);
    const std::int64_t vocab = logits.shape[1], whole = vocab / kTile;
    in_parallel(logits.shape[0], logits.shape[0] * vocab * std::int64_t(sizeof(T)), [&](std::int64_t b) {
      Floats a = floats(start), c = a;  // two chains, so that latency is hidden
      for (std::int64_t tile = 0; tile < whole; ++tile) of_tile(read_tile(logits.row(b), vocab, tile), tile & 1 ? a : c);
      if (whole * kTile < vocab) of_tile(read_tile(logits.row(b), vocab, whole), a);
      out(b) = largest(max(a, c));
    });
  });
}

}  // namespace

void read_floor(Queue, const Tensor& logits, const Tensor& out) {
  over_rows(logits, out, -HUGE_VALF, [](const Tile& x, Floats& highest) { highest = max(lane_maxima(x), highest); });
}

void exp_floor(Queue, const Tensor& logits, const Tensor& out) {
  over_rows(logits, out, 0.0f, [](const Tile& x, Floats& sum) {
    Floats part = floats(0.0f);
    for (const Floats v : x.x) part += weights<true>((v - 30.0f) * kLog2E);
    sum += part;
  });
}

}  // namespace warpdraw::WARPDRAW_ISA
