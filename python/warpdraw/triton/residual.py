"""What the drafts that a node rejected leave of its target: max(p - q, 0), over and over, and the draw from it."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from . import arithmetic as n
from .arguments import of_row
from .distributions import only, read_tile, unit_of, weights_of
from .drafts import NEXT, SCALE, UNIT, know_number, known, known_number, token_of
from .race import entry, entry_index
from .rows import CHUNK, TILE, list_tiles, listed_tiles, mark, read_listed, read_tiles, sync


class Rejections(NamedTuple):
    """The drafts of a node from `first` on, up to but not including `end`."""

    first: Any
    end: Any
    request: Any
    slot: Any  # of the request's root


@triton.jit
def left_of(weights, unit, weights_q, id, drafts, rejections, DISTINCT: tl.constexpr):
    """What some drafts leave of a target, and the weights of the next one's distribution."""
    left = weights * unit
    draft = rejections.first
    while draft != rejections.end:
        slot = rejections.slot + draft
        rest = left * known_number(drafts, slot, SCALE) - weights_q * known_number(drafts, slot, UNIT)
        left = tl.where(rest > 0.0, rest, 0.0)
        if DISTINCT:
            weights_q = tl.where(id == token_of(drafts, rejections.request, draft), 0.0, weights_q)
        draft = known(drafts, slot, NEXT)
    return left, weights_q


@triton.jit
def left_in_tile(target, unit, drafted, drafts, rejections, tile, DISTINCT: tl.constexpr):
    x, id = read_tile(target.row, tile)
    x_q, _ = read_tile(drafted.row, tile)
    weights, weights_q = weights_of(target, x, id), weights_of(drafted, x_q, id)
    left, weights_q = left_of(weights, unit, weights_q, id, drafts, rejections, DISTINCT)
    return left, weights_q, id


@triton.jit(noinline=True)
def race_tiles(target, unit, drafted, drafts, rejections, seed, position, DISTINCT: tl.constexpr):
    """The mass of what is left, and the tile that wins the race for it."""
    masses = tl.zeros([CHUNK], tl.int64)
    best = tl.full([CHUNK], -1, tl.int64)
    # Below 2^-126 of the largest no token has a weight.
    weightless_below = target.highest - tl.div_rn(n.constant(128.0, target.scale), target.scale)
    count = list_tiles(target.row, tl.maximum(target.interval.last_x, weightless_below))
    for start in range(0, count, CHUNK):
        tile, wanted = listed_tiles(target.row, start, count)
        x, id = read_listed(target.row, start, count)
        x_q, _ = read_tiles(drafted.row.logits, drafted.row.vocab, drafted.row.overlay, tile, wanted)
        weights_q = weights_of(drafted, mark(x_q, drafted.row.marks), id)
        left, _ = left_of(weights_of(target, x, id), unit, weights_q, id, drafts, rejections, DISTINCT)
        mass = tl.sum(n.mass(left), 1)
        masses += mass
        key = n.race_key(mass, n.noise(seed, position, n.STREAM_RESIDUAL_TILE, tile))
        best = tl.maximum(best, tl.where(mass > 0, entry(key, tile), -1))
    return tl.sum(masses, 0), entry_index(tl.max(best, 0))


@triton.jit
def race_left(target, unit, drafted, drafts, rejections, total, tile, seed, position, DISTINCT: tl.constexpr):
    """The token that is drawn from what is left, whose mass and winning tile are known.

    From the target where rounding leaves nothing, because the two distributions are the same.
    """
    end = tl.where(total > 0, rejections.end, rejections.first)
    unit = tl.where(total > 0, unit, 1.0)
    counted = Rejections(rejections.first, end, rejections.request, rejections.slot)
    if total == 0:
        _, tile = race_tiles(target, unit, drafted, drafts, counted, seed, position, DISTINCT)
    left, _, id = left_in_tile(target, unit, drafted, drafts, counted, tile, DISTINCT)
    mass = n.mass(left)
    key = n.race_key(mass, n.noise(seed, position, n.STREAM_RESIDUAL_TOKEN, id))
    return entry_index(tl.max(tl.max(tl.where(mass > 0, entry(key, id), -1), 1), 0))


@triton.jit
def accept_bits(seed, position, step, tried):
    """The bits of the u that decide about a draft: the first that is tried, the second, and so on."""
    stream = (step.to(tl.uint32) << n.STREAM_BITS) | n.STREAM_ACCEPT
    return n.noise_bits(seed, position, stream, tried)


@triton.jit
def accepts(r, q, p):
    return (q > 0.0) & (n.uniform(r) * q.to(tl.float64) < p.to(tl.float64))


@triton.jit
def reject(drafts, at, target, drafted, flt, first, DISTINCT: tl.constexpr):
    """The first draft that passes its test; if none does, a draw from what they leave of the target."""
    root = at.slot // drafts.nodes * drafts.nodes
    step = of_row(drafts.step, at, 0, tl.int64)
    unit, scale = unit_of(target.total), tl.full([], 1.0, tl.float32)
    total_q = drafted.total
    total, tile = tl.full([], 0, tl.int64), tl.full([], 0, tl.int32)
    token, accepted = tl.full([], -1, tl.int32), tl.full([], -1, tl.int32)
    draft, tried = first, tl.full([], 0, tl.int32)
    trying = first >= 0
    while trying:
        id = token_of(drafts, at.request, draft)
        rejections = Rejections(first, draft, at.request, root)
        lefts, weights_q, ids = left_in_tile(target, unit, drafted, drafts, rejections, id // TILE, DISTINCT)
        weight_q, unit_q = only(weights_q, ids, id), unit_of(total_q)
        p = only(lefts, ids, id) * scale
        if accepts(accept_bits(flt.seed, flt.position, step, tried), weight_q * unit_q, p):
            token, accepted = id, draft
            trying = False
        else:
            know_number(drafts, root + draft, SCALE, scale)
            know_number(drafts, root + draft, UNIT, unit_q)
            sync()
            draft = known(drafts, root + draft, NEXT)
            rejections = Rejections(first, draft, at.request, root)
            total, tile = race_tiles(target, unit, drafted, drafts, rejections, flt.seed, flt.position, DISTINCT)
            scale = unit_of(total)
            if DISTINCT:
                total_q -= n.mass(weight_q)
            tried += 1
            trying = (draft >= 0) & (scale > 0.0)
    if accepted < 0:
        rejections = Rejections(first, draft, at.request, root)
        token = race_left(target, unit, drafted, drafts, rejections, total, tile, flt.seed, flt.position, DISTINCT)
    return token, accepted
