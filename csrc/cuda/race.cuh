// The draw: the tile with the largest mass / E, then the token with the largest mass / E in it. Only tiles that could win are
// read.
#pragma once
#include "cuda/select.cuh"

namespace warpdraw::WARPDRAW_SIMT {

struct Drawn {
  std::uint32_t token;
  float x;       // its logit
  bool is_mine;  // whether it is in this block's tiles
};

// A race key and its index as one integer: the larger key wins, the lower index on a tie. A key is not negative.
WD_DEVICE std::uint64_t entry_of(float key, std::uint32_t index) { return std::uint64_t(bits_of(key)) << 32 | ~index; }

template <typename R> class Race {
 public:
  WD_DEVICE Race(const R& row, const Interval& keeps, float highest, float scale, const Noise& noise)
      : row_(row), keeps_(keeps), highest_(highest), scale_(scale), noise_(noise) {}

  WD_DEVICE Drawn run() {
    const float certain = float_of(std::uint32_t(row_.team.largest(bits_of(certain_key()))));
    const std::uint32_t tile = ~std::uint32_t(row_.team.largest(best_tile(certain)));
    Drawn drawn{0, 0.0f, row_.has(tile)};
    if (drawn.is_mine) draw_token(tile, drawn);
    return drawn;
  }

 private:
  // Four tiles share an evaluation of the noise. Calls visit(j, tile, E) for those of a lane; `group` is the first of all.
  struct Quad {
    float e[4];
  };
  WD_DEVICE Quad noise_of(std::uint32_t quad) const {
    const Block block = noise_.block(Stream::tile, quad);
    return {{exponential(block.word[0]), exponential(block.word[1]), exponential(block.word[2]), exponential(block.word[3])}};
  }
  WD_DEVICE bool takes_part(int tile) const { return row_.has(tile) && row_.maxima[tile] >= keeps_.last.x; }
  WD_DEVICE std::uint64_t mass_of(float x) const { return mass(weight(exponent(x, highest_, scale_))); }

  // The largest key that some tile is known to reach: its largest token is one that is kept.
  WD_DEVICE float certain_key() const {
    float certain = 0.0f;
    for (int quad = row_.first / 4 + thread(); quad * 4 < row_.last; quad += kThreads) {
      if (!takes_part(quad * 4) && !takes_part(quad * 4 + 1) && !takes_part(quad * 4 + 2) && !takes_part(quad * 4 + 3))
        continue;
      const Quad noise = noise_of(std::uint32_t(quad));
      WD_UNROLL
      for (int j = 0; j < 4; ++j) {
        const int tile = quad * 4 + j;
        if (!takes_part(tile)) continue;
        const float x = row_.maxima[tile];
        if (x > keeps_.last.x && x < keeps_.first.x) certain = fmaxf(certain, race_key(mass_of(x), noise.e[j]));
      }
    }
    return certain;
  }
  // No more than this is its key: at most 64 tokens weigh what its largest weighs, or the largest that is kept.
  WD_DEVICE float bound(int tile, float e) const {
    const float x = row_.maxima[tile];
    return race_key(mass_of(x < highest_ ? x : highest_), e) * float(kTile);
  }

  WD_DEVICE std::uint64_t best_tile(float certain) const {
    std::uint64_t best = 0;
    for (int group = row_.first / 4 + warp() * kWarp; group * 4 < row_.last; group += kThreads) {
      const int quad = group + lane();
      Quad noise{};
      bool could_win[4];
      const bool exists =
          takes_part(quad * 4) || takes_part(quad * 4 + 1) || takes_part(quad * 4 + 2) || takes_part(quad * 4 + 3);
      if (exists) noise = noise_of(std::uint32_t(quad));
      WD_UNROLL
      for (int j = 0; j < 4; ++j) could_win[j] = takes_part(quad * 4 + j) && bound(quad * 4 + j, noise.e[j]) >= certain;
      WD_UNROLL
      for (int j = 0; j < 4; ++j) {
        for (std::uint32_t left = ballot(could_win[j]); left; left &= left - 1) {
          const int from = lowest_bit(left), tile = (group + from) * 4 + j;
          std::uint64_t sum = 0;
          WD_UNROLL
          for (int h = 0; h < kHalves; ++h) {
            const std::uint32_t id = std::uint32_t(tile * kTile + h * kWarp + lane());
            const float x = row_.at(id);
            if (keeps_.keeps(x, id)) sum += mass_of(x);
          }
          for (int mask = kWarp / 2; mask; mask /= 2) sum += shuffle_xor(sum, mask);
          best = Largest{}(best, entry_of(race_key(sum, shuffle(noise.e[j], from)), std::uint32_t(tile)));
        }
      }
    }
    return best;
  }

  WD_DEVICE void draw_token(std::uint32_t tile, Drawn& drawn) const {
    std::uint64_t best = 0;
    WD_UNROLL
    for (int h = 0; h < kHalves; ++h) {
      const std::uint32_t id = tile * kTile + h * kWarp + lane();
      const float x = row_.at(id);
      if (keeps_.keeps(x, id))
        best = Largest{}(best, entry_of(race_key(mass_of(x), exponential(noise_.bits(Stream::token, id))), id));
    }
    for (int mask = kWarp / 2; mask; mask /= 2) best = Largest{}(best, shuffle_xor(best, mask));
    drawn.token = ~std::uint32_t(best);
    drawn.x = row_.at(drawn.token);
  }

  const R& row_;
  const Interval& keeps_;
  float highest_, scale_;
  const Noise& noise_;
};

// So many listed tokens are compared with each other; more are left to their tiles.
inline constexpr std::int64_t kFew = 128;
static_assert(2 * kFew <= kList);

// The same race among tokens that are listed, which every block has: no tile is read, and no other block is asked.
template <typename R>
WD_DEVICE Drawn race_listed(const R& row, std::uint32_t count, float highest, float scale, const Noise& noise) {
  Scratch& scratch = row.scratch;
  std::uint64_t* masses = scratch.all + kFew;
  const auto tile_of = [&](std::uint32_t i) { return key_id(scratch.all[i]) / kTile; };
  for (std::uint32_t i = thread(); i < count; i += kThreads)
    masses[i] = mass(weight(exponent(key_logit(scratch.all[i]), highest, scale)));
  sync();
  std::uint64_t best = 0;
  for (std::uint32_t i = thread(); i < count; i += kThreads) {
    const std::uint32_t tile = tile_of(i);
    std::uint64_t sum = 0;
    for (std::uint32_t j = 0; j < count; ++j) sum += tile_of(j) == tile ? masses[j] : 0;
    best = Largest{}(best, entry_of(race_key(sum, exponential(noise.bits(Stream::tile, tile))), tile));
  }
  const std::uint32_t tile = ~std::uint32_t(row.team.block_largest(best));
  best = 0;
  for (std::uint32_t i = thread(); i < count; i += kThreads) {
    const std::uint32_t id = key_id(scratch.all[i]);
    if (tile_of(i) == tile)
      best = Largest{}(best, entry_of(race_key(masses[i], exponential(noise.bits(Stream::token, id))), id));
  }
  const std::uint32_t token = ~std::uint32_t(row.team.block_largest(best));
  for (std::uint32_t i = thread(); i < count; i += kThreads)
    if (key_id(scratch.all[i]) == token) scratch.before = scratch.all[i];
  sync();
  return {token, key_logit(scratch.before), row.has(int(tile))};
}

// A draw from what filters have left.
template <typename R>
WD_DEVICE Drawn race(const R& row, const Selection& kept, float highest, float scale, const Noise& noise) {
  if (kept.listed > 0 && kept.listed <= kFew) return race_listed(row, std::uint32_t(kept.listed), highest, scale, noise);
  return Race(row, kept.keeps, highest, scale, noise).run();
}

}  // namespace warpdraw::WARPDRAW_SIMT
