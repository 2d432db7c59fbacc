// A warp's ring of bulk copies: the next parts of the row that it reads are on their way to shared memory while it looks at
// one.
#pragma once
#include "cuda/simt.h"

namespace warpdraw::WARPDRAW_SIMT {

using namespace simt;

// What the warps of a block read: 16 bytes a lane and load, the warps in turn. The shape may have no ring, or the device no
// such copies; loads go through registers then.
class Ring {
 public:
  static constexpr bool kExists = kShape.stages > 0 && kBulkCopies;
  static constexpr int kPart = kWarp * kShape.loads;  // of 16 bytes
  static constexpr int kStep = kThreads * kShape.loads;
  static constexpr int kStages = kExists ? kShape.stages : 1;
  static constexpr std::int64_t kBytesOfWarp = kShape.stages * (kPart * 16 + std::int64_t(sizeof(Arrival)));
  static constexpr std::int64_t kBytes = (kBytesOfWarp * (kThreads / kWarp) + 15) / 16 * 16;

  WD_DEVICE explicit Ring(char* memory) {
    if constexpr (kExists) {
      parts_ = reinterpret_cast<Bytes16*>(memory) + warp() * kStages * kPart;
      arrivals_ = reinterpret_cast<Arrival*>(memory + kThreads / kWarp * kStages * kPart * 16) + warp() * kStages;
      if (lane() == 0) begin_arrivals(arrivals_, kStages);
      warp_sync();
    }
  }

  // Asks for the first parts of `count` times 16 bytes, unless they are on their way already. Others that are get lost.
  WD_DEVICE void ask_ahead(const Bytes16* from, int count) {
    if (asked_ != taken_ && from == from_) return;
    drain();
    from_ = from;
    for (int i = 0; i < kStages; ++i) ask(i, count);
  }
  // The next part, number `i` of its row, in registers; asks for another one in its place.
  WD_DEVICE void take(int i, int count, Bytes16 (&bytes)[kShape.loads]) {
    wait();
    const Bytes16* part = parts_ + (taken_ - 1) % kStages * kPart;
    WD_UNROLL
    for (int l = 0; l < kShape.loads; ++l) bytes[l] = part[l * kWarp + lane()];
    warp_sync();
    ask(i + kStages, count);
  }
  // Waits for all that is on its way: nobody wants it.
  WD_DEVICE void drain() {
    while (asked_ != taken_) wait();
    if constexpr (kExists) warp_sync();
  }

 private:
  WD_DEVICE void ask(int i, int count) {
    const int begin = warp() * kPart + i * kStep;
    if (begin >= count) return;
    const int size = count - begin < kPart ? count - begin : kPart;
    if (lane() == 0)
      copy_bulk(parts_ + asked_ % kStages * kPart, from_ + begin, std::uint32_t(size) * 16, arrivals_ + asked_ % kStages);
    ++asked_;
    warp_sync();
  }
  WD_DEVICE void wait() {
    wait_for(arrivals_ + taken_ % kStages, taken_ / kStages);
    ++taken_;
  }

  Bytes16* parts_ = nullptr;
  Arrival* arrivals_ = nullptr;
  const Bytes16* from_ = nullptr;
  std::uint32_t asked_ = 0, taken_ = 0;  // parts
};

}  // namespace warpdraw::WARPDRAW_SIMT
