// The CUDA kernels compiled as C++: the same sources, with fibers for threads.
#include "cuda/filter.cu"
#include "cuda/numerics.cu"
#include "cuda/sample.cu"
#include "cuda/sample_everything.cu"
#include "cuda/softmax.cu"
#include "cuda/verify.cu"
#include "cuda/verify_everything.cu"
#include "cuda/verify_rejecting.cu"
