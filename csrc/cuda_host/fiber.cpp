// The switch between stacks, by hand where the instruction set is known, since ucontext makes system calls.
#include "cuda_host/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <new>

// Keeps what a call must preserve on the old stack, then takes it from the new one. The floating-point environment is shared.
#ifndef WARPDRAW_UCONTEXT
extern "C" __attribute__((visibility("hidden"))) void warpdraw_switch_stacks(void** from, void* to);
#if defined(__x86_64__)
asm(R"(
.text
.p2align 4
.globl warpdraw_switch_stacks
.hidden warpdraw_switch_stacks
.type warpdraw_switch_stacks, @function
warpdraw_switch_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  popq %rcx
  jmpq *%rcx
.size warpdraw_switch_stacks, .-warpdraw_switch_stacks
)");
#else
asm(R"(
.text
.p2align 4
.globl warpdraw_switch_stacks
.hidden warpdraw_switch_stacks
.type warpdraw_switch_stacks, %function
warpdraw_switch_stacks:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size warpdraw_switch_stacks, .-warpdraw_switch_stacks
)");
#endif
#endif

namespace warpdraw::fibers {

void prepare(Context& context, char* bottom, std::size_t size, void (*entry)()) {
  context = {};
  context.bottom = bottom;
  context.size = size;
#ifdef WARPDRAW_UCONTEXT
  getcontext(&context.registers);
  context.registers.uc_stack.ss_sp = bottom;
  context.registers.uc_stack.ss_size = size;
  context.registers.uc_link = nullptr;
  makecontext(&context.registers, entry, 0);
#else
  auto top = (reinterpret_cast<std::uintptr_t>(bottom) + size) & ~std::uintptr_t{15};
#if defined(__x86_64__)
  constexpr int kWords = 8, kReturn = 6;  // above the return address stands the one of the entry, which has none
#else
  constexpr int kWords = 20, kReturn = 11;
#endif
  auto* frame = reinterpret_cast<void**>(top) - kWords;
  std::memset(frame, 0, kWords * sizeof(void*));
  frame[kReturn] = reinterpret_cast<void*>(entry);
  context.stack_pointer = frame;
#endif
}

#ifdef WARPDRAW_ASAN
namespace {
thread_local Context* left = nullptr;
}
#endif

void arrived() {
#ifdef WARPDRAW_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &left->bottom, &left->size);
#endif
}

void switch_context(Context& from, Context& to) {
#ifdef WARPDRAW_ASAN
  left = &from;
  __sanitizer_start_switch_fiber(&from.fake_stack, to.bottom, to.size);
#endif
#ifdef WARPDRAW_UCONTEXT
  swapcontext(&from.registers, &to.registers);
#else
  warpdraw_switch_stacks(&from.stack_pointer, to.stack_pointer);
#endif
#ifdef WARPDRAW_ASAN
  __sanitizer_finish_switch_fiber(from.fake_stack, &left->bottom, &left->size);
#endif
}

Stacks::Stacks(int count) : page_(std::size_t(sysconf(_SC_PAGESIZE))), bytes_(count * (kSize + page_)) {
  void* memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  memory_ = static_cast<char*>(memory);
  for (int i = 0; i < count; ++i) mprotect(memory_ + i * (kSize + page_), page_, PROT_NONE);
}

Stacks::~Stacks() { munmap(memory_, bytes_); }

void Stacks::give(int index, Context& context, void (*entry)()) const {
  char* bottom = memory_ + index * (kSize + page_) + page_;
#ifdef WARPDRAW_ASAN
  __asan_unpoison_memory_region(bottom, kSize);  // a fiber that was given up leaves its frames marked
#endif
  // Tops at different places of a page, or they would compete for the same lines of the cache.
  prepare(context, bottom, kSize - std::size_t(index % 64) * 192, entry);
}

}  // namespace warpdraw::fibers
