// What is left of the target's distribution after the drafts that were rejected, and the draw from it.
#pragma once
#include "core/verify.h"
#include "cpu/distribution.h"
#include "cpu/race.h"

namespace warpdraw::WARPDRAW_ISA {

// A draft that was rejected. No later one of the node can be it where siblings are distinct.
struct Refused {
  Rejected taken;
  std::int64_t token;
};

class Residual {
 public:
  // `refused` is room for the rejections to come; unit_p is the probability of a token of weight 1.
  Residual(const Distribution& target, float unit_p, const Distribution& drafted, Siblings siblings,
           std::vector<Refused>& refused)
      : target_(target), drafted_(drafted), unit_p_(unit_p), distinct_(siblings == Siblings::distinct), refused_(refused) {
    refused_.clear();
  }

  void refuse(Rejected taken, std::int64_t token) { refused_.push_back({taken, token}); }

  // What is left of one token of the target before `scale` makes it a distribution, and what the draft distribution has of it.
  float left(std::int64_t token) const {
    float p = target_.weight_of(token) * unit_p_;
    for (std::size_t i = 0; i < refused_.size(); ++i)
      p = left_of(p, refused_[i].taken.scale, drafted_weight(token, i) * refused_[i].taken.unit_q);
    return p;
  }
  float drafted_weight(std::int64_t token) const { return drafted_weight(token, refused_.size()); }

  std::uint64_t mass() const {
    if (target_.empty()) return 0;
    std::atomic<std::uint64_t> total{0};
    target_.with([&](const auto& row) {
      const auto add = [&](std::int64_t begin, std::int64_t end) {
        total.fetch_add(drafted_.with([&](const auto& drafted) { return mass_between(row, drafted, begin, end); }),
                        std::memory_order_relaxed);
      };
      if (target_.keeps_all_candidates())
        row.in_parts(add);
      else
        add(0, row.tiles);
    });
    return total.load(std::memory_order_relaxed);
  }

  // The target where rounding leaves nothing of it, because the two distributions are the same.
  std::int64_t draw(const Noise& noise, RaceSpace& space) {
    const std::int64_t tile = race_tiles(noise, space);
    if (tile >= 0) return race_tokens_left(tile, noise);
    refused_.clear(), unit_p_ = 1.0f;
    return race_tokens_left(race_tiles(noise, space), noise);
  }

 private:
  // Before the i-th rejection.
  float drafted_weight(std::int64_t token, std::size_t i) const {
    for (std::size_t j = 0; distinct_ && j < i; ++j)
      if (refused_[j].token == token) return 0.0f;
    return drafted_.weight_of(token);
  }

  // Tiles in which no token can have any mass left are not read.
  template <typename T, typename D>
  std::uint64_t mass_between(const Row<T>& row, const Row<D>& drafted, std::int64_t begin, std::int64_t end) const {
    MassSum sum;
    for (std::int64_t first = begin; first < end; first += kLanes) {
      const Floats maxima = load(row.maxima + first);
      Mask mask = at_least(maxima, floats(target_.keeps().last.x)) & above(masses(most_left(maxima)), floats(0.0f));
      for (; mask; mask &= mask - 1) {
        const std::int64_t tile = first + __builtin_ctz(mask);
        const Tile left = left_of_tile(target_.weights_of_tile(row, tile), drafted_.weights_of_tile(drafted, tile), tile);
        for (const Floats v : left.x) sum.add(v * kMassScale);
      }
    }
    return sum.total();
  }

  Tile left_of_tile(std::int64_t tile) const {
    return left_of_tile(target_.weights_of_tile(tile), refused_.empty() ? Tile{} : drafted_.weights_of_tile(tile), tile);
  }
  // From the weights of the two distributions.
  WD_MEMBER Tile left_of_tile(Tile p, Tile q, std::int64_t tile) const {
    for (Floats& v : p.x) v *= unit_p_;
    for (const Refused& refused : refused_) {
      for (int i = 0; i < kVectors; ++i)
        p.x[i] = max(p.x[i] * refused.taken.scale - q.x[i] * refused.taken.unit_q, floats(0.0f));
      if (distinct_ && refused.token / kTile == tile) q.x[refused.token % kTile / kLanes][refused.token % kLanes] = 0.0f;
    }
    return p;
  }

  // No token of a tile has more left than this: as if it were the largest, and nothing were taken off.
  WD_MEMBER Floats most_left(Floats maxima) const {
    Floats p = weights((min(maxima, floats(target_.highest())) - target_.highest()) * target_.scale()) * unit_p_;
    for (const Refused& refused : refused_) p *= refused.taken.scale;
    return p;
  }

  // The tile that wins; -1 if none has any mass. Only tiles that could win are read, the most promising first.
  std::int64_t race_tiles(const Noise& noise, RaceSpace& space) const {
    space.make_room(std::size_t(target_.tiles()) + 8 * kLanes);
    std::size_t count = 0;
    for (std::int64_t tile = 0; tile < target_.tiles(); tile += kLanes) {
      const Floats maxima = load(target_.maxima() + tile);
      const Mask mask = at_least(maxima, floats(target_.keeps().last.x));
      if (!mask) continue;
      compress_store(&space.maximum[count], mask, maxima);
      compress_store(&space.tile[count], mask, lane_index() + std::uint32_t(tile));
      count += std::size_t(__builtin_popcount(mask));
    }
    float most = 0.0f;
    std::size_t promising = 0;
    for (std::size_t i = 0; i < count; i += kLanes) {
      Words tile;
      memcpy(&tile, &space.tile[i], sizeof tile);
      const Floats e = exponentials(noise_bits(noise, Stream::residual_tile, tile));
      const Floats bound =
          keep(first_lanes(std::int64_t(count - i)), keys_of(masses(most_left(load(&space.maximum[i]))), e) * float(kTile));
      memcpy(&space.noise[i], &e, sizeof e);
      memcpy(&space.bound[i], &bound, sizeof bound);
      if (const Mask mask = above(bound, floats(most)); mask) {
        most = largest(bound);
        promising = i + std::size_t(__builtin_ctz(equal(bound, floats(most))));
      }
    }
    if (most == 0.0f) return -1;

    float best = 0.0f;
    std::int64_t winner = -1;
    const auto race = [&](std::size_t at) {
      Tile left = left_of_tile(space.tile[at]);
      for (Floats& v : left.x) v *= kMassScale;
      const float key = race_key(mass_of_tile(left), space.noise[at]);
      if (key > best || (key == best && key > 0.0f && space.tile[at] < winner)) best = key, winner = space.tile[at];
    };
    race(promising);
    for (std::size_t i = 0; i < count; i += kLanes) {
      const Floats bound = load(&space.bound[i]);
      for (Mask mask = at_least(bound, floats(best)) & above(bound, floats(0.0f)); mask; mask &= mask - 1) {
        const std::size_t at = i + std::size_t(__builtin_ctz(mask));
        if (space.bound[at] >= best && at != promising) race(at);
      }
    }
    return winner;
  }

  std::uint32_t race_tokens_left(std::int64_t tile, const Noise& noise) const {
    alignas(64) float p[kTile];
    const Tile left = left_of_tile(tile);
    memcpy(p, &left, sizeof p);
    return race_tokens(p, tile, noise, Stream::residual_token);
  }

  const Distribution& target_;
  const Distribution& drafted_;
  float unit_p_;
  bool distinct_;
  std::vector<Refused>& refused_;
};

}  // namespace warpdraw::WARPDRAW_ISA
