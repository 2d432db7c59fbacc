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
};

// The tokens of an interval whose logit is at least the threshold, by id.
template <typename T> void gather(const Row<T>& row, float threshold, const Interval& seen, Candidates& to) {
  const std::size_t room = std::size_t(row.tiles + 1) * kTile;
  if (to.x.size() < room) to.x.resize(room), to.id.resize(room), to.key.resize(room);
  to.count = 0;
  const bool cuts = !seen.is_prefix() || seen.last.x >= threshold;
  row.for_tiles_reaching(threshold, [&](std::int64_t tile) {
    const Tile here = row.read(tile);
    for (int i = 0; i < kVectors; ++i) {
      const std::uint32_t first = std::uint32_t(tile * kTile + i * kLanes);
      Mask mask = at_least(here.x[i], floats(threshold));
      if (cuts && mask) mask &= kept(here.x[i], first, seen);
      compress_store(&to.x[to.count], mask, here.x[i]);
      compress_store(&to.id[to.count], mask, lane_index() + first);
      to.count += std::size_t(__builtin_popcount(mask));
    }
  });
  const Floats filler = floats(-HUGE_VALF);
  memcpy(&to.x[to.count], &filler, sizeof filler);  // so that whole vectors can be read
}

inline std::uint64_t* rank(Candidates& candidates) {
  for (std::size_t i = 0; i < candidates.count; ++i) candidates.key[i] = rank_key(candidates.x[i], candidates.id[i]);
  return candidates.key.data();
}

inline std::uint64_t mass_of(const Candidates& candidates, float highest, float scale) {
  MassSum sum;
  for (std::size_t i = 0; i < candidates.count; i += kLanes) {
    const std::size_t left = candidates.count - i;
    const Mask mask = left >= kLanes ? kAllLanes : Mask((1u << left) - 1);
    sum.add(keep(mask, weights((load(&candidates.x[i]) - highest) * scale)));
  }
  return sum.total();
}

// The mass of ranked tokens.
std::uint64_t mass_of(const std::uint64_t* keys, std::size_t count, float highest, float scale);

// The shortest prefix of the ranked tokens whose mass reaches the target; all of them if none does. Reorders the keys.
Boundary nucleus(std::uint64_t* keys, std::size_t count, std::uint64_t target, float highest, float scale);

// The same among many candidates, all of logit `lowest` or more, none of mass zero.
Boundary nucleus(Candidates& candidates, float lowest, std::uint64_t target, float highest, float scale);

// Adds mass over `bins` equal steps of a value in [0, 1] and finds the one, from the highest down, where it reaches the target;
// takes what lies above off the target.
struct MassHistogram {
  static constexpr int kBins = 1024;
  std::uint64_t bins[kBins] = {};

  void add(Ints bin, Floats masses, std::size_t lanes) {
    for (std::size_t lane = 0; lane < lanes; ++lane) bins[bin[lane]] += std::uint64_t(masses[lane]);
  }
  int crossing(std::uint64_t& target) const {
    int at = kBins - 1;
    while (at > 0 && (bins[at] == 0 || bins[at] < target)) target -= bins[at--];
    return at;
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
