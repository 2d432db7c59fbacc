// The total order of tokens: logit descending, then id ascending. Every filter keeps a prefix of it.
#pragma once
#include <cstdint>

#include "core/numerics.h"

namespace warpdraw {

// An integer that grows with x; -0 and +0 are one value.
WD_HD inline std::uint32_t ordered(float x) {
  const std::uint32_t u = bits_of(x + 0.0f);
  return u & 0x80000000u ? ~u : u | 0x80000000u;
}
WD_HD inline float unordered(std::uint32_t u) { return float_of(u & 0x80000000u ? u & 0x7fffffffu : ~u); }

// A token's rank as one integer: the larger comes first.
WD_HD inline std::uint64_t rank_key(float x, std::uint32_t id) { return std::uint64_t(ordered(x)) << 32 | std::uint32_t(~id); }
WD_HD inline float key_logit(std::uint64_t key) { return unordered(std::uint32_t(key >> 32)); }
WD_HD inline std::uint32_t key_id(std::uint64_t key) { return ~std::uint32_t(key); }

inline constexpr std::uint32_t kLastId = 0xffffffff;  // a boundary with it keeps all tokens of its logit

// A cut in the total order, after a token.
struct Boundary {
  float x;
  std::uint32_t id;

  // Whether a token stands before the cut.
  WD_HD bool keeps(float logit, std::uint32_t token) const { return logit > x || (logit == x && token <= id); }
  WD_HD bool operator==(const Boundary& other) const { return x == other.x && id == other.id; }
};

// Keeps every candidate: all logits but -inf and NaN.
WD_HD inline Boundary keep_all() { return {-kLargest, kLastId}; }
WD_HD inline Boundary boundary_of(std::uint64_t key) { return {key_logit(key), key_id(key)}; }
// Before every token.
WD_HD inline Boundary keep_none() { return {HUGE_VALF, kLastId}; }
// Just before a token.
WD_HD inline Boundary before(float x, std::uint32_t id) {
  return id > 0 ? Boundary{x, id - 1} : Boundary{nextafterf(x, HUGE_VALF), kLastId};
}
WD_HD inline Boundary stricter(Boundary a, Boundary b) { return a.x > b.x || (a.x == b.x && a.id < b.id) ? a : b; }

// A run of neighbours in the total order: what stands before `last` and not before `first`.
struct Interval {
  Boundary first, last;

  WD_HD bool keeps(float logit, std::uint32_t token) const { return last.keeps(logit, token) && !first.keeps(logit, token); }
  WD_HD bool is_prefix() const { return first.x > kLargest; }
};

}  // namespace warpdraw
