// Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011) and the streams that warpdraw draws
// from.
#pragma once
#include <cstdint>

#include "core/host_device.h"

namespace warpdraw {

// Each decision draws from a stream of its own, so that no two share noise.
enum class Stream : std::uint32_t { tile = 0, token = 1, xtc = 2, accept = 3, residual_tile = 4, residual_token = 5 };

inline constexpr std::uint32_t kPhiloxMultiplier0 = 0xD2511F53, kPhiloxMultiplier1 = 0xCD9E8D57;
inline constexpr std::uint32_t kPhiloxKeyStep0 = 0x9E3779B9, kPhiloxKeyStep1 = 0xBB67AE85;
inline constexpr int kPhiloxRounds = 10;
inline constexpr int kStreamBits = 8;  // of the last word of a counter; the step has the others

struct Block {
  std::uint32_t word[4];
};

WD_HD inline Block philox(Block counter, std::uint32_t key0, std::uint32_t key1) {
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const std::uint64_t a = std::uint64_t(kPhiloxMultiplier0) * counter.word[0];
    const std::uint64_t b = std::uint64_t(kPhiloxMultiplier1) * counter.word[2];
    counter = {{std::uint32_t(b >> 32) ^ counter.word[1] ^ key0, std::uint32_t(b),
                std::uint32_t(a >> 32) ^ counter.word[3] ^ key1, std::uint32_t(a)}};
    key0 += kPhiloxKeyStep0;
    key1 += kPhiloxKeyStep1;
  }
  return counter;
}

// The randomness of one row at one position: 32 uniform bits for each stream and index. A decision that may be made again at
// the same position, in a later step of speculative decoding, counts the steps.
struct Noise {
  std::uint64_t seed, position;
  std::uint32_t step = 0;

  WD_HD Block block(Stream stream, std::uint32_t block) const {
    return philox({{block, std::uint32_t(position), std::uint32_t(position >> 32), word_of(stream)}}, std::uint32_t(seed),
                  std::uint32_t(seed >> 32));
  }
  WD_HD std::uint32_t word_of(Stream stream) const { return std::uint32_t(stream) | step << kStreamBits; }
  // Four consecutive indices share one evaluation.
  WD_HD std::uint32_t bits(Stream stream, std::uint32_t index) const { return block(stream, index / 4).word[index % 4]; }
};

}  // namespace warpdraw
