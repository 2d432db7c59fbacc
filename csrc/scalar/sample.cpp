// sample by definition: filter, race the tiles of 64 ids by their mass, then race the tokens of the winning tile.
#include <map>

#include "core/outputs.h"
#include "core/philox.h"
#include "scalar/row.h"

namespace warpdraw::scalar {
namespace {

// The index whose mass / E is largest, the lowest one on a tie; masses are ordered by index.
std::uint32_t race(const std::map<std::uint32_t, std::uint64_t>& masses, const Noise& noise, Stream stream) {
  float best = -1.0f;
  std::uint32_t winner = 0;
  for (const auto& [index, m] : masses) {
    const float key = race_key(m, exponential(noise.bits(stream, index)));
    if (key > best) best = key, winner = index;
  }
  return winner;
}

}  // namespace

void sample(Queue, Tensor logits_, PerRow<float> temperature, PerRow<std::int32_t> top_k, PerRow<float> top_p,
            PerRow<float> min_p, PerRow<std::int64_t> seed, PerRow<std::int64_t> position, Order order, Tensor tokens,
            Tensor valid, Tensor logprob, Tensor raw_logprob) {
  const SampleOutputs out(tokens, valid, logprob, raw_logprob);
  with_float(logits_.dtype, [&]<typename T>() {
    const View<const T, 2> logits(logits_);
    for (std::int64_t b = 0; b < logits.shape[0]; ++b) {
      const Row row(logits.row(b), logits.shape[1]);
      const Filter filter = make_filter(temperature[b], top_k[b], top_p[b], min_p[b], order);
      const std::size_t kept = row.kept(filter);
      if (kept == 0) {
        out.reject(b);
        continue;
      }
      const Noise noise{std::uint64_t(seed[b]), std::uint64_t(position[b])};
      std::map<std::uint32_t, std::uint64_t> tiles, members;
      for (std::size_t i = 0; i < kept; ++i)
        tiles[key_id(row.ranked[i]) / kTile] += mass(row.weight_of(row.ranked[i], filter.scale));
      const std::uint32_t tile = race(tiles, noise, Stream::tile);
      for (std::size_t i = 0; i < kept; ++i)
        if (key_id(row.ranked[i]) / kTile == tile)
          members[key_id(row.ranked[i])] = mass(row.weight_of(row.ranked[i], filter.scale));
      const std::uint32_t token = race(members, noise, Stream::token);
      out.accept(b, token);
      if (out.logprob)
        out.logprob(b) = log_probability(exponent(row.x[token], row.x_max, filter.scale), row.mass_of(kept, filter.scale));
      if (out.raw_logprob)
        out.raw_logprob(b) = log_probability(exponent(row.x[token], row.x_max, kLog2E), row.mass_of(row.ranked.size(), kLog2E));
    }
  });
}

}  // namespace warpdraw::scalar
