// The few tokens of a row that may decide where a filter cuts, gathered from it; and the cut among them.
#pragma once
#include <algorithm>
#include <vector>

#include "cpu/sums.h"

namespace warpdraw::WARPDRAW_ISA {

// Room for gathered tokens: by id, and as rank keys.
struct Candidates {
  std::vector<float> x;
  std::vector<std::uint32_t> id;
  std::vector<std::uint64_t> key;
  std::size_t count = 0;

  void make_room(std::int64_t tiles) {
    const std::size_t room = std::size_t(tiles + 1) * kTile;
    if (x.size() < room) x.resize(room), id.resize(room), key.resize(room);
  }
};

// The tokens of an interval whose logit is at least `low`, by id.
template <typename T> void gather(const Row<T>& row, float low, const Interval& seen, Candidates& to) {
  to.make_room(row.tiles);
  float* x = to.x.data();
  std::uint32_t* id = to.id.data();
  std::size_t count = 0;
  const bool cuts = !seen.is_prefix() || seen.last.x >= low;
  row.for_tiles_reaching(low, [&](std::int64_t tile) {
    const Tile here = row.read(tile);
    const std::uint32_t first = std::uint32_t(tile * kTile);
    Mask chosen[kVectors];
    std::size_t at[kVectors],
        next = count;  // where each vector goes, before any is stored: stores need not wait for each other
    for (int i = 0; i < kVectors; ++i) {
      chosen[i] = at_least(here.x[i], floats(low));
      if (cuts) chosen[i] &= kept(here.x[i], first + std::uint32_t(i * kLanes), seen);
      at[i] = next;
      next += std::size_t(__builtin_popcount(chosen[i]));
    }
    for (int i = 0; i < kVectors; ++i) {
      compress_store(x + at[i], chosen[i], here.x[i]);
      compress_store(id + at[i], chosen[i], lane_index() + (first + std::uint32_t(i * kLanes)));
    }
    count = next;
  });
  to.count = count;
  const Floats filler = floats(-HUGE_VALF);
  memcpy(x + count, &filler, sizeof filler);  // so that whole vectors can be read
}

inline std::uint64_t* rank(Candidates& candidates) {
  for (std::size_t i = 0; i < candidates.count; ++i) candidates.key[i] = rank_key(candidates.x[i], candidates.id[i]);
  return candidates.key.data();
}

inline std::uint64_t mass_of(const Candidates& candidates, float highest, float scale) {
  MassSum sum;
  for (std::size_t i = 0; i < candidates.count; i += kLanes) {
    sum.add(
        keep(first_lanes(std::int64_t(candidates.count - i)), weights((load(&candidates.x[i]) - highest) * scale, kMassScale)));
  }
  return sum.total();
}

// The mass of ranked tokens.
std::uint64_t mass_of(const std::uint64_t* keys, std::size_t count, float highest, float scale);

// The shortest prefix of the ranked tokens whose mass reaches the target; all of them if none does. Reorders the keys.
Boundary nucleus(std::uint64_t* keys, std::size_t count, std::uint64_t target, float highest, float scale);

// Mass over equal steps of a value; higher bins come first.
struct MassHistogram {
  static constexpr int kBins = 1024;
  std::uint64_t bins[kBins] = {};

  WD_MEMBER void add(Ints bin, Floats masses, std::size_t lanes) {
    alignas(64) std::int32_t at[kLanes];
    alignas(64) std::int64_t m[kLanes];
    using Wide = std::int64_t __attribute__((vector_size(kLanes * 8)));
    const Wide whole = __builtin_convertvector(masses, Wide);
    memcpy(at, &bin, sizeof at);
    memcpy(m, &whole, sizeof m);
    if (lanes == kLanes)
      for (int lane = 0; lane < kLanes; ++lane) bins[at[lane]] += std::uint64_t(m[lane]);
    else
      for (std::size_t lane = 0; lane < lanes; ++lane) bins[at[lane]] += std::uint64_t(m[lane]);
  }
  // The bin, from the highest down, where the sum reaches the target; what lies above is taken off the target. -1 if it never
  // does.
  int crossing(std::uint64_t& target) const {
    for (int at = kBins - 1; at >= 0; --at) {
      if (bins[at] != 0 && bins[at] >= target) return at;
      target -= bins[at];
    }
    return -1;
  }
};

// The smallest logit up to `highest` of which `enough` holds; it goes on holding as the logit grows. The highest if it holds of
// none.
template <typename Enough> float lowest_logit(float highest, Enough enough) {
  std::uint32_t low = ordered(-kLargest), high = ordered(highest);
  while (low < high) {
    const std::uint32_t middle = low + (high - low) / 2;
    if (enough(unordered(middle)))
      high = middle;
    else
      low = middle + 1;
  }
  return unordered(low);
}

}  // namespace warpdraw::WARPDRAW_ISA
