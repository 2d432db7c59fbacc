// What rejected drafts leave of a target row, and the draw from it.
#pragma once
#include "core/verify.h"
#include "cuda/race.cuh"

namespace warpdraw::WARPDRAW_SIMT {

// A draft that was tried, in units of what draws it.
struct Tried {
  float scale, unit_q;  // as in Rejected
  std::int32_t token;
};

// What the filters keep of a row, with the weight of each token.
struct Kept {
  Interval keeps;
  float highest, scale;

  WD_DEVICE float weight_of(float x, std::uint32_t id) const {
    return keeps.keeps(x, id) ? weight(exponent(x, highest, scale)) : 0.0f;
  }
};
WD_DEVICE Kept nothing_kept() { return {{keep_none(), keep_none()}, 0.0f, 1.0f}; }

// The probability of a token under what is left of the target, before it is scaled, and its weight under the drafts.
struct Odds {
  float left, weight_q;
};

template <typename R, typename D> struct Residual {
  R row;
  D draft;
  Kept p, q;
  float unit;          // of the target
  const Tried* tried;  // `count` drafts, all of them rejected
  int count;
  bool distinct;  // siblings: one that was tried is not drawn again

  WD_DEVICE Odds odds(float x, float y, std::uint32_t id) const {
    Odds odds{p.weight_of(x, id) * unit, q.weight_of(y, id)};
    for (int i = 0; i < count; ++i) {
      odds.left = left_of(odds.left, tried[i].scale, odds.weight_q * tried[i].unit_q);
      if (distinct && tried[i].token == std::int32_t(id)) odds.weight_q = 0.0f;
    }
    return odds;
  }
  WD_DEVICE std::uint64_t mass_left(float x, float y, std::uint32_t id) const { return mass(odds(x, y, id).left); }
  // Without drafts this is the target alone, whose drafts need not be read.
  WD_DEVICE float drafted(std::uint32_t id) const { return count ? draft.at(id) : -HUGE_VALF; }

  // Tiles whose maximum is less have nothing left. A scale lifts what had no mass.
  WD_DEVICE float least() const {
    return count <= 1 ? fmaxf(p.keeps.last.x, massless_below(p.highest, p.scale)) : p.keeps.last.x;
  }
};

// The odds of one token, for all blocks of its row.
template <typename R, typename D> WD_DEVICE Odds odds_of(const Residual<R, D>& residual, std::uint32_t token) {
  std::uint64_t known = 0;
  if (residual.row.has(int(token / kTile))) {
    const Odds odds = residual.odds(residual.row.at(token), residual.draft.at(token), token);
    known = std::uint64_t(bits_of(odds.left)) << 32 | bits_of(odds.weight_q);
  }
  known = residual.row.team.largest(known);
  return {float_of(std::uint32_t(known >> 32)), float_of(std::uint32_t(known))};
}

// The mass that is left, and the tile that wins its race: one pass over both rows.
struct Swept {
  std::uint64_t total;
  std::uint32_t tile;
};
template <typename R, typename D> WD_CALL Swept sweep(const Residual<R, D>& from, const Noise noise) {
  const Residual<R, D> residual = from;
  const R& row = residual.row;
  const float least = residual.least();
  std::uint64_t total = 0, best = 0;
  for (int group = row.first + warp() * kWarp; group < row.last; group += kThreads) {
    const int mine = group + lane();
    std::uint32_t reaching = ballot(mine < row.last && row.maxima[mine] >= least);
    if (!reaching) continue;
    const float e = exponential(noise.bits(Stream::residual_tile, std::uint32_t(mine)));
    while (reaching) {
      int tile[kTogether];
      float x[kTogether][kHalves], y[kTogether][kHalves];
      WD_UNROLL
      for (int i = 0; i < kTogether; ++i) {
        tile[i] = reaching ? group + lowest_bit(reaching) : -1;
        reaching &= reaching - 1;
        WD_UNROLL
        for (int h = 0; h < kHalves; ++h) {
          const std::uint32_t id = std::uint32_t(tile[i] * kTile + h * kWarp + lane());
          x[i][h] = tile[i] < 0 ? -HUGE_VALF : row.at(id);
          y[i][h] = tile[i] < 0 || id >= row.size ? -HUGE_VALF : residual.drafted(id);
        }
      }
      WD_UNROLL
      for (int i = 0; i < kTogether; ++i) {
        if (tile[i] < 0) continue;
        std::uint64_t sum = 0;
        WD_UNROLL
        for (int h = 0; h < kHalves; ++h)
          sum += residual.mass_left(x[i][h], y[i][h], std::uint32_t(tile[i] * kTile + h * kWarp + lane()));
        total += sum;
        const float key = race_key(over_lanes(sum, Sum{}), shuffle(e, tile[i] - group));
        best = Largest{}(best, entry_of(key, std::uint32_t(tile[i])));
      }
    }
  }
  total = row.team.sum(total);
  return {total, ~std::uint32_t(row.team.largest(best))};
}

// The token that wins in the tile that did, for the block that has it.
template <typename R, typename D>
WD_CALL Drawn draw_left(const Residual<R, D>& residual, std::uint32_t tile, const Noise noise) {
  const R& row = residual.row;
  if (!row.has(int(tile))) return {0, 0.0f, false};
  std::uint64_t best = 0;
  WD_UNROLL
  for (int h = 0; h < kHalves; ++h) {
    const std::uint32_t id = tile * kTile + h * kWarp + lane();
    if (id >= row.size) continue;
    const std::uint64_t m = residual.mass_left(row.at(id), residual.drafted(id), id);
    if (m) best = Largest{}(best, entry_of(race_key(m, exponential(noise.bits(Stream::residual_token, id))), id));
  }
  const std::uint32_t token = ~std::uint32_t(over_lanes(best, Largest{}));
  return {token, row.at(token), true};
}

}  // namespace warpdraw::WARPDRAW_SIMT
