"""Where in the total order a sum over tokens crosses a target: the engine of top-k, top-p and typical-p.

A histogram leaves few tokens to rank; where it leaves many, digits of their keys go on.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from . import arithmetic as n
from .rows import (
    BLOCK,
    CHUNK,
    LAST_ID,
    LIST,
    NONE,
    TILE,
    is_prefix,
    keeps,
    key_id,
    key_logit,
    list_tiles,
    narrow,
    rank_key,
    read_listed,
    read_maxima,
    sync,
)
from .sums import highest_kept, lowest_kept, mass_of, sums_kept


class Measure(NamedTuple):
    """What a token counts for: 1, or its mass."""

    counts: Any
    highest: Any
    scale: Any


class Steps(NamedTuple):
    """Equal steps from one logit down to another; all that is lower falls into the last."""

    half_high: Any  # halves, so that their difference is finite
    per_unit: Any


class Crossing(NamedTuple):
    key: Any
    before: Any  # the sum of what has larger keys


class Selection(NamedTuple):
    """An interval of a row, and how many tokens room.ranked lists of it: exactly its own, or -1."""

    interval: Any
    listed: Any


@triton.jit
def counting():
    zero = tl.full([], 0.0, tl.float32)
    return Measure(tl.full([], True, tl.int1), zero, zero)


@triton.jit
def weighing(highest, scale):
    return Measure(tl.full([], False, tl.int1), highest, scale)


@triton.jit
def measured(measure, x):
    return tl.where(measure.counts, 1, mass_of(x, measure.highest, measure.scale))


@triton.jit
def steps_between(low, high):
    half_high = high * 0.5
    span = half_high - low * 0.5
    per_unit = tl.div_rn(n.constant(LIST - 1.0, span), tl.where(span > 0.0, span, 1.0))
    return Steps(half_high, tl.where(span > 0.0, tl.minimum(per_unit, n.LARGEST), 0.0))


@triton.jit
def step_of(steps, x):
    x = tl.maximum(x, NONE)
    return tl.minimum((steps.half_high - x * 0.5) * steps.per_unit, LIST - 1.0).to(tl.int32)


@triton.jit
def crossing(values, count, target):
    """The first of `count` places where the sum reaches the target, the last if none does, and the sum before it.

    A target of zero is reached by the first value that is more.
    """
    place = tl.arange(0, LIST)
    reached = tl.cumsum(values, 0) >= tl.maximum(target, 1)
    at = tl.min(tl.where(reached, place, count - 1), 0)
    return at, tl.sum(tl.where(place < at, values, 0), 0)


@triton.jit
def gather(row, interval, least, steps, step):
    """Finds the keys of the interval's tokens from `least` on, those in one step unless that is negative; their number.

    They are in room.keys unless they are more than LIST.
    """
    found = tl.full([], 0, tl.int32)
    count = list_tiles(row, least)
    for start in range(0, count, CHUNK):
        x, id = read_listed(row, start, count)
        take = (x >= least) & keeps(interval, x, id) & ((step < 0) | (step_of(steps, x) == step))
        take = tl.reshape(take.to(tl.int32), [CHUNK * TILE])
        place = found + tl.cumsum(take, 0) - 1
        key = tl.reshape(rank_key(x, id), [CHUNK * TILE])
        tl.store(row.room.keys + place, key, mask=(take != 0) & (place < LIST))
        found += tl.sum(take, 0)
    sync()
    return found


@triton.jit
def rank(row, count):
    """Puts the keys that were found into their order, the first of the total order first."""
    mine = tl.arange(0, LIST)
    key = tl.load(row.room.keys + mine, mask=mine < count, other=0)
    place = tl.zeros([LIST], tl.int32)
    for start in range(0, count, 16):
        others = start + tl.arange(0, 16)
        other = tl.load(row.room.keys + others, mask=others < count, other=0)
        place += tl.sum((other[None, :] > key[:, None]).to(tl.int32), 1)
    tl.store(row.room.ranked + place, key, mask=mine < count)
    sync()


@triton.jit
def ranked(row, count):
    place = tl.arange(0, LIST)
    return tl.load(row.room.ranked + place, mask=place < count, other=0)


@triton.jit
def key_at(row, place):
    return tl.load(row.room.ranked + place)


@triton.jit
def clear_bins(row):
    sync()
    tl.store(row.room.keys + tl.arange(0, LIST), tl.zeros([LIST], tl.int64))
    sync()


@triton.jit
def read_bins(row):
    sync()
    return tl.load(row.room.keys + tl.arange(0, LIST))


@triton.jit
def sum_steps(row, interval, least, steps, measure):
    """A histogram of the measure over steps of the logit, of the interval's tokens from `least` on."""
    clear_bins(row)
    count = list_tiles(row, least)
    for start in range(0, count, CHUNK):
        x, id = read_listed(row, start, count)
        value = measured(measure, x)
        take = (x >= least) & keeps(interval, x, id) & (value > 0)
        tl.atomic_add(row.room.keys + step_of(steps, x), value, mask=take, sem="relaxed")
    return read_bins(row)


@triton.jit(noinline=True)
def cross_keys(row, least, key_of: tl.constexpr, arguments, measure, low, high, before, target):
    """The largest key such that the measure, summed over tokens of this key and of larger ones, reaches the target.

    `before` is added to the sum. key_of(x, id, arguments) is 0 for tokens that do not take part, else in [low, high].
    """
    while low < high:
        shift = tl.zeros_like(low)
        while ((high - low) >> shift) >= LIST:
            shift += 1
        clear_bins(row)
        count = list_tiles(row, least)
        for start in range(0, count, CHUNK):
            x, id = read_listed(row, start, count)
            key = key_of(x, id, arguments)
            value = measured(measure, x)
            take = (key > 0) & (key >= low) & (key <= high) & (value > 0)
            bin = tl.where(take, (high - key) >> shift, 0)
            tl.atomic_add(row.room.keys + bin, value, mask=take, sem="relaxed")
        bin, inside = crossing(read_bins(row), LIST, target - before)
        before += inside
        high -= bin.to(tl.int64) << shift
        low = tl.maximum(low, high - ((tl.full([], 1, tl.int64) << shift) - 1))
    return Crossing(high, before)


@triton.jit
def key_in_step(x, id, arguments):
    interval, least, steps, step = arguments
    member = (x >= least) & keeps(interval, x, id) & (step_of(steps, x) == step)
    return tl.where(member, rank_key(x, id), 0)


@triton.jit(noinline=True)
def cut(row, interval, low, high, target, measure):
    """Ends an interval with the token where the measure, summed from its first, reaches the target.

    It does so at or above the logit `low`; `high` is the interval's largest.
    """
    steps = steps_between(low, high)
    step, before = crossing(sum_steps(row, interval, low, steps, measure), LIST, target)
    count = gather(row, interval, low, steps, step)
    if count <= LIST:
        rank(row, count)
        values = measured(measure, key_logit(ranked(row, count)))
        values = tl.where(tl.arange(0, LIST) < count, values, 0)
        at, _ = crossing(values, count, target - before)
        key = key_at(row, at)
    else:
        least, most = rank_key(low, tl.full([], LAST_ID, tl.int32)), rank_key(high, tl.full([], 0, tl.int32))
        key = cross_keys(
            row, low, key_in_step, (interval, low, steps, step), measure, least, most, before, target.to(tl.int64)
        ).key
    return narrow(interval, key_logit(key), key_id(key))


@triton.jit
def pivot(row, k):
    """A logit that at least k tiles reach with their maxima, and not many more; NONE if there are too few."""
    exist = tl.full([], 0, tl.int64)
    low = tl.full([], float("inf"), tl.float32)
    for start in range(0, row.tiles, BLOCK):
        m, _ = read_maxima(row, start)
        exist += tl.sum((m >= NONE).to(tl.int64), 0)
        low = tl.minimum(low, tl.min(tl.where(m >= NONE, m, float("inf")), 0))
    found = tl.full([], NONE, tl.float32)
    high = row.x_max
    reached = tl.full([], 0, tl.int64)  # by tiles above `high`
    searching = exist >= k
    while searching:
        steps = steps_between(low, high)
        bins = tl.zeros([LIST], tl.int64)
        for start in range(0, row.tiles, BLOCK):
            m, _ = read_maxima(row, start)
            bins += tl.histogram(step_of(steps, m), LIST, mask=(m >= low) & (m <= high)).to(tl.int64)
        step, inside = crossing(bins, LIST, k - reached)
        upto = reached + inside + tl.sum(tl.where(tl.arange(0, LIST) == step, bins, 0), 0)
        least, most = tl.full([], float("inf"), tl.float32), tl.full([], -float("inf"), tl.float32)
        for start in range(0, row.tiles, BLOCK):
            m, _ = read_maxima(row, start)
            member = (m >= low) & (m <= high) & (step_of(steps, m) == step)
            least = tl.minimum(least, tl.min(tl.where(member, m, float("inf")), 0))
            most = tl.maximum(most, tl.max(tl.where(member, m, -float("inf")), 0))
        found = least
        # One step may hold all that is left: differences may be too small for steps between them.
        searching = (upto > k + k // 4 + 4) & (least < most) & ((least > low) | (most < high))
        reached += inside
        low, high = least, most
    return found


@triton.jit(noinline=True)
def list_from(row, interval, x):
    """Ranks the tokens of an interval that reach a logit; -1 if they are too many."""
    nothing = steps_between(x, x)
    count = gather(row, interval, x, nothing, tl.full([], -1, tl.int32))
    if count <= LIST:
        rank(row, count)
    else:
        count = tl.full([], -1, tl.int32)
    return count


@triton.jit(noinline=True)
def keep_first(row, seen, k):
    """The first k tokens of what is seen."""
    interval, listed = seen.interval, tl.full([], -1, tl.int32)
    found = False
    # The maxima of the tiles tell without reading the row.
    if is_prefix(interval) & (k <= row.tiles) & (k <= LIST):
        x = tl.maximum(pivot(row, k), interval.last_x)
        count = list_from(row, interval, x)
        if count >= k:
            key = key_at(row, k - 1)
            interval, listed, found = narrow(interval, key_logit(key), key_id(key)), k.to(tl.int32), True
        elif (count >= 0) & (x <= interval.last_x):
            listed, found = count, True  # all that is seen
    if not found:
        count = sums_kept(row, row.x_max, n.constant(n.LOG2E, row.x_max), interval).count
        if count > k:
            low, high = lowest_kept(row, interval), highest_kept(row, interval)
            interval = cut(row, interval, low, high, k, counting())
    return Selection(interval, listed)


@triton.jit
def rank_first(row, interval, most):
    """Ranks the first tokens of an interval, at most so many and at most LIST; returns how many."""
    first = keep_first(row, Selection(interval, tl.full([], -1, tl.int32)), tl.minimum(most, LIST).to(tl.int64))
    count = first.listed
    if count < 0:
        count = list_from(row, first.interval, first.interval.last_x)
    return count
