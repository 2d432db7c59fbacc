// The filters, each over what is left of a row, and their chain.
#pragma once
#include "cuda/select.cuh"

namespace warpdraw::WARPDRAW_SIMT {

// How far from the entropy a token is, in exponents, and on which side.
struct Surprise {
  float highest, scale, mean;

  WD_DEVICE bool is_above(float x) const { return exponent(x, highest, scale) > mean; }
  WD_DEVICE float distance(float x) const { return fabsf(exponent(x, highest, scale) - mean); }
  // The nearer the larger; of two as far, the one above.
  WD_DEVICE std::uint64_t nearness(float x) const {
    return std::uint64_t(0x7fffffffu - bits_of(distance(x))) << 1 | std::uint64_t(is_above(x));
  }
};

template <typename R> WD_CALL Boundary cut_sigma(const R row, const Interval all, float n) {
  const Deviations deviations(row.x_max, lowest_kept(row, all));
  std::uint64_t sums[3] = {};
  over_kept(row, all, [&](float x, std::uint32_t, bool kept) {
    if (!kept) return;
    const std::uint64_t steps = std::uint64_t(deviations.steps(x));
    sums[0] += steps, sums[1] += steps * steps, ++sums[2];
  });
  row.team.in_team(sums, Sum{});
  const double least = deviations.threshold(n, sums[0], sums[1], std::int64_t(sums[2]));
  if (least <= -double(kLargest)) return keep_all();
  float x = float(least);
  if (double(x) < least) x = nextafterf(x, HUGE_VALF);
  return {x, kLastId};
}

// What is kept grows from the entropy outwards, the more probable side first where both are equally far.
template <typename R> WD_CALL Interval keep_typical(const R row, const Interval all, float p, float scale) {
  const float highest = highest_kept(row, all);
  const Sums total = sums_kept(row, highest, scale, all);
  const std::uint64_t target = nucleus_mass(p, total.mass);
  const Surprise surprise{highest, scale, total.mean_exponent()};
  const Measure mass_of{false, highest, scale};
  const auto nearness = [=](float x, std::uint32_t id) { return all.keeps(x, id) ? surprise.nearness(x) : 0; };
  const Crossing side = cross_keys(row, all.last.x, nearness, mass_of, 1, 0xffffffff, 0, target);
  // Among equals: of that side the last in the total order, of the other the first.
  const bool above = side.key & 1;
  const auto place = [=](float x, std::uint32_t id) {
    if (!all.keeps(x, id) || surprise.nearness(x) != side.key) return std::uint64_t(0);
    return above ? ~rank_key(x, id) : rank_key(x, id);
  };
  const Crossing token = cross_keys(row, all.last.x, place, mass_of, 1, ~std::uint64_t(0), side.before, target);
  const Boundary crossed = boundary_of(above ? ~token.key : token.key);
  const float far = surprise.distance(crossed.x);
  if (above) {  // the other side as far as it is nearer
    const auto inside = [=](float x) { return surprise.is_above(x) || surprise.distance(x) < far; };
    const float lowest = lowest_logit(highest, inside);
    return {before(crossed.x, crossed.id), stricter(all.last, {lowest, kLastId})};
  }
  const auto beyond = [=](float x) { return surprise.is_above(x) && surprise.distance(x) > far; };
  Interval keeps{keep_none(), crossed};
  if (beyond(highest)) keeps.first = {lowest_logit(highest, beyond), kLastId};
  return keeps;
}

// Keeps the tokens with at least so much mass, and the first in any case.
template <typename R> WD_CALL Interval at_least(const R row, Interval keeps, float highest, float scale, double least_mass) {
  const auto passes = [=](float x) { return reaches(weight(exponent(x, highest, scale)), least_mass); };
  if (passes(highest))
    keeps.last = stricter(keeps.last, {lowest_logit(highest, passes), kLastId});
  else
    keeps.last = {highest, ids_of(row, highest, keeps).first};
  return keeps;
}

template <typename R>
WD_CALL Interval keep_by_mass(const R row, Interval keeps, float scale, float epsilon, float eta, float xtc_threshold) {
  const float highest = highest_kept(row, keeps);  // none of them drops the first
  const auto mass_only = [&] { return Sums{mass_kept(row, highest, scale, keeps), 0, 0}; };
  if (epsilon > 0.0f) keeps = at_least(row, keeps, highest, scale, epsilon_mass(epsilon, mass_only()));
  if (eta > 0.0f) keeps = at_least(row, keeps, highest, scale, eta_mass(eta, sums_kept(row, highest, scale, keeps)));
  if (xtc_threshold <= 1.0f) {
    const Interval likely = at_least(row, keeps, highest, scale, epsilon_mass(xtc_threshold, mass_only()));
    const float x = lowest_kept(row, likely);
    keeps.first = before(x, ids_of(row, x, likely).last);
  }
  return keeps;
}

template <typename R> class Filters {
 public:
  WD_DEVICE Filters(const R& row, Filter& filter) : row_(row), filter_(filter), scale_(filter.filter_scale()) {}

  // What all filters keep together. The row has a candidate and no +inf. Sets the scale of the draw where it depends on the
  // row.
  WD_DEVICE Selection chain() {
    const bool dynamic = R::kAll && filter_.dynatemp_range > 0.0f;
    if (filter_.greedy()) return first_token();
    if (dynamic && !filter_.draws_last()) {
      set_dynamic_temperature(filter_, sums_kept(row_, row_.x_max, kLog2E, seen_.keeps));
      if (filter_.temperature == 0.0f) return first_token();
      scale_ = filter_.filter_scale();
    }
    if (R::kAll && filter_.top_n_sigma > 0.0f) top_n_sigma();
    const Interval all = seen_.keeps;
    for (int i = 0; i < kSteps; ++i) {  // a loop, so that the code of a filter exists once
      switch (step_of(filter_.order, i)) {
        case Step::min_p:
          min_p();
          break;
        case Step::top_k:
          top_k();
          break;
        case Step::top_p: {
          const Boundary last = seen_.keeps.last;
          if (filter_.order == Order::flashinfer_joint) seen_ = {all};
          top_p();
          if (filter_.order == Order::flashinfer_joint) narrow(last);
          break;
        }
        case Step::typical_p:
          if constexpr (R::kAll) typical_p();
          break;
      }
    }
    if constexpr (R::kAll)
      if (filter_.epsilon > 0.0f || filter_.eta > 0.0f || filter_.xtc_threshold <= 1.0f) epsilon_eta_xtc();
    if (dynamic && filter_.draws_last()) {
      const float highest = highest_kept(row_, seen_.keeps);
      set_dynamic_temperature(filter_, sums_kept(row_, highest, kLog2E, seen_.keeps));
      if (filter_.temperature == 0.0f) narrow({highest, ids_of(row_, highest, seen_.keeps).first});
    }
    return seen_;
  }

 private:
  WD_DEVICE Selection first_token() const {
    const Interval all{keep_none(), keep_all()};
    return {{keep_none(), {row_.x_max, ids_of(row_, row_.x_max, all).first}}};
  }
  // What is listed stays so only if the caller says how many of it are left.
  WD_DEVICE void narrow(Boundary last, std::int64_t listed = -1) {
    seen_.keeps.last = stricter(seen_.keeps.last, last);
    seen_.listed = listed;
  }

  // How many of the listed tokens, the first ones, a boundary leaves.
  WD_DEVICE std::int64_t listed_until(const Boundary& last) const {
    if (seen_.listed <= 0) return -1;
    std::uint64_t count = 0;
    for (std::int64_t i = thread(); i < seen_.listed; i += kThreads) {
      const std::uint64_t key = row_.scratch.all[i];
      count += last.keeps(key_logit(key), key_id(key));
    }
    return std::int64_t(row_.team.block_sum(count));
  }

  WD_DEVICE void top_k() {
    if (filter_.k) seen_ = keep_first(row_, seen_, filter_.k);
  }
  WD_DEVICE void min_p() {
    if (filter_.min_p <= 0.0f) return;
    const float highest = highest_kept(row_, seen_.keeps), scale = scale_, least = filter_.min_p;
    const auto enough = [=](float x) { return weight(exponent(x, highest, scale)) >= least; };
    const Boundary last{lowest_logit(highest, enough), kLastId};
    narrow(last, listed_until(last));
  }
  WD_DEVICE void top_p() {
    if (filter_.p >= 1.0f) return;
    const float scale = scale_;
    if (seen_.listed > 0) {
      const Scratch& scratch = row_.scratch;
      const std::uint32_t count = std::uint32_t(seen_.listed);
      const float highest = key_logit(scratch.all[0]);
      const auto mass_at = [&](std::uint32_t i) { return mass(weight(exponent(key_logit(scratch.all[i]), highest, scale))); };
      std::uint64_t total = 0, upto;
      for (std::uint32_t i = thread(); i < count; i += kThreads) total += mass_at(i);
      const std::uint64_t target = nucleus_mass(filter_.p, row_.team.block_sum(total));
      const std::uint32_t last = crossing(row_.team, row_.scratch, count, target, mass_at, upto);
      return narrow(boundary_of(scratch.all[last]), last + 1);
    }
    const float highest = highest_kept(row_, seen_.keeps);
    const std::uint64_t total = mass_kept(row_, highest, scale, seen_.keeps), target = nucleus_mass(filter_.p, total);
    // Even without all tokens of this mass or less the rest reaches the target.
    const std::uint64_t light = (total - target) / std::uint64_t(row_.vocab);
    const Measure mass_of{false, highest, scale};
    const float heavy = lowest_logit(highest, [=](float x) { return mass_of(x) > light; });
    seen_ = cut(row_, seen_.keeps, fmaxf(seen_.keeps.last.x, heavy), highest, target, mass_of);
  }

  WD_DEVICE void top_n_sigma() { narrow(cut_sigma(row_, seen_.keeps, filter_.top_n_sigma)); }
  WD_DEVICE void typical_p() {
    if (filter_.typical_p < 1.0f) seen_ = {keep_typical(row_, seen_.keeps, filter_.typical_p, scale_)};
  }
  WD_DEVICE void epsilon_eta_xtc() {
    seen_ = {keep_by_mass(row_, seen_.keeps, scale_, filter_.epsilon, filter_.eta, filter_.xtc_threshold)};
  }

  const R& row_;
  Filter& filter_;
  float scale_;
  Selection seen_{{keep_none(), keep_all()}};
};

}  // namespace warpdraw::WARPDRAW_SIMT
