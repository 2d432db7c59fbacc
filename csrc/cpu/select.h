// What the filters of a row keep together, found among a few candidates instead of by a sort.
#pragma once
#include "cpu/candidates.h"

namespace warpdraw::WARPDRAW_ISA {

// What the filters leave. The row holds a candidate and no +inf. Sets the scale of the draw where it depends on the row.
template <typename T> Interval select(const Row<T>& row, Filter& filter, Candidates& candidates);

// The first token of the total order.
template <typename T> Boundary first_token(const Row<T>& row);

// The largest logit that an interval keeps.
template <typename T> float highest_kept(const Row<T>& row, const Interval& keeps);

// The first id of the kept tokens of one logit.
template <typename T> std::uint32_t first_id(const Row<T>& row, float x, const Interval& keeps);

// The first k of the tokens that are kept, ranked, as keys in front of the candidates; returns how many there are.
template <typename T> std::size_t rank_first(const Row<T>& row, std::int64_t k, const Interval& keeps, Candidates& candidates);

// The filters that only ever cut off the end of what they see; each returns its cut.
template <typename T> Boundary top_k(const Row<T>& row, std::int64_t k, const Interval& seen, Candidates& candidates);
template <typename T>
Boundary top_p(const Row<T>& row, float p, float scale, float highest, const Interval& seen, Candidates& candidates);

// The smallest logit whose weight is at least min_p.
float min_p_logit(float min_p, float highest, float scale);

// The filters that most calls do not use, and dynamic temperature.
template <typename T> Boundary top_n_sigma(const Row<T>& row, float n);
template <typename T> Interval typical_p(const Row<T>& row, float p, float scale, const Interval& seen, Candidates& candidates);
template <typename T> Interval epsilon_eta_xtc(const Row<T>& row, const Filter& filter, Interval seen);

}  // namespace warpdraw::WARPDRAW_ISA
