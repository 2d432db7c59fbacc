// What sample reports beside the token.
#pragma once
#include "core/outputs.h"
#include "cuda/select.cuh"

namespace warpdraw::WARPDRAW_SIMT {

// Goes back to the row before restrictions and penalties.
template <typename R> WD_DEVICE void undo_changes(R& row) {
  if (!row.overlay.changes() && row.vocab == row.size && !row.marks_infinity) return;
  row.team.claim();
  row.overlay = {}, row.vocab = row.size, row.marks_infinity = false;
  find_maxima(row);
  share_maxima(row);
}

// The place of a token in the total order of the row as it is in memory, from 1.
template <typename R> WD_CALL std::int32_t rank_of(const R row, const Boundary token) {
  std::uint64_t upto = 0;
  row.over_tokens(token.x, [&](float x, std::uint32_t id) { upto += token.keeps(x, id); });
  return std::int32_t(row.team.sum(upto));
}

// The ids go out in their order: tile by tile, a warp each.
template <typename R> WD_CALL void report_kept(const SampleOutputs& out, std::int64_t b, const R row, const Interval keeps) {
  if (!out.kept_count && !out.kept_ids) return;
  std::uint64_t mine = 0;
  over_kept(row, keeps, [&](float, std::uint32_t, bool kept) { mine += kept; });
  const std::uint64_t in_block = row.team.block_sum(mine), total = row.team.sum(mine);
  std::uint64_t place = row.team.sum_before(in_block);
  if (row.team.rank == 0 && thread() == 0 && out.kept_count) out.kept_count(b) = std::int32_t(total);
  if (!out.kept_ids) return;
  const std::uint64_t room = std::uint64_t(out.kept_ids.shape[1]);
  for (int group = row.first; group < row.last && place < room; group += kWarps) {
    const int tile = group + warp();
    const bool reaches = tile < row.last && row.maxima[tile] >= keeps.last.x;
    std::uint32_t kept[kHalves] = {}, count = 0;
    for (int h = 0; h < kHalves && reaches; ++h) {
      const std::uint32_t id = std::uint32_t(tile * kTile + h * kWarp + lane());
      kept[h] = ballot(keeps.keeps(row.at(id), id));
      count += popcount(kept[h]);
    }
    std::uint64_t sum;
    std::uint64_t at = place + shuffle(row.team.block_sum_before(lane() == 0 ? count : 0, sum), 0);
    place += sum;
    for (int h = 0; h < kHalves; ++h) {
      const std::uint64_t to = at + popcount(kept[h] & ((1u << lane()) - 1));
      if ((kept[h] >> lane() & 1) && to < room) out.kept_ids.row(b)[to] = std::int32_t(tile * kTile + h * kWarp + lane());
      at += popcount(kept[h]);
    }
  }
  for (std::uint64_t i = total + std::uint64_t(row.team.rank * kThreads + thread()); i < room;
       i += std::uint64_t(row.team.size * kThreads))
    out.kept_ids.row(b)[i] = -1;
}

// The first tokens of an interval with their log-probabilities, as many at a time as are ranked together.
template <typename R> WD_CALL void report_top(const SampleOutputs& out, std::int64_t b, const R row, Interval keeps,
                                              float highest, float scale, std::uint64_t total) {
  const std::int64_t room = out.top_count();
  std::int64_t done = 0;
  while (done < room) {
    const std::int64_t count = rank_first(row, keeps, room - done);
    for (std::int64_t i = thread(); i < count && row.team.rank == 0; i += kThreads) {
      const std::uint64_t key = row.scratch.all[i];
      out.set_top(b, done + i, key_id(key), log_probability(exponent(key_logit(key), highest, scale), total));
    }
    done += count;
    if (count < kList) break;
    keeps.first = boundary_of(row.scratch.all[kList - 1]);
  }
  for (std::int64_t i = done + thread(); i < room && row.team.rank == 0; i += kThreads)
    out.set_top(b, i, std::uint32_t(-1), -HUGE_VALF);
}

}  // namespace warpdraw::WARPDRAW_SIMT
