"""The draw: the tile with the largest mass / E, then the token with the largest mass / E in it."""

from __future__ import annotations

import triton
import triton.language as tl

from . import arithmetic as n
from .rows import BLOCK, CHUNK, append, keeps, listed_tiles, mark, read_listed, read_maxima, read_tiles, sync
from .sums import mass_of


@triton.jit
def entry(key, index):
    """A race key and its index as one integer: the larger key wins, the lower index on a tie. A key is not negative."""
    return (n.bits_of(key).to(tl.int64) << 32) | (index.to(tl.int64) ^ 0x7FFFFFFF)


@triton.jit
def entry_index(entry):
    return ((entry & 0x7FFFFFFF) ^ 0x7FFFFFFF).to(tl.int32)


@triton.jit
def race(row, interval, highest, scale, seed, position):
    """The token that is drawn from an interval, and its logit."""
    # The largest key that some tile is known to reach: its largest token is one that is kept.
    certain = tl.zeros([BLOCK], tl.float32)
    for start in range(0, row.tiles, BLOCK):
        m, tile = read_maxima(row, start)
        key = n.race_key(mass_of(m, highest, scale), n.noise(seed, position, n.STREAM_TILE, tile))
        certain = tl.maximum(certain, tl.where((m > interval.last_x) & (m < interval.first_x), key, 0.0))
    least = tl.max(certain, 0)
    # Only tiles that could win are read: at most 64 tokens weigh what the largest of a tile weighs.
    count = tl.full([], 0, tl.int32)
    sync()
    for start in range(0, row.tiles, BLOCK):
        m, tile = read_maxima(row, start)
        key = n.race_key(mass_of(tl.minimum(m, highest), highest, scale), n.noise(seed, position, n.STREAM_TILE, tile))
        count = append(row, count, tile, (m >= interval.last_x) & (key * 64.0 >= least))
    sync()
    best = tl.full([CHUNK], -1, tl.int64)
    for start in range(0, count, CHUNK):
        tile, wanted = listed_tiles(row, start, count)
        x, id = read_listed(row, start, count)
        total = tl.sum(tl.where(keeps(interval, x, id), mass_of(x, highest, scale), 0), 1)
        key = n.race_key(total, n.noise(seed, position, n.STREAM_TILE, tile))
        best = tl.maximum(best, tl.where(wanted & (total > 0), entry(key, tile), -1))
    winner = entry_index(tl.max(best, 0))
    x, id = read_tiles(
        row.logits, row.vocab, row.overlay, winner + tl.zeros([1], tl.int32), tl.full([1], True, tl.int1)
    )
    x = mark(x, row.marks)
    key = n.race_key(mass_of(x, highest, scale), n.noise(seed, position, n.STREAM_TOKEN, id))
    drawn = tl.where(keeps(interval, x, id), entry(key, id), -1)
    token = entry_index(tl.max(tl.max(drawn, 1), 0))
    return token, tl.max(tl.max(tl.where(id == token, x, -float("inf")), 1), 0)
