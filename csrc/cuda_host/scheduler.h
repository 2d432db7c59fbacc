// The simulated threads of a cluster: which one runs, where the others wait, and when they may go on.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>

namespace warpdraw::fibers {

constexpr int kLanes = 32, kBlockThreads = 64;  // two warps: as few as still have all that a block has

enum class Primitive { sync, sync_count, sync_and, sync_or, cluster_sync, shuffle, shuffle_xor, shuffle_up, ballot, warp_sync };

// Where a kernel calls a primitive.
struct Call {
  Primitive primitive;
  const char* file;
  int line;
};

// Where the threads of a warp, a block or a cluster wait until the last of them comes. What they bring is kept twice: the first
// may come to the next meeting while others have not yet read the results of this one.
struct Meeting {
  int first_block, blocks;
  std::uint64_t threads;  // of each of these blocks
  int size, waiting = 0;
  Call call{};
  unsigned count = 0;
  std::uint64_t sum[2] = {};
};

struct Warp {
  Meeting meeting;
  std::uint64_t value[2][kLanes] = {};
};

struct Block {
  int rank;
  long long x, y;
  char* shared;
  Meeting meeting;
  Warp warps[kBlockThreads / kLanes];
  std::uint64_t ready;  // a bit for each thread that could run
  int begun, ended;     // threads
};

struct Thread {
  Block* block;
  Warp* warp;
  int index;         // in the block
  Meeting* waiting;  // where, if anywhere
  bool ended;
};

// The one that runs.
inline thread_local constinit Thread* current = nullptr;

// Waits for the others; the sum of what all have brought.
std::uint64_t meet(Meeting&, Call, std::uint64_t brought = 0);
Meeting& cluster_meeting();
Block& cluster_block(int rank);
int cluster_blocks();
std::size_t shared_bytes();

// Copies that end at a place of shared memory, one at a time. What is copied is there when the first thread has waited for it,
// and neither what it was before nor nonsense may be read meanwhile, so its place is spoilt when the copy is asked for.
void begin_copies(void* place);
void copy(void* place, void* to, const void* from, std::size_t bytes);
void wait_for_copy(void* place, unsigned turn);

// Runs body as every thread of the grid, in the order that the environment variable WARPDRAW_FIBERS names.
void run_grid(long long blocks_x, long long blocks_y, int cluster, std::size_t shared, const std::function<void()>& body);

}  // namespace warpdraw::fibers
