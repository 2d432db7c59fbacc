"""sample: what the filters keep of a row, then the race, then what is reported."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from ..ops import sample as op
from . import arithmetic as n
from .arguments import inputs_of, named, names_of, rows_of, store
from .filters import begin, chain
from .launch import Kernel, run_rows
from .overlay import no_overlay
from .race import race
from .report import fill, rank_of, report_kept, report_top
from .rows import TILE, Row, everything, mark, open_row, room_of
from .sums import highest_kept, mass_kept

Outputs = names_of("Outputs", op.contract.outputs)


@triton.jit
def accept(outputs, b, token):
    tl.store(outputs.tokens.data + b * outputs.tokens.stride, token)
    tl.store(outputs.valid.data + b * outputs.valid.stride, True)


@triton.jit
def reject(outputs, b):
    """A row with nothing to draw from: token -1, no probability."""
    store(outputs.tokens, b, -1)
    store(outputs.valid, b, False)
    store(outputs.logprob, b, float("nan"))
    store(outputs.raw_logprob, b, float("nan"))
    store(outputs.rank, b, 0)
    store(outputs.kept_count, b, 0)
    fill(outputs.kept_ids, b, 0, -1)
    fill(outputs.top_ids, b, 0, -1)
    fill(outputs.top_logprobs, b, 0, -float("inf"))


@triton.jit
def report_raw(logits, rooms, outputs, b, token, TOP: tl.constexpr, MASS: tl.constexpr):
    """What is said of the row before restrictions, penalties and filters."""
    tiles = tl.cdiv(logits.size, TILE)
    room = room_of(rooms, b, tiles)
    pointer = logits.data + b * logits.stride
    x = n.to_float(tl.load(pointer + token))
    scale = tl.full([], n.LOG2E, tl.float32)
    if outputs.rank is not None:
        as_it_is = Row(pointer, logits.size, tiles, room.raw_maxima, no_overlay(), x, tl.full([], False, tl.int1), room)
        store(outputs.rank, b, rank_of(as_it_is, x, token))
    row = open_row(pointer, logits.size, tiles, room.raw_maxima, no_overlay(), room)
    x = mark(x, row.marks)
    total = tl.full([], 1, tl.int64)
    if MASS:
        total = mass_kept(row, row.x_max, scale, everything())
    if outputs.raw_logprob is not None:
        store(outputs.raw_logprob, b, n.log_probability(n.exponent(x, row.x_max, scale), total))
    if TOP:
        report_top(outputs, b, row, everything(), row.x_max, scale, total)


@triton.jit
def sample_kernel(logits, inputs, outputs, rooms, ORDER: tl.constexpr, TOP_OF_RAW: tl.constexpr):
    at, flt, row, valid = begin(logits, inputs, rooms)
    b = at.request
    if valid:
        interval, scale, greedy = chain(row, inputs, flt, at, ORDER)
        highest = highest_kept(row, interval)
        token, x = interval.last_id, interval.last_x
        if ~greedy:
            token, x = race(row, interval, highest, scale, flt.seed, flt.position)
        accept(outputs, b, token)
        TOP: tl.constexpr = (outputs.top_ids is not None) or (outputs.top_logprobs is not None)
        if (outputs.logprob is not None) or (TOP and not TOP_OF_RAW):
            total = mass_kept(row, highest, scale, interval)
            if outputs.logprob is not None:
                store(outputs.logprob, b, n.log_probability(n.exponent(x, highest, scale), total))
        report_kept(outputs, b, row, interval)
        if TOP and not TOP_OF_RAW:
            report_top(outputs, b, row, interval, highest, scale, total)
        MASS: tl.constexpr = (outputs.raw_logprob is not None) or ((outputs.top_logprobs is not None) and TOP_OF_RAW)
        if MASS or (outputs.rank is not None) or (TOP and TOP_OF_RAW):
            report_raw(logits, rooms, outputs, b, token, TOP and TOP_OF_RAW, MASS)
    else:
        reject(outputs, b)


@Kernel
def sample(*bound: Any) -> None:
    call = named(op.contract, bound)
    outputs = Outputs(*[rows_of(call[spec.name]) for spec in op.contract.outputs])
    of_raw = op.contract.word("top_of", call["top_of"]) == "raw"
    wants_top = outputs.top_ids is not None or outputs.top_logprobs is not None
    raw = outputs.raw_logprob is not None or outputs.rank is not None or (of_raw and wants_top)
    run_rows(sample_kernel, call["logits"], inputs_of(bound), outputs, raw=raw, ORDER=call["order"], TOP_OF_RAW=of_raw)
