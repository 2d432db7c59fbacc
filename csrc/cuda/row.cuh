// A row as a team of threads sees it: tiles of 64 tokens, shared out over the blocks, and the maximum of every tile. The row
// itself is never written; what changes it lies beside it.
#pragma once
#include "core/order.h"
#include "cuda/overlay.cuh"
#include "cuda/ring.cuh"

namespace warpdraw::WARPDRAW_SIMT {

inline constexpr int kList = 512;              // tokens or bins that a team ranks or sums at a time
inline constexpr int kHalves = kTile / kWarp;  // tokens of a tile that a lane reads

// Shared memory that every kernel over rows has; what follows it are maxima and perhaps a part of the row.
struct Scratch {
  Team::Room team;
  std::uint64_t own[kList], all[kList];  // of a block and of its team: keys of tokens, or a histogram
  std::uint32_t count, found;
  std::uint64_t before;
};

// How many tiles each block of a cluster has: whole groups of four, which share noise.
WD_HD inline int tiles_for_each(int tiles, int blocks) { return (tiles + 4 * blocks - 1) / (4 * blocks) * 4; }
WD_HD inline int tiles_of(std::int64_t vocab) { return int((vocab + kTile - 1) / kTile); }

inline constexpr int kTogether = 4;  // reads that do not wait for each other, or pairs of them

// Stands for an element type that is known only at run time, and a pointer to such elements.
struct AnyFloat {};
struct AnyFloats {
  const void* data = nullptr;
  DType dtype = DType::f32;

  AnyFloats() = default;
  WD_DEVICE AnyFloats(const void* memory, DType of) : data(memory), dtype(of) {}
  template <typename T> WD_DEVICE AnyFloats(const T* memory) : data(memory), dtype(dtype_of<T>) {}
  // The reading is apart from the conversion, so that several are on their way at a time.
  WD_DEVICE float operator[](std::int64_t i) const {
    std::uint32_t bits;
    if (dtype == DType::f32)
      bits = static_cast<const std::uint32_t*>(data)[i];
    else
      bits = static_cast<const std::uint16_t*>(data)[i];
    if (dtype == DType::f16) return to_float(f16{std::uint16_t(bits)});
    return float_of(dtype == DType::f32 ? bits : bits << 16);
  }
};

template <typename Element, bool kEverything> struct Row {
  using T = Element;
  using Elements = std::conditional_t<std::is_same_v<T, AnyFloat>, AnyFloats, const T*>;
  static constexpr bool kAll = kEverything;  // whether there may be an overlay

  Team& team;
  Scratch& scratch;
  Elements logits;  // of token `origin` and the ones after it
  std::int64_t origin;
  std::int64_t size;       // of the row in memory
  std::int64_t vocab;      // ids from here on are no candidates
  int each;                // tiles of a block, but for the last
  int tiles, first, last;  // of the row; this block's
  float* maxima;           // of all tiles; NaN counts as -inf
  Overlay overlay;
  float x_max = -HUGE_VALF;     // of the candidates
  bool marks_infinity = false;  // the tokens of +inf are the only ones, equally likely

  // A token of this block's tiles.
  WD_DEVICE float raw(std::int64_t id) const { return to_float(logits[id - origin]); }
  WD_DEVICE float at(std::int64_t id) const {
    if (id >= vocab) return -HUGE_VALF;
    float x = raw(id);
    if constexpr (kAll)
      if (overlay.changes()) x = overlay.apply(x, std::uint32_t(id));
    return marks_infinity ? indicator_of_infinity(x) : x;
  }
  WD_DEVICE bool has(int tile) const { return tile >= first && tile < last; }

  // Calls visit(logit, id) for the tokens of this block's tiles whose maximum is at least x, other than candidates too; all
  // lanes of a warp at once. Several tiles are read together, so that their reads wait for each other no longer than one takes.
  template <typename Visit> WD_DEVICE void over_tokens(float x, Visit visit) const {
    int group = first + warp() * kWarp;
    const auto reaching = [&] { return ballot(group + lane() < last && maxima[group + lane()] >= x); };
    std::uint32_t left = group < last ? reaching() : 0;  // of the group
    for (;;) {
      int tile[kTogether];
      float logit[kTogether][kHalves];
      WD_UNROLL
      for (int i = 0; i < kTogether; ++i) {
        while (!left && group < last)
          if ((group += kThreads) < last) left = reaching();
        tile[i] = left ? group + lowest_bit(left) : -1;
        left &= left - 1;
      }
      if (tile[0] < 0) return;
      WD_UNROLL
      for (int i = 0; i < kTogether; ++i) {
        WD_UNROLL
        for (int h = 0; h < kHalves; ++h) logit[i][h] = tile[i] < 0 ? -HUGE_VALF : at(tile[i] * kTile + h * kWarp + lane());
      }
      do {  // the first of them, while there is one
        WD_UNROLL
        for (int h = 0; h < kHalves; ++h) visit(logit[0][h], std::uint32_t(tile[0] * kTile + h * kWarp + lane()));
        WD_UNROLL
        for (int i = 0; i + 1 < kTogether; ++i) {
          tile[i] = tile[i + 1];
          WD_UNROLL
          for (int h = 0; h < kHalves; ++h) logit[i][h] = logit[i + 1][h];
        }
        tile[kTogether - 1] = -1;
      } while (tile[0] >= 0);
    }
  }
  // Writes value(logit, id) for the tokens of this block's tiles, those beyond the vocabulary too.
  template <typename Out, typename Value> WD_DEVICE void write(Out* out, Value value) const {
    const std::int64_t begin = std::int64_t(first) * kTile,
                       end = std::int64_t(last) * kTile < size ? std::int64_t(last) * kTile : size;
    for (std::int64_t id = begin + thread(); id < end; id += kThreads * kTogether) {
      float x[kTogether];
      WD_UNROLL
      for (int i = 0; i < kTogether; ++i) x[i] = id + i * kThreads < end ? at(id + i * kThreads) : -HUGE_VALF;
      WD_UNROLL
      for (int i = 0; i < kTogether; ++i)
        if (id + i * kThreads < end) out[id + i * kThreads] = value(x[i], id + i * kThreads);
    }
  }
};

inline constexpr std::uint32_t kNaN = 0x7fc00000;

// The same value everywhere in a row of an output.
template <typename T> WD_DEVICE void fill_row(const Team& team, T* out, std::int64_t size, T value) {
  for (std::int64_t id = std::int64_t(team.rank) * kThreads + thread(); id < size; id += std::int64_t(team.size) * kThreads)
    out[id] = value;
}

// A maximum over lanes that are neighbours, a power of two of them.
WD_DEVICE float largest_of_lanes(float x, int lanes) {
  for (int mask = lanes / 2; mask; mask /= 2) x = fmaxf(x, shuffle_xor(x, mask));
  return x;
}

// The maxima of this block's tiles.
template <typename R> WD_CALL void find_maxima(const R row) {
  for (int tile = row.first + warp(); tile < row.last; tile += kWarps * kTogether) {
    float x[kTogether];
    WD_UNROLL
    for (int i = 0; i < kTogether; ++i) {
      const std::int64_t id = std::int64_t(tile + i * kWarps) * kTile + lane();
      x[i] = tile + i * kWarps < row.last ? fmaxf(row.at(id), row.at(id + kWarp)) : -HUGE_VALF;
    }
    WD_UNROLL
    for (int i = 0; i < kTogether; ++i) {
      const float highest = largest_of_lanes(fmaxf(x[i], -HUGE_VALF), kWarp);  // NaN is none
      if (lane() == 0 && tile + i * kWarps < row.last) row.maxima[tile + i * kWarps] = highest;
    }
  }
}

// How many tiles of a block's are whole.
WD_DEVICE int whole_tiles(std::int64_t vocab, int first, int last) {
  const int whole = vocab / kTile < last ? int(vocab / kTile) : last;
  return whole > first ? whole - first : 0;
}

// Reads this block's whole tiles of a row that nothing changes, 16 bytes a lane, and finds their maxima on the way. Copies them
// to `resident` if there is one. Returns the first tile that is left.
template <typename R, typename T> WD_DEVICE int stream_tiles(const R& row, const T* memory, T* resident, Ring* ring) {
  constexpr int kElements = 16 / sizeof(T), kLanes = kTile / kElements, kEach = kWarp / kLanes;  // tiles of one load of a warp
  constexpr int kLoads = kShape.loads;                                                           // in flight
  const auto* from = reinterpret_cast<const Bytes16*>(memory + std::int64_t(row.first) * kTile);
  auto* to = reinterpret_cast<Bytes16*>(resident);
  const int count = whole_tiles(row.vocab, row.first, row.last) * kLanes;  // of 16 bytes
  if (Ring::kExists && ring) ring->ask_ahead(from, count);
  for (int base = warp() * Ring::kPart; base < count; base += Ring::kStep) {
    Bytes16 bytes[kLoads];
    if (Ring::kExists && ring) {
      ring->take(base / Ring::kStep, count, bytes);
    } else {
      WD_UNROLL
      for (int i = 0; i < kLoads; ++i) {
        const int place = base + i * kWarp + lane();
        if (place < count) bytes[i] = load_streaming(from + place);
      }
    }
    WD_UNROLL
    for (int i = 0; i < kLoads; ++i) {
      const int place = base + i * kWarp + lane();
      float highest = -HUGE_VALF;
      if (place < count) {
        if (to) to[place] = bytes[i];
        T values[kElements];
        memcpy(values, &bytes[i], sizeof values);
        WD_UNROLL
        for (int j = 0; j < kElements; ++j) highest = fmaxf(highest, to_float(values[j]));
      }
      highest = largest_of_lanes(highest, kLanes);
      if (place < count && lane() % kLanes == 0) row.maxima[row.first + place / kLanes] = highest;
    }
  }
  static_assert(kEach * kLanes == kWarp);
  return row.first + count / kLanes;
}

template <typename T> WD_DEVICE bool starts_at_16_bytes(const T* memory) {
  return reinterpret_cast<std::uintptr_t>(memory) % 16 == 0;
}

// Brings this block's part of a row, from `memory`, and the maxima of its tiles; to shared memory if `resident` is given. The
// row then reads from there. What is read goes through the ring if there is one.
template <typename R, typename T> WD_DEVICE void read_row(R& row, const T* memory, T* resident, Ring* ring = nullptr) {
  const bool plain = !R::kAll || !row.overlay.changes();
  int next = row.first;
  if (starts_at_16_bytes(memory) && (plain || resident)) next = stream_tiles(row, memory, resident, ring);
  if (resident) {
    const std::int64_t end = std::int64_t(row.last) * kTile < row.size ? std::int64_t(row.last) * kTile : row.size;
    row.origin = std::int64_t(row.first) * kTile;
    for (std::int64_t id = std::int64_t(next) * kTile + thread(); id < end; id += kThreads)
      resident[id - row.origin] = memory[id];
    row.logits = resident;
  }
  sync();
  if (!plain) {
    find_maxima(row);
  } else if (next < row.last) {
    R rest = row;
    rest.first = next;
    find_maxima(rest);
  }
}

// Gives every block the maxima of all tiles, and finds the largest.
template <typename R> WD_DEVICE void share_maxima(R& row) {
  Team& team = row.team;
  team.wait();
  float highest = -HUGE_VALF;
  for (int base = thread(); base < row.tiles; base += kThreads * kTogether) {
    float x[kTogether];
    WD_UNROLL
    for (int i = 0; i < kTogether; ++i) {
      const int tile = base + i * kThreads;
      x[i] = tile >= row.tiles ? -HUGE_VALF : row.has(tile) ? row.maxima[tile] : *peer(row.maxima + tile, tile / row.each);
    }
    WD_UNROLL
    for (int i = 0; i < kTogether; ++i) {
      const int tile = base + i * kThreads;
      highest = fmaxf(highest, x[i]);
      if (tile < row.tiles && !row.has(tile)) row.maxima[tile] = x[i];
    }
  }
  team.lend();
  row.x_max = unordered(std::uint32_t(team.block_largest(ordered(highest))));
}

// A row with +inf draws equally among those tokens.
template <typename R> WD_DEVICE void mark_infinity(R& row) {
  if (!(row.x_max > kLargest)) return;
  row.team.claim();
  for (int tile = thread(); tile < row.tiles; tile += kThreads) row.maxima[tile] = indicator_of_infinity(row.maxima[tile]);
  row.marks_infinity = true;
  row.x_max = 0.0f;
  sync();
}

}  // namespace warpdraw::WARPDRAW_SIMT
