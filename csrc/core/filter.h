// One row's filter parameters, made safe to compute with, and the element types that logits come in.
#pragma once
#include "core/order.h"
#include "ops.h"

namespace warpdraw {

WD_HD inline float to_float(float x) { return x; }
WD_HD inline float to_float(bf16 x) { return float_of(std::uint32_t(x.bits) << 16); }
WD_HD inline float to_float(f16 x) {
  const std::uint32_t sign = std::uint32_t(x.bits & 0x8000) << 16, magnitude = x.bits & 0x7fff;
  if (magnitude >= 0x7c00) return float_of(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
  const float scaled = float_of(magnitude << 13) * 0x1p112f;  // exact: also turns half's subnormals into normal floats
  return float_of(bits_of(scaled) | sign);
}

template <typename T> T minus_infinity();
template <> inline float minus_infinity<float>() { return -HUGE_VALF; }
template <> inline bf16 minus_infinity<bf16>() { return {0xff80}; }
template <> inline f16 minus_infinity<f16>() { return {0xfc00}; }

struct Filter {
  bool valid;
  std::int64_t k;      // 0 is off
  float p;             // 1 is off
  float min_p;         // 0 is off
  float scale;         // exponent scale of the draw
  float filter_scale;  // exponent scale of the distribution that the filters see
  Order order;

  WD_HD bool greedy() const { return k == 1; }
  WD_HD bool keeps_all() const { return k == 0 && p >= 1.0f && min_p <= 0.0f; }
};

// Temperature 0 is the first token of the total order, like k = 1. A parameter outside its domain makes the row invalid.
WD_HD inline Filter make_filter(float temperature, std::int32_t k, float p, float min_p, Order order) {
  const bool valid =
      temperature >= 0.0f && temperature <= kLargest && k >= 0 && p >= 0.0f && p <= kLargest && min_p >= 0.0f && min_p <= 1.0f;
  if (temperature == 0.0f) k = 1, temperature = 1.0f;
  const float scale = exponent_scale(temperature);
  return {valid, k, p < 1.0f ? p : 1.0f, min_p, scale, order == Order::llama_cpp ? kLog2E : scale, order};
}

// A row that holds +inf draws equally among those tokens: they get logit 0 and the others none.
WD_HD inline float indicator_of_infinity(float x) { return x > kLargest ? 0.0f : -HUGE_VALF; }

}  // namespace warpdraw
