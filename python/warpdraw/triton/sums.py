"""Sums and extremes over the tokens that an interval of a row keeps."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from . import arithmetic as n
from .rows import CHUNK, LAST_ID, NONE, TILE, is_prefix, keeps, list_tiles, read_listed


class Sums(NamedTuple):
    """Over what a filter sees, weights relative to the largest of it."""

    mass: Any
    moment: Any  # of mass times -t
    count: Any


@triton.jit
def mass_of(x, highest, scale):
    return n.mass(n.weight(n.exponent(x, highest, scale)))


@triton.jit(noinline=True)
def mass_kept(row, highest, scale, interval):
    total = tl.zeros([CHUNK, TILE], tl.int64)
    massless_below = highest - tl.div_rn(n.constant(41.0, scale), scale)
    count = list_tiles(row, tl.maximum(interval.last_x, massless_below))
    for start in range(0, count, CHUNK):
        x, id = read_listed(row, start, count)
        total += tl.where(keeps(interval, x, id), mass_of(x, highest, scale), 0)
    return tl.sum(tl.sum(total, 1), 0)


@triton.jit(noinline=True)
def sums_kept(row, highest, scale, interval):
    masses = tl.zeros([CHUNK, TILE], tl.int64)
    moments = tl.zeros([CHUNK, TILE], tl.int64)
    counts = tl.zeros([CHUNK, TILE], tl.int64)
    count = list_tiles(row, interval.last_x)
    for start in range(0, count, CHUNK):
        x, id = read_listed(row, start, count)
        kept = keeps(interval, x, id)
        t = n.exponent(x, highest, scale)
        masses += tl.where(kept, n.mass(n.weight(t)), 0)
        moments += tl.where(kept, n.moment(t), 0)
        counts += kept.to(tl.int64)
    return Sums(tl.sum(tl.sum(masses, 1), 0), tl.sum(tl.sum(moments, 1), 0), tl.sum(tl.sum(counts, 1), 0))


@triton.jit(noinline=True)
def lowest_kept(row, interval):
    lowest = tl.full([CHUNK, TILE], float("inf"), tl.float32)
    count = list_tiles(row, interval.last_x)
    for start in range(0, count, CHUNK):
        x, id = read_listed(row, start, count)
        lowest = tl.minimum(lowest, tl.where(keeps(interval, x, id), x, float("inf")))
    return tl.min(tl.min(lowest, 1), 0)


@triton.jit(noinline=True)
def highest_kept(row, interval):
    highest = row.x_max
    if ~is_prefix(interval):
        largest = tl.full([CHUNK, TILE], -float("inf"), tl.float32)
        count = list_tiles(row, interval.last_x)
        for start in range(0, count, CHUNK):
            x, id = read_listed(row, start, count)
            largest = tl.maximum(largest, tl.where(keeps(interval, x, id), x, -float("inf")))
        highest = tl.max(tl.max(largest, 1), 0)
    return highest


@triton.jit(noinline=True)
def first_id(row, x, interval):
    """The lowest id among the kept tokens of one logit."""
    found = tl.full([CHUNK, TILE], LAST_ID, tl.int32)
    count = list_tiles(row, x)
    for start in range(0, count, CHUNK):
        logit, id = read_listed(row, start, count)
        found = tl.minimum(found, tl.where((logit == x) & keeps(interval, logit, id), id, LAST_ID))
    return tl.min(tl.min(found, 1), 0)


@triton.jit(noinline=True)
def last_id(row, x, interval):
    found = tl.full([CHUNK, TILE], 0, tl.int32)
    count = list_tiles(row, x)
    for start in range(0, count, CHUNK):
        logit, id = read_listed(row, start, count)
        found = tl.maximum(found, tl.where((logit == x) & keeps(interval, logit, id), id, 0))
    return tl.max(tl.max(found, 1), 0)


@triton.jit(noinline=True)
def lowest_logit(enough: tl.constexpr, highest, arguments):
    """The smallest logit up to `highest` of which `enough(x, *arguments)` holds; it goes on holding as the logit grows.

    The highest if it holds of none. 256 are asked about at a time.
    """
    low = n.ordered(tl.zeros_like(highest) + NONE).to(tl.int64)
    high = n.ordered(highest).to(tl.int64)
    while low < high:
        step = (high - low) // 256 + 1
        asked = low + step * tl.arange(0, 256)
        holds = (asked >= high) | enough(n.unordered(tl.minimum(asked, high).to(tl.uint32)), arguments)
        first = tl.min(tl.where(holds, tl.arange(0, 256), 256), 0)
        high = tl.minimum(high, low + step * first)
        low = tl.where(first > 0, low + step * (first - 1) + 1, low)
    return n.unordered(high.to(tl.uint32))
