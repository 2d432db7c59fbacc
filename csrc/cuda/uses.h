// What a call asks for, by the arguments that are given and not by their values in a tensor: which kernels it needs.
#pragma once
#include "ops.h"

namespace warpdraw {

template <typename T> bool is_on(const PerRow<T>& parameter, T off) { return parameter.tensor || parameter.value != off; }

// Whether the call uses filters of the long tail.
inline bool filters_the_tail(const Parameters& in) {
  return is_on(in.typical_p, 1.0f) || is_on(in.top_n_sigma, 0.0f) || is_on(in.dynatemp_range, 0.0f) ||
         is_on(in.epsilon, 0.0f) || is_on(in.eta, 0.0f) || is_on(in.xtc_probability, 0.0f);
}

// Whether the row that is sampled from may differ from the one in memory.
inline bool edits_rows(const Parameters& in) {
  return in.bitmask || in.allowed_ids || in.banned_ids || in.stop_ids || in.bias_ids || in.history;
}

}  // namespace warpdraw
