// The arithmetic that every backend repeats bit for bit: from a logit to a weight, to an integer mass, and the noise of the
// draw. Compile with contraction of multiply-adds off; each fused operation is written out.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#include "core/host_device.h"

namespace warpdraw {

inline constexpr int kTile = 64;                    // consecutive token ids that share one tile of the draw
inline constexpr int kMaxVocab = 1 << 22;           // so that the sum of all masses fits in a signed 64-bit integer
inline constexpr float kMassScale = 1099511627776;  // 2^40: one unit of mass is 2^-40 of the largest weight
inline constexpr float kLog2E = 1.44269504088896341f;
inline constexpr float kLn2 = 0.693147180559945309f;
inline constexpr float kLargest = 3.402823466e38f;

// 2^f on [0, 1], exact at both ends, monotone in fp32 over every input, relative error below 2^-22.6.
inline constexpr float kExp2[] = {1.0f, 0x1.62e4c8p-1f, 0x1.ebd8ap-3f, 0x1.c9444p-5f, 0x1.269dfp-7f, 0x1.eca6fp-10f};
// log(1 + f) / f on [-1/4, 1/2], relative error below 2^-25 before rounding.
inline constexpr float kLog1p[] = {1.0f,           -0.50000060649f, 0.33333548556f, -0.24993442251f,
                                   0.19977077119f, -0.16822811584f, 0.14983918178f, -0.12067372339f,
                                   0.05413250246f};

// c[0] + c[1] x + ..., by Horner's rule in fused multiply-adds. A template, so that a GPU needs no table in memory.
template <const auto& c, std::size_t i> inline constexpr float kCoefficient = c[i];
template <const auto& c, std::size_t... I> WD_HD inline float horner(float x, std::index_sequence<I...>) {
  constexpr std::size_t kLast = sizeof...(I);
  float y = kCoefficient<c, kLast>;
  ((y = fmaf(y, x, kCoefficient<c, kLast - 1 - I>)), ...);
  return y;
}
template <const auto& c> WD_HD inline float polynomial(float x) {
  return horner<c>(x, std::make_index_sequence<sizeof c / sizeof c[0] - 1>{});
}

WD_HD inline std::uint32_t bits_of(float x) {
  std::uint32_t u;
  memcpy(&u, &x, sizeof u);
  return u;
}
WD_HD inline float float_of(std::uint32_t u) {
  float x;
  memcpy(&x, &u, sizeof x);
  return x;
}

// Scales a difference of logits to an exponent of two; finite for every positive temperature.
WD_HD inline float exponent_scale(float temperature) {
  const float c = kLog2E / temperature;
  return c < kLargest ? c : kLargest;
}

// t = log2 of the weight: two roundings.
WD_HD inline float exponent(float x, float x_max, float scale) { return (x - x_max) * scale; }

// w = 2^t for t <= 0; zero below 2^-126 and for NaN.
WD_HD inline float weight(float t) {
  if (!(t >= -126.0f)) return 0.0f;
  const float floor = floorf(t), f = t - floor;
  return polynomial<kExp2>(f) * float_of(std::uint32_t(int(floor) + 127) << 23);
}

// m = floor(w * 2^40). Sums of masses are exact, so their order does not matter.
WD_HD inline std::uint64_t mass(float w) { return std::uint64_t(w * kMassScale); }

// The mass that a nucleus of p needs.
WD_HD inline std::uint64_t nucleus_mass(float p, std::uint64_t total) { return std::uint64_t(double(p) * double(total)); }

// E = -log(1 - u) with u = (r + 1/2) / 2^32: a standard exponential, relatively accurate at both ends.
WD_HD inline float exponential(std::uint32_t r) {
  // v = 1 - u = 2^e (1 + f) with f in [-1/4, 1/2); near v = 1, f comes from r itself, so that nothing cancels.
  float f, e;
  if (r < 0x40000000u) {
    f = (float(r) + 0.5f) * -0x1p-32f;
    e = 0.0f;
  } else {
    const std::uint32_t v = bits_of(float(~r) + 0.5f);  // v in [1/2, 3/4 * 2^32]
    const std::int32_t n = std::int32_t(v - 0x3f400000u) >> 23;
    f = float_of(v - (std::uint32_t(n) << 23)) - 1.0f;
    e = float(n - 32);
  }
  return -fmaf(e, kLn2, f * polynomial<kLog1p>(f));
}

// The race: the largest mass / E wins. Both conversions round to nearest.
WD_HD inline float race_key(std::uint64_t m, float e) { return float(m) / e; }

// m times -t, floored like the mass; at most 0.54 * 2^40.
WD_HD inline std::uint64_t moment(float t) { return t >= -126.0f ? std::uint64_t(weight(t) * -t * kMassScale) : 0; }

// log(x / 2^shift) of a positive normal number, from fixed operations.
WD_HD inline double natural_log(double x, int shift = 0) {
  std::uint64_t u;
  memcpy(&u, &x, sizeof u);
  const std::int64_t n = std::int64_t(u - 0x3fe8000000000000ull) >> 52;  // x = 2^n (1 + f), f in [-1/4, 1/2)
  u -= std::uint64_t(n) << 52;
  double y;
  memcpy(&y, &u, sizeof y);
  const double s = (y - 1.0) / (y + 1.0), z = s * s;  // log y = 2 artanh s
  double series = 1.0 / 21;
  for (int i = 19; i >= 1; i -= 2) series = fma(series, z, 1.0 / i);
  return fma(double(n - shift), 0.693147180559945309, 2.0 * s * series);
}

// log(m / 2^40), for log-probabilities.
WD_HD inline double log_mass(std::uint64_t m) { return natural_log(double(m), 40); }

// The probability of a token of weight 1 in a distribution of the given total mass.
WD_HD inline float probability_unit(std::uint64_t total) { return float(double(kMassScale) / double(total)); }
// The probability of a token with exponent t.
WD_HD inline float probability(float t, std::uint64_t total) { return weight(t) * probability_unit(total); }

// The log-probability of a token with exponent t in a distribution of the given total mass; a certain one has +0.
WD_HD inline float log_probability(float t, std::uint64_t total) { return fmaf(t, kLn2, 0.0f - float(log_mass(total))); }

}  // namespace warpdraw
