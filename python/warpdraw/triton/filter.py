"""filter_logits and filter_probs: what the filters keep, then one pass that writes the row."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from ..ops import filter_logits as logits_op
from ..ops import filter_probs as probs_op
from . import arithmetic as n
from .arguments import inputs_of, named, rows_of
from .filters import begin, chain
from .launch import Kernel, run_rows
from .report import fill
from .rows import CHUNK, keeps, read_chunk
from .sums import highest_kept, mass_kept


@triton.jit
def filter_kernel(logits, inputs, out, rooms, ORDER: tl.constexpr, PROBABILITIES: tl.constexpr):
    at, flt, row, valid = begin(logits, inputs, rooms)
    b = at.request
    if valid:
        interval, scale, _ = chain(row, inputs, flt, at, ORDER)
        if PROBABILITIES:
            highest = highest_kept(row, interval)
            total = mass_kept(row, highest, scale, interval)
        for start in range(0, row.tiles, CHUNK):
            x, id = read_chunk(row, start)
            kept_ids = keeps(interval, x, id)
            if PROBABILITIES:
                value = tl.where(kept_ids, n.probability(n.exponent(x, highest, scale), total), 0.0)
            else:
                # As it is in memory; out may be the logits themselves, and is written after they were read.
                value = tl.load(row.logits + id, mask=kept_ids, other=-float("inf"))
            tl.store(out.data + b * out.stride + id, value, mask=id < logits.size)
    elif PROBABILITIES:
        fill(out, b, 0, float("nan"))
    else:
        fill(out, b, 0, -float("inf"))


@Kernel
def filter_logits(*bound: Any) -> None:
    call = named(logits_op.contract, bound)
    out = rows_of(call["out"])
    run_rows(filter_kernel, call["logits"], inputs_of(bound), out, ORDER=call["order"], PROBABILITIES=False)


@Kernel
def filter_probs(*bound: Any) -> None:
    call = named(probs_op.contract, bound)
    out = rows_of(call["out"])
    run_rows(filter_kernel, call["logits"], inputs_of(bound), out, ORDER=call["order"], PROBABILITIES=True)
