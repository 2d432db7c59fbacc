// The kernels of a shape that reads through rings of bulk copies, compiled as C++, so that tests see it without a GPU.
#define WARPDRAW_SIMT cuda_host_ring
#define WARPDRAW_SHAPE ring2
#define WARPDRAW_LEAN
#include "cuda/sample.cu"
#include "cuda/softmax.cu"
