// Marks functions that run on the host and, under nvcc, on the device too.
#pragma once

#ifdef __CUDACC__
#define WD_HD __host__ __device__
#else
// Always inlined: the linker keeps one copy of what is not, whatever instruction set it was compiled for (.ci/check_symbols).
#define WD_HD __attribute__((always_inline))
#endif
