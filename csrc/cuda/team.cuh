// The threads that share a row: one block, or the blocks of a cluster. Sums and maxima that all of them get.
#pragma once
#include "cuda/simt.h"

namespace warpdraw::WARPDRAW_SIMT {

using namespace simt;

inline constexpr int kWarps = kThreads / kWarp;
inline constexpr int kMostBlocks = 16;  // of a cluster

struct Sum {
  WD_DEVICE std::uint64_t operator()(std::uint64_t a, std::uint64_t b) const { return a + b; }
};
struct Largest {
  WD_DEVICE std::uint64_t operator()(std::uint64_t a, std::uint64_t b) const { return a > b ? a : b; }
};

template <typename Value, typename Op> WD_DEVICE Value over_lanes(Value value, Op op) {
  WD_UNROLL
  for (int mask = kWarp / 2; mask; mask /= 2) value = op(value, shuffle_xor(value, mask));
  return value;
}

// Every operation of a team is called by all its threads. Each exchange takes place in the half of its room that the one before
// did not use, so that one barrier serves both the writing and the end of the reading before.
class Team {
 public:
  static constexpr int kMost = 3;  // values at a time
  struct Room {
    std::uint64_t of_warp[2][kWarps][kMost], of_block[2][kMost];
  };

  WD_DEVICE explicit Team(Room& room) : rank(cluster_rank()), size(cluster_size()), room_(room) {}

  const int rank, size;  // of blocks

  WD_DEVICE void wait() {
    if (size > 1)
      cluster_sync();
    else
      sync();
    lent_ = false;
  }

  template <typename Op, int N> WD_DEVICE void in_block(std::uint64_t (&value)[N], Op op) {
    static_assert(N <= kMost);
    for (int n = 0; n < N; ++n) value[n] = over_lanes(value[n], op);
    auto& place = room_.of_warp[block_turn_ ^= 1];
    for (int n = 0; n < N && lane() == 0; ++n) place[warp()][n] = value[n];
    sync();
    for (int n = 0; n < N; ++n) {
      value[n] = place[0][n];
      for (int w = 1; w < kWarps; ++w) value[n] = op(value[n], place[w][n]);
    }
  }
  template <typename Op, int N> WD_DEVICE void in_team(std::uint64_t (&value)[N], Op op) {
    in_block(value, op);
    if (size == 1) return;
    std::uint64_t* place = room_.of_block[team_turn_ ^= 1];
    for (int n = 0; n < N && thread() == 0; ++n) place[n] = value[n];
    wait();
    for (int n = 0; n < N; ++n) value[n] = over_lanes(of_peer(place + n), op);
  }

  WD_DEVICE std::uint64_t sum(std::uint64_t value) {
    std::uint64_t all[] = {value};
    in_team(all, Sum{});
    return all[0];
  }
  WD_DEVICE std::uint64_t largest(std::uint64_t value) {
    std::uint64_t all[] = {value};
    in_team(all, Largest{});
    return all[0];
  }
  WD_DEVICE std::uint64_t block_sum(std::uint64_t value) {
    std::uint64_t all[] = {value};
    in_block(all, Sum{});
    return all[0];
  }
  WD_DEVICE std::uint64_t block_largest(std::uint64_t value) {
    std::uint64_t all[] = {value};
    in_block(all, Largest{});
    return all[0];
  }
  // The sum of the values of the threads before this one in the block; `total` is that of all.
  WD_DEVICE std::uint64_t block_sum_before(std::uint64_t value, std::uint64_t& total) {
    std::uint64_t upto = value;
    for (int by = 1; by < kWarp; by *= 2) {
      const std::uint64_t lower = shuffle_up(upto, by);
      if (lane() >= by) upto += lower;
    }
    auto& place = room_.of_warp[block_turn_ ^= 1];
    if (lane() == kWarp - 1) place[warp()][0] = upto;
    sync();
    std::uint64_t before = upto - value;
    total = 0;
    for (int w = 0; w < kWarps; ++w) {
      if (w < warp()) before += place[w][0];
      total += place[w][0];
    }
    return before;
  }
  // The sum of a value that is one for each block, over the blocks before this one.
  WD_DEVICE std::uint64_t sum_before(std::uint64_t value) {
    if (size == 1) return 0;
    std::uint64_t* place = room_.of_block[team_turn_ ^= 1];
    if (thread() == 0) *place = value;
    wait();
    const std::uint64_t other = of_peer(place);
    return over_lanes(lane() < rank ? other : 0, Sum{});
  }

  // In each lane what the block of this number has in its shared memory; 0 beyond the last. One lane a block, because such a
  // read takes long.
  template <typename Value> WD_DEVICE Value of_peer(Value* shared) const {
    return lane() < size ? *peer(shared, lane()) : Value(0);
  }

  // Shared memory that peers read is claimed before it is written again, and lent once it has been read.
  WD_DEVICE void claim() {
    if (lent_) wait();
  }
  WD_DEVICE void lend() { lent_ = true; }

 private:
  Room& room_;
  int block_turn_ = 0, team_turn_ = 0;
  bool lent_ = false;
};

}  // namespace warpdraw::WARPDRAW_SIMT
