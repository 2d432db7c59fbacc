"""typical-p: what is kept grows from the entropy outwards."""

from __future__ import annotations

import triton
import triton.language as tl

from . import arithmetic as n
from .rows import LAST_ID, LAST_KEY, Interval, begin_with, keeps, key_id, key_logit, narrow, rank_key
from .select import cross_keys, weighing
from .sums import highest_kept, lowest_logit, sums_kept


@triton.jit
def is_above(x, surprise):
    """Whether a token is more probable than the entropy says."""
    highest, scale, mean = surprise
    return n.exponent(x, highest, scale) > mean


@triton.jit
def distance(x, surprise):
    highest, scale, mean = surprise
    return tl.abs(n.exponent(x, highest, scale) - mean)


@triton.jit
def nearness(x, surprise):
    """The nearer to the entropy the larger; of two as far, the one above."""
    near = 0x7FFFFFFF - n.bits_of(distance(x, surprise)).to(tl.int64)
    return (near << 1) | is_above(x, surprise).to(tl.int64)


@triton.jit
def nearness_key(x, id, arguments):
    interval, surprise = arguments
    return tl.where(keeps(interval, x, id), nearness(x, surprise), 0)


@triton.jit
def place_key(x, id, arguments):
    """Among tokens as near: above the entropy the last of the total order first, below it the first."""
    interval, surprise, side, above = arguments
    key = rank_key(x, id)
    member = keeps(interval, x, id) & (nearness(x, surprise) == side)
    return tl.where(member, tl.where(above, LAST_KEY - key, key), 0)


@triton.jit
def is_inside(x, arguments):
    surprise, far = arguments
    return is_above(x, surprise) | (distance(x, surprise) < far)


@triton.jit
def is_beyond(x, arguments):
    surprise, far = arguments
    return is_above(x, surprise) & (distance(x, surprise) > far)


@triton.jit
def keep_typical(row, interval, p, scale):
    """What is kept grows from the entropy outwards, the more probable side first where both are equally far."""
    highest = highest_kept(row, interval)
    total = sums_kept(row, highest, scale, interval)
    target = n.nucleus_mass(p, total.mass)
    mean = (-(total.moment.to(tl.float64) / total.mass.to(tl.float64))).to(tl.float32)
    surprise = (highest, scale, mean)
    measure = weighing(highest, scale)
    one, nothing = tl.full([], 1, tl.int64), tl.full([], 0, tl.int64)
    side = cross_keys(
        row, interval.last_x, nearness_key, (interval, surprise), measure, one, nothing + 0xFFFFFFFF, nothing, target
    )
    above = (side.key & 1) != 0
    token = cross_keys(
        row, interval.last_x, place_key, (interval, surprise, side.key, above), measure, one, nothing + LAST_KEY,
        side.before, target,
    )  # fmt: skip
    key = tl.where(above, LAST_KEY - token.key, token.key)
    x, id = key_logit(key), key_id(key)
    far = distance(x, surprise)
    if above:  # the other side as far as it is nearer
        kept = narrow(interval, lowest_logit(is_inside, highest, (surprise, far)), tl.full([], LAST_ID, tl.int32))
        kept = begin_with(kept, x, id)
    else:
        kept = Interval(tl.zeros_like(x) + float("inf"), tl.zeros_like(id) + LAST_ID, x, id)
        if is_beyond(highest, (surprise, far)):
            first = lowest_logit(is_beyond, highest, (surprise, far))
            kept = Interval(first, tl.zeros_like(id) + LAST_ID, x, id)
    return kept
