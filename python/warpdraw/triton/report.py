"""What sample reports beside the token."""

from __future__ import annotations

import triton
import triton.language as tl

from . import arithmetic as n
from .rows import (
    CHUNK,
    LIST,
    TILE,
    begin_after,
    keeps,
    key_id,
    key_logit,
    list_tiles,
    read_listed,
    stands_before,
)
from .select import rank_first, ranked


@triton.jit
def rank_of(row, x, token):
    """The place of a token in the total order of the row, from 1."""
    upto = tl.zeros([CHUNK, TILE], tl.int32)
    count = list_tiles(row, x)
    for start in range(0, count, CHUNK):
        logit, id = read_listed(row, start, count)
        upto += stands_before(logit, id, x, token).to(tl.int32)
    return tl.sum(tl.sum(upto, 1), 0)


@triton.jit
def report_kept(outputs, b, row, interval):
    """How many tokens are kept, and the first of them by id."""
    if (outputs.kept_count is not None) or (outputs.kept_ids is not None):
        found = tl.full([], 0, tl.int32)
        count = list_tiles(row, interval.last_x)
        for start in range(0, count, CHUNK):
            x, id = read_listed(row, start, count)
            kept = tl.reshape(keeps(interval, x, id).to(tl.int32), [CHUNK * TILE])
            if outputs.kept_ids is not None:
                place = found + tl.cumsum(kept, 0) - 1
                to = outputs.kept_ids.data + b * outputs.kept_ids.stride + place
                tl.store(to, tl.reshape(id, [CHUNK * TILE]), mask=(kept != 0) & (place < outputs.kept_ids.size))
            found += tl.sum(kept, 0)
        if outputs.kept_count is not None:
            tl.store(outputs.kept_count.data + b * outputs.kept_count.stride, found)
        fill(outputs.kept_ids, b, found, -1)


@triton.jit
def fill(table, b, begin, value):
    """The places of a row from `begin` on."""
    if table is not None:
        for start in range(0, table.size, LIST):
            place = start + tl.arange(0, LIST)
            mask = (place >= begin) & (place < table.size)
            tl.store(table.data + b * table.stride + place, tl.full([LIST], value, tl.float32), mask=mask)


@triton.jit(noinline=True)
def report_top(outputs, b, row, interval, highest, scale, total):
    """The first tokens of an interval and their log-probabilities, as many at a time as are ranked together."""
    room = outputs.top_ids.size if outputs.top_ids is not None else outputs.top_logprobs.size
    done = tl.full([], 0, tl.int32)
    more = done < room
    while more:
        count = rank_first(row, interval, room - done)
        keys = ranked(row, count)
        place = tl.arange(0, LIST)
        if outputs.top_ids is not None:
            to = outputs.top_ids.data + b * outputs.top_ids.stride + done + place
            tl.store(to, key_id(keys), mask=place < count)
        if outputs.top_logprobs is not None:
            value = n.log_probability(n.exponent(key_logit(keys), highest, scale), total)
            to = outputs.top_logprobs.data + b * outputs.top_logprobs.stride + done + place
            tl.store(to, value, mask=place < count)
        done += count
        more = (count == LIST) & (done < room)
        last = tl.min(tl.where(place < count, keys, 0x7FFFFFFFFFFFFFFF), 0)
        interval = begin_after(interval, key_logit(last), key_id(last))
    fill(outputs.top_ids, b, done, -1)
    fill(outputs.top_logprobs, b, done, -float("inf"))
