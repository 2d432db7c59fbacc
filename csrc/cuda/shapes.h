// The shapes of kernels: what a build fixes and a tuner varies, one line each. The module has the usual shape; a build for
// tuning has the others beside it, each in a namespace of its own.
#pragma once

namespace warpdraw {

// After which stage a kernel over rows stops. Less than all of them gives wrong results: it is there to find out where time
// goes.
enum class Until { read, maxima, filters, all };

struct Shape {
  int threads;  // of a block
  int blocks;   // on a multiprocessor at a time
  int loads;    // of 16 bytes that a thread has on their way: as wide as they are before sm_100
  int stages;   // parts of a row that a warp has on their way to shared memory by bulk copies; 0: its threads load
  Until until = Until::all;
};

#define WARPDRAW_USUAL_SHAPE 256, 2, 4, 0
// CMake reads the names of these lines.
#define WARPDRAW_SHAPES(SHAPE)                     \
  SHAPE(loads2, 256, 2, 2, 0)                      \
  SHAPE(loads8, 256, 2, 8, 0)                      \
  SHAPE(threads128, 128, 4, 4, 0)                  \
  SHAPE(threads128_loads8, 128, 4, 8, 0)           \
  SHAPE(threads512, 512, 1, 4, 0)                  \
  SHAPE(threads512_loads2, 512, 1, 2, 0)           \
  SHAPE(threads512_loads8, 512, 1, 8, 0)           \
  SHAPE(ring2, 256, 2, 4, 2)                       \
  SHAPE(ring4, 256, 2, 4, 4)                       \
  SHAPE(ring4_loads2, 256, 2, 2, 4)                \
  SHAPE(ring4_threads512, 512, 1, 4, 4)            \
  SHAPE(until_read, 256, 2, 4, 0, Until::read)     \
  SHAPE(until_maxima, 256, 2, 4, 0, Until::maxima) \
  SHAPE(until_filters, 256, 2, 4, 0, Until::filters)

}  // namespace warpdraw
