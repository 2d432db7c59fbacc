"""filter_logits and filter_probs: what the filters keep, then one pass that writes the row."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from ..ops import filter_logits as logits_op
from ..ops import filter_probs as probs_op
from . import arithmetic as n
from .arguments import inputs_of, named, rows_of
from .edits import is_valid
from .filters import chain, filter_of
from .launch import Kernel, run_rows
from .report import fill
from .rows import CHUNK, NONE, keeps, mark, read_tiles, row_of
from .sums import highest_kept, mass_kept


@triton.jit
def filter_kernel(logits, inputs, out, rooms, ORDER: tl.constexpr, PROBABILITIES: tl.constexpr):
    b = tl.program_id(0).to(tl.int64)
    flt = filter_of(inputs, b)
    row = row_of(logits, inputs, rooms, b)
    valid = flt.valid & (row.x_max >= NONE)
    if is_valid(inputs, b, logits.size) & valid:
        kept, _ = chain(row, inputs, flt, b, ORDER)
        interval, scale = kept.interval, kept.scale
        if PROBABILITIES:
            highest = highest_kept(row, interval)
            total = mass_kept(row, highest, scale, interval)
        for start in range(0, row.tiles, CHUNK):
            tile = start + tl.arange(0, CHUNK)
            x, id = read_tiles(row.logits, row.vocab, row.overlay, tile, tile < row.tiles)
            x = mark(x, row.marks)
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
