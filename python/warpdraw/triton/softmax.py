"""softmax and log_softmax: the mass of the row, then one pass that writes it."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from ..ops import softmax as op
from . import arithmetic as n
from .arguments import Inputs, argument, named, rows_of
from .filters import begin, first_token
from .launch import Kernel, run_rows
from .report import fill
from .rows import CHUNK, everything, keeps, read_chunk
from .sums import mass_kept


@triton.jit
def softmax_kernel(logits, inputs, out, rooms, LOG: tl.constexpr):
    at, flt, row, valid = begin(logits, inputs, rooms)
    b = at.request
    if valid:
        interval = everything()
        if flt.greedy:
            interval = first_token(row)
        total = mass_kept(row, row.x_max, flt.scale, interval)
        for start in range(0, row.tiles, CHUNK):
            x, id = read_chunk(row, start)
            t = n.exponent(x, row.x_max, flt.scale)
            if LOG:
                value = tl.where(keeps(interval, x, id), n.log_probability(t, total), -float("inf"))
            else:
                value = tl.where(keeps(interval, x, id), n.probability(t, total), 0.0)
            tl.store(out.data + b * out.stride + id, value, mask=id < logits.size)
    else:
        fill(out, b, 0, float("nan"))


def run(bound: tuple[Any, ...], log: bool) -> None:
    call = named(op.contract, bound)
    _, temperature = op.contract.inputs
    nothing = Inputs(*[None] * len(Inputs._fields))
    inputs = nothing._replace(temperature=argument(temperature, call["temperature"]))
    run_rows(softmax_kernel, call["logits"], inputs, rows_of(call["out"]), LOG=log)


@Kernel
def softmax(*bound: Any) -> None:
    run(bound, log=False)


@Kernel
def log_softmax(*bound: Any) -> None:
    run(bound, log=True)
