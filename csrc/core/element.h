// The element types that logits come in, and rows that hold +inf.
#pragma once
#include "core/numerics.h"
#include "tensor.h"

namespace warpdraw {

WD_HD inline float to_float(float x) { return x; }
WD_HD inline float to_float(bf16 x) { return float_of(std::uint32_t(x.bits) << 16); }
WD_HD inline float to_float(f16 x) {
#ifdef __CUDA_ARCH__  // the same values
  float converted;
  asm("cvt.f32.f16 %0, %1;" : "=f"(converted) : "h"(x.bits));
  return converted;
#endif
  const std::uint32_t sign = std::uint32_t(x.bits & 0x8000) << 16, magnitude = x.bits & 0x7fff;
  if (magnitude >= 0x7c00) return float_of(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
  const float scaled = float_of(magnitude << 13) * 0x1p112f;  // exact: also turns half's subnormals into normal floats
  return float_of(bits_of(scaled) | sign);
}

template <typename T> WD_HD T minus_infinity();
template <> WD_HD inline float minus_infinity<float>() { return -HUGE_VALF; }
template <> WD_HD inline bf16 minus_infinity<bf16>() { return {0xff80}; }
template <> WD_HD inline f16 minus_infinity<f16>() { return {0xfc00}; }

// A row that holds +inf draws equally among those tokens: they get logit 0 and the others none.
WD_HD inline float indicator_of_infinity(float x) { return x > kLargest ? 0.0f : -HUGE_VALF; }

}  // namespace warpdraw
