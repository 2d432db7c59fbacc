// Marks functions that run on the host and, under nvcc, on the device too.
#pragma once

#ifdef __CUDACC__
#define WD_HD __host__ __device__
#else
#define WD_HD
#endif
