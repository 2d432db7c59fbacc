// The chain of filters: the usual ones narrow the cut at the end, the others work on an interval of the total order.
#include "cpu/select.h"

namespace warpdraw::WARPDRAW_ISA {

template <typename T> Boundary first_token(const Row<T>& row) {
  for (std::int64_t tile = 0; tile < row.tiles; tile += kLanes) {
    const Mask reaching = equal(load(row.maxima + tile), floats(row.x_max));
    if (!reaching) continue;
    const std::int64_t first = tile + __builtin_ctz(reaching);
    const Tile here = row.read(first);
    for (int i = 0; i < kVectors; ++i)
      if (const Mask mask = equal(here.x[i], floats(row.x_max)))
        return {row.x_max, std::uint32_t(first * kTile + i * kLanes + __builtin_ctz(mask))};
  }
  return {row.x_max, 0};
}

template <typename T> float highest_kept(const Row<T>& row, const Interval& keeps) {
  if (keeps.is_prefix()) return row.x_max;
  Floats highest = floats(-HUGE_VALF);
  row.for_tiles_reaching(keeps.last.x, [&](std::int64_t tile) {
    const Tile x = row.read(tile);
    for (int i = 0; i < kVectors; ++i) {
      const Mask mask = kept(x.x[i], std::uint32_t(tile * kTile + i * kLanes), keeps);
      highest = max(choose(mask, x.x[i], floats(-HUGE_VALF)), highest);
    }
  });
  return largest(highest);
}

template <typename T> Interval select(const Row<T>& row, Filter& filter, Candidates& candidates) {
  const bool dynamic = filter.dynatemp_range > 0.0f;
  Interval seen{keep_none(), keep_all()};
  if (filter.greedy()) return {keep_none(), first_token(row)};
  if (dynamic && !filter.draws_last()) {
    set_dynamic_temperature(filter, sums_kept(row, row.x_max, kLog2E, seen));
    if (filter.temperature == 0.0f) return {keep_none(), first_token(row)};
  }
  const float scale = filter.filter_scale();
  if (filter.top_n_sigma > 0.0f) seen.last = top_n_sigma(row, filter.top_n_sigma);

  const Interval all = seen;
  bool listed = false;  // whether the candidates are what is seen
  for (int i = 0; i < kSteps; ++i) {
    switch (step_of(filter.order, i)) {
      case Step::min_p:
        if (filter.min_p <= 0.0f) break;
        seen.last = stricter(seen.last, {min_p_logit(filter.min_p, highest_kept(row, seen), scale), kLastId});
        listed = false;
        break;
      case Step::top_k:
        if (filter.k == 0) break;
        seen.last = stricter(seen.last, top_k(row, filter.k, seen, candidates));
        listed = true;
        break;
      case Step::top_p: {
        if (filter.p >= 1.0f) break;
        const Boundary last = seen.last;
        if (filter.order == Order::flashinfer_joint) seen = all, listed = false;
        if (listed) {
          std::uint64_t* keys = candidates.key.data();
          const std::uint64_t target = nucleus_mass(filter.p, mass_of(keys, candidates.count, row.x_max, scale));
          seen.last = nucleus(keys, candidates.count, target, row.x_max, scale);
        } else {
          seen.last = top_p(row, filter.p, scale, highest_kept(row, seen), seen, candidates);
        }
        seen.last = stricter(seen.last, last);
        break;
      }
      case Step::typical_p:
        if (filter.typical_p >= 1.0f) break;
        seen = typical_p(row, filter.typical_p, scale, seen, candidates);
        listed = false;
        break;
    }
  }
  if (filter.epsilon > 0.0f || filter.eta > 0.0f || filter.xtc_threshold <= 1.0f) seen = epsilon_eta_xtc(row, filter, seen);
  if (dynamic && filter.draws_last()) {
    const float highest = highest_kept(row, seen);
    set_dynamic_temperature(filter, sums_kept(row, highest, kLog2E, seen));
    if (filter.temperature == 0.0f) seen.last = {highest, first_id(row, highest, seen)};
  }
  return seen;
}

#define WARPDRAW_SELECT(T)                                       \
  template Interval select(const Row<T>&, Filter&, Candidates&); \
  template Boundary first_token(const Row<T>&);                  \
  template float highest_kept(const Row<T>&, const Interval&);
WARPDRAW_SELECT(float)
WARPDRAW_SELECT(f16)
WARPDRAW_SELECT(bf16)

}  // namespace warpdraw::WARPDRAW_ISA
