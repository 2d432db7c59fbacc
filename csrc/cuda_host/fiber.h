// A stack of its own and the switch to it: what a simulated thread runs on.
#pragma once
#include <cstddef>

#if !defined(__ELF__) || !(defined(__x86_64__) || defined(__aarch64__))
#define WARPDRAW_UCONTEXT
#endif
#ifdef WARPDRAW_UCONTEXT
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define WARPDRAW_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WARPDRAW_ASAN
#endif
#endif
#ifdef WARPDRAW_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace warpdraw::fibers {

// Where a fiber, or the caller of them all, stands while another runs.
struct Context {
#ifdef WARPDRAW_UCONTEXT
  ucontext_t registers;
#else
  void* stack_pointer = nullptr;
#endif
  const void* bottom = nullptr;  // of the stack; the caller's is found out only for AddressSanitizer
  std::size_t size = 0;
  void* fake_stack = nullptr;  // AddressSanitizer's
};

// The next switch to this context begins entry, which never returns, on this stack.
void prepare(Context&, char* bottom, std::size_t size, void (*entry)());

// Stores where the running one stands and goes on with the other. `arrived` must be called first thing in an entry.
void switch_context(Context& from, Context& to);
void arrived();

// Memory for the stacks of so many fibers. Below each lies a page that faults, so that no stack grows into the next.
class Stacks {
 public:
#ifdef WARPDRAW_ASAN
  static constexpr std::size_t kSize = 512 << 10;
#else
  static constexpr std::size_t kSize = 128 << 10;
#endif
  explicit Stacks(int count);
  ~Stacks();
  Stacks(const Stacks&) = delete;
  Stacks& operator=(const Stacks&) = delete;
  void give(int index, Context&, void (*entry)()) const;

 private:
  char* memory_;
  std::size_t page_, bytes_;
};

}  // namespace warpdraw::fibers
