"""The distributions that verify compares: rows after their filters, each found by a program of its own and kept."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from . import arithmetic as n
from .arguments import pointer_of
from .drafts import (
    DEPTH,
    DRAWN_FROM,
    GREEDY,
    know,
    know_number,
    known,
    known_number,
    method_of,
    place_of,
    place_of_drafted,
)
from .filters import Filter, chain, filter_of
from .overlay import no_overlay
from .rows import NONE, TILE, Interval, everything, keeps, mark, open_row, read_tiles, room_of, row_again, row_at
from .sums import highest_kept, mass_kept

# Where a slot's distributions are kept, after what drafts.py knows: the target's, and that of its drafts.
OF_TARGET, OF_DRAFTS = tl.constexpr(10), tl.constexpr(20)


class Distribution(NamedTuple):
    """A row after its filters. One without a candidate has no mass, and no token a weight."""

    row: Any
    interval: Any
    highest: Any
    scale: Any
    total: Any


@triton.jit
def distribution_of(row, inputs, flt, at, ORDER: tl.constexpr, MASS: tl.constexpr):
    interval, scale, highest = everything(), flt.scale, row.x_max
    total = tl.full([], 0, tl.int64)
    if row.x_max >= NONE:
        interval, scale, _ = chain(row, inputs, flt, at, ORDER)
        highest = highest_kept(row, interval)
        if MASS:
            total = mass_kept(row, highest, scale, interval)
    return Distribution(row, interval, highest, scale, total)


@triton.jit
def raw_distribution(logits, rooms, at):
    """Of a row before restrictions, penalties and filters."""
    tiles = tl.cdiv(logits.size, TILE)
    room = room_of(rooms, at.slot, tiles)
    row = open_row(pointer_of(logits, at), logits.size, tiles, room.raw_maxima, no_overlay(), room)
    scale = tl.full([], n.LOG2E, tl.float32)
    return Distribution(row, everything(), row.x_max, scale, mass_kept(row, row.x_max, scale, everything()))


@triton.jit
def unit_of(total):
    """What a weight is multiplied with to be a probability; 0 if there is none."""
    return tl.where(total > 0, n.probability_unit(tl.where(total > 0, total, 1)), 0.0)


@triton.jit
def read_tile(row, tile):
    """The logits of one tile, as the row is to be seen, and their ids."""
    x, id = read_tiles(row.logits, row.vocab, row.overlay, tile + tl.zeros([1], tl.int32), tl.full([1], True, tl.int1))
    return mark(x, row.marks), id


@triton.jit
def only(values, id, token):
    """The value of one token of a tile."""
    return tl.sum(tl.sum(tl.where(id == token, values, 0.0), 1), 0)


@triton.jit
def weights_of(given, x, id):
    return tl.where(keeps(given.interval, x, id), n.weight(n.exponent(x, given.highest, given.scale)), 0.0)


@triton.jit(noinline=True)
def weight_of(given, token):
    x, id = read_tile(given.row, token // TILE)
    return only(weights_of(given, x, id), id, token)


@triton.jit(noinline=True)
def log_probability_of(given, token):
    x, id = read_tile(given.row, token // TILE)
    x = tl.max(tl.max(tl.where(id == token, x, -float("inf")), 1), 0)
    return n.log_probability(n.exponent(x, given.highest, given.scale), given.total)


# ---- kept from one launch to the next


@triton.jit
def keep(drafts, slot, place: tl.constexpr, given):
    know_number(drafts, slot, place, given.interval.first_x)
    know(drafts, slot, place + 1, given.interval.first_id)
    know_number(drafts, slot, place + 2, given.interval.last_x)
    know(drafts, slot, place + 3, given.interval.last_id)
    know_number(drafts, slot, place + 4, given.highest)
    know_number(drafts, slot, place + 5, given.scale)
    know(drafts, slot, place + 6, given.total.to(tl.int32))
    know(drafts, slot, place + 7, (given.total >> 32).to(tl.int32))
    know_number(drafts, slot, place + 8, given.row.x_max)
    know(drafts, slot, place + 9, given.row.marks.to(tl.int32))


@triton.jit
def kept(drafts, slot, place: tl.constexpr, logits, inputs, rooms, at):
    first_x, first_id = known_number(drafts, slot, place), known(drafts, slot, place + 1)
    last_x, last_id = known_number(drafts, slot, place + 2), known(drafts, slot, place + 3)
    low, high = known(drafts, slot, place + 6).to(tl.int64) & 0xFFFFFFFF, known(drafts, slot, place + 7).to(tl.int64)
    x_max, marks = known_number(drafts, slot, place + 8), known(drafts, slot, place + 9) != 0
    row = row_again(logits, inputs, rooms, at, x_max, marks)
    highest, scale = known_number(drafts, slot, place + 4), known_number(drafts, slot, place + 5)
    return Distribution(row, Interval(first_x, first_id, last_x, last_id), highest, scale, (high << 32) | low)


@triton.jit
def filter_at(drafts, inputs, at, METHOD: tl.constexpr):
    """A node's filter: for greedy one that keeps no more than the first token."""
    flt = filter_of(inputs, at)
    greedy = method_of(drafts, at, METHOD) == GREEDY
    k = tl.where(greedy, 1, flt.k)
    return Filter(flt.valid, flt.greedy | greedy, k, flt.temperature, flt.scale, flt.seed, flt.position)


@triton.jit
def distributions_kernel(
    drafts, target, inputs, rooms, draft_logits, drafted_by, draft_rooms, ORDER: tl.constexpr, METHOD: tl.constexpr
):
    slot = tl.program_id(0).to(tl.int64)
    if known(drafts, slot, DEPTH) >= 0:
        if tl.program_id(1) == 0:
            at = place_of(drafts, slot)
            flt = filter_at(drafts, inputs, at, METHOD)
            row = row_at(target, inputs, rooms, at)
            keep(drafts, slot, OF_TARGET, distribution_of(row, inputs, flt, at, ORDER, True))
        elif known(drafts, slot, DRAWN_FROM) >= 0:
            at = place_of_drafted(drafts, slot)
            flt = filter_of(drafted_by, at)
            row = row_at(draft_logits, drafted_by, draft_rooms, at)
            keep(drafts, slot, OF_DRAFTS, distribution_of(row, drafted_by, flt, at, ORDER, True))
