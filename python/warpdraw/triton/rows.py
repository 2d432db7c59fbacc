"""A row as one program sees it: tiles of 64 tokens, the maximum of each, and room in memory for what is found in it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from . import arithmetic as n
from . import edits
from . import overlay as overlays
from .arguments import only_row, pointer_of
from .build import build

TILE = tl.constexpr(64)
CHUNK = tl.constexpr(32)  # tiles that are read together
BLOCK = tl.constexpr(1024)  # maxima that are looked at together
LIST = tl.constexpr(512)  # tokens or bins that are ranked or summed at a time
NONE = tl.constexpr(-3.4028234663852886e38)  # no candidate has a lower logit
ABOVE = tl.constexpr(float("inf"))  # nor a higher one
LAST_ID = tl.constexpr(0x3FFFFF)  # nor a larger id
LAST_KEY = tl.constexpr(0x3FFFFFFFFFFFFF)


class Room(NamedTuple):
    """Memory of a row: keys of tokens as found, or bins; the keys ranked; a list of tiles; maxima; its overlay."""

    keys: Any
    ranked: Any
    listed: Any
    maxima: Any
    raw_maxima: Any  # of the row as it is in memory
    edits: Any


class Row(NamedTuple):
    logits: Any
    vocab: Any  # ids from here on are no candidates
    tiles: Any
    maxima: Any  # NaN counts as -inf
    overlay: Any
    x_max: Any
    marks: Any  # whether the tokens of +inf are the only ones, equally likely
    room: Any


class Interval(NamedTuple):
    """A run of neighbours in the total order: what stands before `last` and not before `first`."""

    first_x: Any
    first_id: Any
    last_x: Any
    last_id: Any


class Rooms(NamedTuple):
    """The rooms of all rows, `stride` int64 apart."""

    data: Any
    stride: Any


def rooms_for(rows: int, vocab: int, words: int, device: torch.device) -> Rooms:
    """Room for rows whose overlays need so many words."""
    tiles = triton.cdiv(vocab, TILE.value)
    stride = 2 * LIST.value + triton.cdiv(3 * tiles + words, 2)
    return Rooms(torch.empty(rows * stride, dtype=torch.int64, device=device), stride)


@triton.jit
def room_of(rooms, row, tiles):
    keys = rooms.data + row * rooms.stride
    listed = (keys + 2 * LIST).to(tl.pointer_type(tl.int32))
    maxima = (listed + tiles).to(tl.pointer_type(tl.float32))
    edits = (maxima + 2 * tiles).to(tl.pointer_type(tl.int32))
    return Room(keys, keys + LIST, listed, maxima, maxima + tiles, edits)


@triton.jit
def sync():
    """What one thread of the program wrote, the others may read from here on."""
    tl.debug_barrier()


# ---- the total order


@triton.jit
def rank_key(x, id):
    """A positive int64, the larger the earlier in the total order: logit descending, then id ascending."""
    return (n.ordered(x).to(tl.int64) << 22) | (id.to(tl.int64) ^ 0x3FFFFF)


@triton.jit
def key_logit(key):
    return n.unordered((key >> 22).to(tl.uint32))


@triton.jit
def key_id(key):
    return ((key & 0x3FFFFF) ^ 0x3FFFFF).to(tl.int32)


@triton.jit
def everything():
    """Keeps every candidate."""
    x = tl.full([], ABOVE, tl.float32)
    id = tl.full([], LAST_ID, tl.int32)
    return Interval(x, id, tl.full([], NONE, tl.float32), id)


@triton.jit
def stands_before(x, id, cut_x, cut_id):
    """Whether tokens stand before a cut after a token."""
    return (x > cut_x) | ((x == cut_x) & (id <= cut_id))


@triton.jit
def keeps(interval, x, id):
    before_first = stands_before(x, id, interval.first_x, interval.first_id)
    return stands_before(x, id, interval.last_x, interval.last_id) & ~before_first


@triton.jit
def is_prefix(interval):
    return interval.first_x > n.LARGEST


@triton.jit
def narrow(interval, x, id):
    """Ends an interval after a token, if it does not end before."""
    stricter = (x > interval.last_x) | ((x == interval.last_x) & (id < interval.last_id))
    last_x, last_id = tl.where(stricter, x, interval.last_x), tl.where(stricter, id, interval.last_id)
    return Interval(interval.first_x, interval.first_id, last_x, last_id)


@triton.jit
def begin_with(interval, x, id):
    """Begins an interval with a token."""
    is_first = id == 0
    next_x = n.unordered(n.ordered(x) + 1)
    first_x, first_id = tl.where(is_first, next_x, x), tl.where(is_first, LAST_ID, id - 1)
    return Interval(first_x, first_id, interval.last_x, interval.last_id)


@triton.jit
def begin_after(interval, x, id):
    return Interval(x, id, interval.last_x, interval.last_id)


# ---- reading


@triton.jit
def mark(x, marks):
    """Where a row holds +inf, those tokens have logit 0 and the others none."""
    return tl.where(marks, tl.where(x > n.LARGEST, 0.0, -float("inf")), x)


@triton.jit
def read_tiles(logits, vocab, overlay, tile, wanted):
    """Tiles as float32 [CHUNK, 64], -inf where there is no candidate; and their ids."""
    id = tile[:, None] * TILE + tl.arange(0, TILE)[None, :]
    here = (id < vocab) & wanted[:, None]
    x = n.to_float(tl.load(logits + id, mask=here, other=-float("inf")))
    x = overlays.apply(overlay, x, id, here)
    return tl.where(here & (x == x), x, -float("inf")), id


@triton.jit
def read_chunk(row, start):
    """All tiles from `start` on, CHUNK of them, as the row is to be seen, and their ids."""
    tile = start + tl.arange(0, CHUNK)
    x, id = read_tiles(row.logits, row.vocab, row.overlay, tile, tile < row.tiles)
    return mark(x, row.marks), id


@triton.jit
def append(row, count, tile, take):
    """Adds tiles to the row's list; returns how many it has."""
    take = take.to(tl.int32)
    tl.store(row.room.listed + count + tl.cumsum(take, 0) - 1, tile, mask=take != 0)
    return count + tl.sum(take, 0)


@triton.jit
def read_maxima(row, start):
    tile = start + tl.arange(0, BLOCK)
    return tl.load(row.maxima + tile, mask=tile < row.tiles, other=-float("inf")), tile


@triton.jit
def list_tiles(row, least):
    """Lists the tiles whose maximum is at least so large, in their order; returns how many they are."""
    count = tl.full([], 0, tl.int32)
    sync()
    for start in range(0, row.tiles, BLOCK):
        m, tile = read_maxima(row, start)
        count = append(row, count, tile, m >= least)
    sync()
    return count


@triton.jit
def listed_tiles(row, start, count):
    place = start + tl.arange(0, CHUNK)
    return tl.load(row.room.listed + place, mask=place < count, other=0), place < count


@triton.jit
def read_listed(row, start, count):
    """The logits of listed tiles, as the row is to be seen, and their ids."""
    tile, wanted = listed_tiles(row, start, count)
    x, id = read_tiles(row.logits, row.vocab, row.overlay, tile, wanted)
    return mark(x, row.marks), id


# ---- rows of a batch


@triton.jit
def find_maxima(logits, inputs, rooms, at, first, RAW: tl.constexpr):
    """The maxima of CHUNK tiles of a row from `first` on, and the part of its overlay that belongs to them."""
    V = logits.size
    tiles = tl.cdiv(V, TILE)
    room = room_of(rooms, at.slot, tiles)
    pointer = pointer_of(logits, at)
    vocab = edits.vocab_of(inputs, at, V)
    overlay = overlays.overlay_of(inputs, at, V, room.edits)
    build(inputs, at, V, vocab, pointer, room.edits, first, CHUNK)
    tile = first + tl.arange(0, CHUNK)
    x, _ = read_tiles(pointer, vocab, overlay, tile, tile < tiles)
    tl.store(room.maxima + tile, tl.max(x, 1), mask=tile < tiles)
    if RAW:
        x, _ = read_tiles(pointer, V, overlays.no_overlay(), tile, tile < tiles)
        tl.store(room.raw_maxima + tile, tl.max(x, 1), mask=tile < tiles)


@triton.jit
def tiles_kernel(logits, inputs, rooms, RAW: tl.constexpr):
    at = only_row(tl.program_id(0).to(tl.int64))
    find_maxima(logits, inputs, rooms, at, tl.program_id(1) * CHUNK, RAW)


@triton.jit
def open_row(logits, vocab, tiles, maxima, overlay, room):
    """A row with its maxima found. Rewrites them where it holds +inf."""
    x_max = tl.full([], -float("inf"), tl.float32)
    for start in range(0, tiles, BLOCK):
        tile = start + tl.arange(0, BLOCK)
        x_max = tl.maximum(x_max, tl.max(tl.load(maxima + tile, mask=tile < tiles, other=-float("inf")), 0))
    marks = x_max > n.LARGEST
    if marks:
        for start in range(0, tiles, BLOCK):
            tile = start + tl.arange(0, BLOCK)
            m = tl.load(maxima + tile, mask=tile < tiles, other=-float("inf"))
            tl.store(maxima + tile, mark(m, marks), mask=tile < tiles)
        sync()
    return Row(logits, vocab, tiles, maxima, overlay, tl.where(marks, 0.0, x_max), marks, room)


@triton.jit
def row_at(logits, inputs, rooms, at):
    """A row whose maxima were found."""
    row = row_again(logits, inputs, rooms, at, tl.full([], 0.0, tl.float32), tl.full([], False, tl.int1))
    return open_row(row.logits, row.vocab, row.tiles, row.maxima, row.overlay, row.room)


@triton.jit
def row_again(logits, inputs, rooms, at, x_max, marks):
    """A row that was open before."""
    V = logits.size
    tiles = tl.cdiv(V, TILE)
    room = room_of(rooms, at.slot, tiles)
    overlay = overlays.overlay_of(inputs, at, V, room.edits)
    return Row(pointer_of(logits, at), edits.vocab_of(inputs, at, V), tiles, room.maxima, overlay, x_max, marks, room)
