// The CUDA kernels compiled as C++: the same sources, with fibers for threads.
#if __has_include("cuda/filter.cu")
#include "cuda/filter.cu"
#endif
#if __has_include("cuda/numerics.cu")
#include "cuda/numerics.cu"
#endif
#if __has_include("cuda/sample.cu")
#include "cuda/sample.cu"
#endif
#if __has_include("cuda/softmax.cu")
#include "cuda/softmax.cu"
#endif
