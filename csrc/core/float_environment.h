// Rounds to nearest and keeps subnormals while it lives, whatever the calling thread has set (torch.set_flush_denormal, say).
#pragma once
#include <cfenv>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace warpdraw {

class FloatEnvironment {
#if defined(__SSE__)
  static constexpr unsigned kDefault = 0x1f80;
  unsigned previous_ = _mm_getcsr();

 public:
  FloatEnvironment() { _mm_setcsr(kDefault); }
  ~FloatEnvironment() { _mm_setcsr(previous_); }
#else
  std::fenv_t previous_;

 public:
  FloatEnvironment() { std::fegetenv(&previous_), std::fesetenv(FE_DFL_ENV); }
  ~FloatEnvironment() { std::fesetenv(&previous_); }
#endif
  FloatEnvironment(const FloatEnvironment&) = delete;
  FloatEnvironment& operator=(const FloatEnvironment&) = delete;
};

}  // namespace warpdraw
