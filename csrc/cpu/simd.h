// Vectors of fp32 or 32-bit integers as wide as the instruction set's registers. Only the operations that compilers do not find
// by themselves are written with intrinsics.
#pragma once
#include <cstdint>
#include <cstring>

#include "core/element.h"
#include "core/filter.h"
#include "core/philox.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define WD_INLINE static inline __attribute__((always_inline))
#define WD_MEMBER inline __attribute__((always_inline))

namespace warpdraw::WARPDRAW_ISA {

#if defined(__AVX512F__)
inline constexpr int kLanes = 16;
#elif defined(__AVX2__)
inline constexpr int kLanes = 8;
#else
inline constexpr int kLanes = 4;
#endif

using Floats = float __attribute__((vector_size(kLanes * 4)));
using Ints = std::int32_t __attribute__((vector_size(kLanes * 4)));
using Words = std::uint32_t __attribute__((vector_size(kLanes * 4)));
using Mask = std::uint32_t;  // one bit a lane

template <typename V, typename T> WD_INLINE V splat(T value) { return V{} + value; }
WD_INLINE Floats floats(float value) { return splat<Floats>(value); }
WD_INLINE Words words(std::uint32_t value) { return splat<Words>(value); }
WD_INLINE Words lane_index() {
  Words v{};
  for (int i = 0; i < kLanes; ++i) v[i] = std::uint32_t(i);
  return v;
}

template <typename To, typename From> WD_INLINE To reinterpret(From v) {
  To to;
  static_assert(sizeof to == sizeof v);
  memcpy(&to, &v, sizeof v);
  return to;
}

#if defined(__AVX512F__)

WD_INLINE Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
// The larger, or the smaller, of the two; b where one is NaN.
WD_INLINE Floats max(Floats a, Floats b) { return _mm512_max_ps(a, b); }
WD_INLINE Floats min(Floats a, Floats b) { return _mm512_min_ps(a, b); }
WD_INLINE Mask bits(Ints condition) { return _mm512_movepi32_mask(__m512i(condition)); }
WD_INLINE Mask at_least(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
WD_INLINE Mask above(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
WD_INLINE Mask equal(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
WD_INLINE Mask at_most(Words a, Words b) { return _mm512_cmple_epu32_mask(__m512i(a), __m512i(b)); }
WD_INLINE Floats keep(Mask mask, Floats v) { return _mm512_maskz_mov_ps(__mmask16(mask), v); }
WD_INLINE Floats choose(Mask mask, Floats yes, Floats no) { return _mm512_mask_mov_ps(no, __mmask16(mask), yes); }
WD_INLINE Floats floor(Floats v) { return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
// v - floor(v) where that is exact: for v of -1 or less.
WD_INLINE Floats exact_fraction(Floats v) { return _mm512_reduce_ps(v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
// p * 2^floor(t) where t >= -126, else 0.
WD_INLINE Floats scale_by_exponent(Floats p, Floats t) {
  return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(t, floats(-126.0f), _CMP_GE_OQ), p, t);
}
WD_INLINE Words multiply_high(Words a, std::uint32_t b) {
  const __m512i v = __m512i(a), m = _mm512_set1_epi32(int(b));
  const __m512i even = _mm512_mul_epu32(v, m), odd = _mm512_mul_epu32(_mm512_srli_epi64(v, 32), m);
  return Words(_mm512_mask_mov_epi32(_mm512_srli_epi64(even, 32), 0xaaaa, odd));
}
// Stores the chosen lanes next to each other; may write a whole vector.
WD_INLINE void compress_store(float* to, Mask mask, Floats v) {
  _mm512_storeu_ps(to, _mm512_maskz_compress_ps(__mmask16(mask), v));
}
WD_INLINE void compress_store(std::uint32_t* to, Mask mask, Words v) {
  _mm512_storeu_si512(to, _mm512_maskz_compress_epi32(__mmask16(mask), __m512i(v)));
}
WD_INLINE float largest(Floats v) { return _mm512_reduce_max_ps(v); }
// Adds up masses: whole parts of w * 2^40.
struct MassSum {
  __m512i sum = _mm512_setzero_si512();

  WD_MEMBER void add(Floats m) {
    sum = _mm512_add_epi64(sum, _mm512_cvttps_epi64(_mm512_castps512_ps256(m)));
    sum = _mm512_add_epi64(sum, _mm512_cvttps_epi64(_mm512_extractf32x8_ps(m, 1)));
  }
  // Four masses below 2^30 at once: their sum fits in 32 bits.
  WD_MEMBER void add_light(const Floats* m) {
    __m512i four = _mm512_setzero_si512();
    for (int i = 0; i < 4; ++i) four = _mm512_add_epi32(four, _mm512_cvttps_epi32(m[i]));
    const __m512i low = _mm512_and_si512(four, _mm512_set1_epi64(0xffffffff));
    sum = _mm512_add_epi64(sum, _mm512_add_epi64(low, _mm512_srli_epi64(four, 32)));
  }
  WD_MEMBER std::uint64_t total() const { return std::uint64_t(_mm512_reduce_add_epi64(sum)); }
};
WD_INLINE Floats load(const float* from) { return _mm512_loadu_ps(from); }
WD_INLINE Floats load(const f16* from) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))); }
WD_INLINE Floats load(const bf16* from) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))), 16));
}

#else

WD_INLINE Floats load(const float* from) {
  Floats v;
  memcpy(&v, from, sizeof v);
  return v;
}
WD_INLINE Floats choose(Ints condition, Floats yes, Floats no) {
  return reinterpret<Floats>((condition & reinterpret<Ints>(yes)) | (~condition & reinterpret<Ints>(no)));
}

#if defined(__AVX2__)

WD_INLINE Floats fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
WD_INLINE Floats max(Floats a, Floats b) { return _mm256_max_ps(a, b); }
WD_INLINE Floats min(Floats a, Floats b) { return _mm256_min_ps(a, b); }
WD_INLINE Floats floor(Floats v) { return _mm256_floor_ps(v); }
WD_INLINE float largest(Floats v) {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
WD_INLINE Mask bits(Ints condition) { return Mask(_mm256_movemask_ps(reinterpret<Floats>(condition))); }
WD_INLINE Floats load(const f16* from) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))); }
WD_INLINE Words multiply_high(Words a, std::uint32_t b) {
  const __m256i v = __m256i(a), m = _mm256_set1_epi32(int(b));
  const __m256i even = _mm256_mul_epu32(v, m), odd = _mm256_mul_epu32(_mm256_srli_epi64(v, 32), m);
  return Words(_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa));
}
// Doubles hold the sum of 1024 vectors of masses exactly; then it moves on.
struct MassSum {
  __m256d sum = _mm256_setzero_pd();
  std::uint64_t moved = 0;
  int added = 0;

  WD_MEMBER void add(Floats scaled) {
    const __m256 m = _mm256_floor_ps(scaled);
    sum = _mm256_add_pd(sum, _mm256_cvtps_pd(_mm256_castps256_ps128(m)));
    sum = _mm256_add_pd(sum, _mm256_cvtps_pd(_mm256_extractf128_ps(m, 1)));
    if (++added == 1024) *this = {_mm256_setzero_pd(), total(), 0};
  }
  WD_MEMBER void add_light(const Floats* m) {
    for (int i = 0; i < 4; ++i) add(m[i]);
  }
  WD_MEMBER std::uint64_t total() const { return moved + std::uint64_t(sum[0] + sum[1] + sum[2] + sum[3]); }
};

#else

WD_INLINE Floats fma(Floats a, Floats b, Floats c) {
  Floats v;
  for (int i = 0; i < kLanes; ++i) v[i] = fmaf(a[i], b[i], c[i]);
  return v;
}
WD_INLINE Floats max(Floats a, Floats b) { return choose(a > b, a, b); }
WD_INLINE Floats min(Floats a, Floats b) { return choose(a < b, a, b); }
WD_INLINE Floats floor(Floats v) {
  for (int i = 0; i < kLanes; ++i) v[i] = floorf(v[i]);
  return v;
}
WD_INLINE float largest(Floats v) {
  float x = v[0];
  for (int i = 1; i < kLanes; ++i) x = v[i] > x ? v[i] : x;
  return x;
}
WD_INLINE Mask bits(Ints condition) {
  Mask mask = 0;
  for (int i = 0; i < kLanes; ++i) mask |= Mask(condition[i] & 1) << i;
  return mask;
}
WD_INLINE Floats load(const f16* from) {
  Floats v;
  for (int i = 0; i < kLanes; ++i) v[i] = to_float(from[i]);
  return v;
}

WD_INLINE Words multiply_high(Words a, std::uint32_t b) {
  Words v;
  for (int i = 0; i < kLanes; ++i) v[i] = std::uint32_t(std::uint64_t(a[i]) * b >> 32);
  return v;
}
struct MassSum {
  std::uint64_t sum = 0;

  WD_MEMBER void add(Floats m) {
    for (int lane = 0; lane < kLanes; ++lane) sum += std::uint64_t(m[lane]);
  }
  WD_MEMBER void add_light(const Floats* m) {
    for (int i = 0; i < 4; ++i) add(m[i]);
  }
  WD_MEMBER std::uint64_t total() const { return sum; }
};

#endif

WD_INLINE Floats load(const bf16* from) {
  using Shorts = std::uint16_t __attribute__((vector_size(kLanes * 2)));
  Shorts v;
  memcpy(&v, from, sizeof v);
  return reinterpret<Floats>(__builtin_convertvector(v, Words) << 16);
}
WD_INLINE Mask at_least(Floats a, Floats b) { return bits(a >= b); }
WD_INLINE Mask above(Floats a, Floats b) { return bits(a > b); }
WD_INLINE Mask equal(Floats a, Floats b) { return bits(a == b); }
WD_INLINE Mask at_most(Words a, Words b) { return bits(reinterpret<Ints>(a <= b)); }
WD_INLINE Floats choose(Mask mask, Floats yes, Floats no) {
  return choose(-reinterpret<Ints>((words(mask) >> lane_index()) & 1), yes, no);
}
WD_INLINE Floats keep(Mask mask, Floats v) { return choose(mask, v, floats(0.0f)); }
WD_INLINE Floats exact_fraction(Floats v) { return v - floor(v); }
WD_INLINE Floats scale_by_exponent(Floats p, Floats t) {
  const Ints inside = t >= -126.0f;
  const Ints n = __builtin_convertvector(choose(inside, floor(t), floats(0.0f)), Ints);
  return choose(inside, p * reinterpret<Floats>((n + 127) << 23), floats(0.0f));
}
template <typename T, typename V> WD_INLINE void compress_store(T* to, Mask mask, V v) {
  for (; mask; mask &= mask - 1) *to++ = v[__builtin_ctz(mask)];
}
#endif

WD_INLINE float smallest(Floats v) { return -largest(-v); }

// 2^t * unit, a power of two; as weight() of core/numerics.h, because such a factor changes no rounding. It is quicker where
// all t are known to be -1 or less.
template <bool kSmall = false> WD_INLINE Floats weights(Floats t, float unit = 1.0f) {
  const Floats f = kSmall ? exact_fraction(t) : t - floor(t);
  Floats p = floats(kExp2[5] * unit);
  for (int i = 4; i >= 0; --i) p = fma(p, f, floats(kExp2[i] * unit));
  return scale_by_exponent(p, t);
}

// floor(w * 2^40) as fp32, which holds it exactly.
WD_INLINE Floats masses(Floats w) { return floor(w * kMassScale); }

// As exponential() of core/numerics.h.
WD_INLINE Floats exponentials(Words r) {
  const Words v = reinterpret<Words>(__builtin_convertvector(~r, Floats) + 0.5f);
  const Ints n = reinterpret<Ints>(v - 0x3f400000u) >> 23;
  const Ints near = reinterpret<Ints>(r < 0x40000000u);  // all ones where true
  const Floats far_f = reinterpret<Floats>(v - (reinterpret<Words>(n) << 23)) - 1.0f;
  const Floats near_f = (__builtin_convertvector(r, Floats) + 0.5f) * -0x1p-32f;
  const Floats f = reinterpret<Floats>((near & reinterpret<Ints>(near_f)) | (~near & reinterpret<Ints>(far_f)));
  const Floats e = __builtin_convertvector(~near & (n - 32), Floats);
  Floats q = floats(kLog1p[8]);
  for (int i = 7; i >= 0; --i) q = fma(q, f, floats(kLog1p[i]));
  return -fma(e, floats(kLn2), f * q);
}

// m * -t, whose whole part is the moment() of core/numerics.h.
WD_INLINE Floats moments_of(Floats m, Floats t) { return choose(at_least(t, floats(-126.0f)), m * -t, floats(0.0f)); }

struct NoiseWords {
  Words word[4];
};

// Noise::block for as many blocks as there are lanes.
WD_INLINE NoiseWords noise_blocks(const Noise& noise, Stream stream, Words block) {
  Words c0 = block, c1 = words(std::uint32_t(noise.position)), c2 = words(std::uint32_t(noise.position >> 32)),
        c3 = words(noise.word_of(stream));
  std::uint32_t key0 = std::uint32_t(noise.seed), key1 = std::uint32_t(noise.seed >> 32);
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const Words high0 = multiply_high(c0, kPhiloxMultiplier0), high2 = multiply_high(c2, kPhiloxMultiplier1);
    const Words low0 = c0 * kPhiloxMultiplier0, low2 = c2 * kPhiloxMultiplier1;
    c0 = high2 ^ c1 ^ key0, c1 = low2, c2 = high0 ^ c3 ^ key1, c3 = low0;
    key0 += kPhiloxKeyStep0, key1 += kPhiloxKeyStep1;
  }
  return {{c0, c1, c2, c3}};
}

// Noise::bits for any indices.
WD_INLINE Words noise_bits(const Noise& noise, Stream stream, Words index) {
  const NoiseWords blocks = noise_blocks(noise, stream, index >> 2);
  const Ints word = reinterpret<Ints>(index & 3);
  return (blocks.word[0] & reinterpret<Words>(word == 0)) | (blocks.word[1] & reinterpret<Words>(word == 1)) |
         (blocks.word[2] & reinterpret<Words>(word == 2)) | (blocks.word[3] & reinterpret<Words>(word == 3));
}

// Noise::bits for four vectors of indices in a row; the first is a multiple of 4. A block is evaluated once.
WD_INLINE NoiseWords noise_run(const Noise& noise, Stream stream, std::uint32_t first) {
  const NoiseWords blocks = noise_blocks(noise, stream, lane_index() + first / 4);
  NoiseWords run;
#if defined(__AVX512F__)
  const __m512i a = __m512i(blocks.word[0]), b = __m512i(blocks.word[1]), c = __m512i(blocks.word[2]),
                d = __m512i(blocks.word[3]);
  const __m512i ab0 = _mm512_unpacklo_epi32(a, b), ab1 = _mm512_unpackhi_epi32(a, b);
  const __m512i cd0 = _mm512_unpacklo_epi32(c, d), cd1 = _mm512_unpackhi_epi32(c, d);
  // Blocks 0 4 8 12, then 1 5 9 13, 2 6 10 14, 3 7 11 15, each in a lane of 128 bits.
  const __m512i q0 = _mm512_unpacklo_epi64(ab0, cd0), q1 = _mm512_unpackhi_epi64(ab0, cd0);
  const __m512i q2 = _mm512_unpacklo_epi64(ab1, cd1), q3 = _mm512_unpackhi_epi64(ab1, cd1);
  const __m512i lo01 = _mm512_shuffle_i32x4(q0, q1, 0x44), hi01 = _mm512_shuffle_i32x4(q0, q1, 0xee);
  const __m512i lo23 = _mm512_shuffle_i32x4(q2, q3, 0x44), hi23 = _mm512_shuffle_i32x4(q2, q3, 0xee);
  // lo01: blocks 0 4 1 5, lo23: blocks 2 6 3 7.
  run.word[0] = Words(_mm512_shuffle_i32x4(lo01, lo23, 0x88));
  run.word[1] = Words(_mm512_shuffle_i32x4(lo01, lo23, 0xdd));
  run.word[2] = Words(_mm512_shuffle_i32x4(hi01, hi23, 0x88));
  run.word[3] = Words(_mm512_shuffle_i32x4(hi01, hi23, 0xdd));
#else
  std::uint32_t transposed[4 * kLanes];
  for (int block = 0; block < kLanes; ++block)
    for (int word = 0; word < 4; ++word) transposed[4 * block + word] = blocks.word[word][block];
  memcpy(&run, transposed, sizeof run);
#endif
  return run;
}

}  // namespace warpdraw::WARPDRAW_ISA
