// filter_logits and filter_probs: what the filters keep, then one pass that writes the row.
#define WARPDRAW_CALLS
#include "cuda/filters.cuh"
#include "cuda/rows.cuh"

namespace warpdraw::WARPDRAW_SIMT {
namespace {

// Both ops in one kernel, because they differ in the last pass only: one of the outputs is there.
template <typename T> struct FilterWork {
  static constexpr bool kAll = true;
  Inputs in;
  Order order;
  View<T, 2> logits;
  View<float, 2> probs;

  WD_DEVICE Edits edits(std::int64_t b, std::int64_t vocab) const { return edits_of(in, b, vocab); }
  WD_DEVICE Filter filter(std::int64_t b) const {
    return make_filter(in, b, order, {std::uint64_t(in.seed[b]), std::uint64_t(in.position[b])});
  }
  WD_DEVICE void reject(const Team& team, std::int64_t b) const {
    if (logits)
      fill_row(team, logits.row(b), logits.shape[1], minus_infinity<T>());
    else
      fill_row(team, probs.row(b), probs.shape[1], float_of(kNaN));
  }
  template <typename R> WD_DEVICE void run(R& row, std::int64_t b, Filter& filter) const {
    const Interval keeps = Filters(row, filter).chain().keeps;
    if (logits) {
      // May write where it reads: a token is read before it is written.
      return row.write(logits.row(b), [&](float x, std::int64_t id) {
        return keeps.keeps(x, std::uint32_t(id)) ? row.logits[id - row.origin] : minus_infinity<T>();
      });
    }
    const float highest = highest_kept(row, keeps), scale = filter.scale;
    const std::uint64_t total = mass_kept(row, highest, scale, keeps);
    row.write(probs.row(b), [&](float x, std::int64_t id) {
      return keeps.keeps(x, std::uint32_t(id)) ? probability(exponent(x, highest, scale), total) : 0.0f;
    });
  }
};

}  // namespace

void filter_logits(Queue queue, const Inputs& in, const Order& order, const Tensor& out) {
  with_float(in.logits.dtype,
             [&]<typename T>() { run_rows<T>(queue, in.logits, &in, FilterWork<T>{in, order, View<T, 2>(out), {}}, true); });
}

void filter_probs(Queue queue, const Inputs& in, const Order& order, const Tensor& out) {
  with_float(in.logits.dtype, [&]<typename T>() {
    run_rows<T>(queue, in.logits, &in, FilterWork<T>{in, order, {}, View<float, 2>(out)}, true);
  });
}

}  // namespace warpdraw::WARPDRAW_SIMT
