"""Block verification: all drafts of a request are decided about together. A program per request, node after node."""

from __future__ import annotations

import triton
import triton.language as tl

from . import arithmetic as n
from .arguments import of_row
from .distributions import OF_DRAFTS, OF_TARGET, kept, log_probability_of, raw_distribution, unit_of, weight_of
from .drafts import (
    ACCEPTED,
    BLOCK,
    DEPTH,
    FIRST,
    LOGPROB,
    RAW_LOGPROB,
    SCALE,
    TOKEN,
    UNIT,
    know,
    know_number,
    known,
    method_of,
    place_of,
    place_of_drafted,
    token_of,
)
from .filters import filter_of
from .race import race
from .residual import Rejections, accept_bits, race_left, race_tiles
from .rows import NONE, sync


@triton.jit
def longer_prefix(prefix, p, q):
    """The probability that a prefix of drafts stands, one draft longer."""
    divisor = tl.where(q > 0.0, q, 1.0).to(tl.float64)
    longer = prefix * (p.to(tl.float64) / divisor)
    return tl.where(q > 0.0, tl.where(longer < 1.0, longer, 1.0), 0.0)


@triton.jit
def ends_block(r, prefix, residual):
    """Whether a prefix may be where the block ends, by the mass of the residual after it."""
    z = residual.to(tl.float64) * 9.094947017729282e-13
    return (prefix >= 1.0) | (n.uniform(r) * (z + 1.0 - prefix) < z)


@triton.jit
def block_kernel(
    drafts, target, inputs, rooms, draft_logits, drafted_by, draft_rooms,
    METHOD: tl.constexpr, WANTED: tl.constexpr, RAW: tl.constexpr,
):  # fmt: skip
    root = tl.program_id(0).to(tl.int64) * drafts.nodes
    going = known(drafts, root, DEPTH) >= 0
    node, end = tl.full([], 0, tl.int32), tl.full([], 0, tl.int32)
    prefix = tl.full([], 1.0, tl.float64)
    # Of the token after the drafts that stand so far.
    token = tl.full([], -1, tl.int32)
    logprob, raw_logprob = tl.full([], 0.0, tl.float32), tl.full([], 0.0, tl.float32)
    if going:
        going = method_of(drafts, place_of(drafts, root), METHOD) == BLOCK
    decides = going
    while going:
        slot = root + node
        at = place_of(drafts, slot)
        flt = filter_of(inputs, at)
        p = kept(drafts, slot, OF_TARGET, target, inputs, rooms, at)
        step = of_row(drafts.step, at, 0, tl.int64)
        bits = accept_bits(flt.seed, flt.position - 1, step, tl.full([], 0, tl.int32))
        draft = known(drafts, slot, FIRST)
        drafted, drawn = tl.full([], -1, tl.int32), tl.full([], -1, tl.int32)
        if draft < 0:
            if (node > 0) & (n.uniform(bits) < prefix):
                end = node
            if (end == node) & (p.row.x_max >= NONE):
                drawn, _ = race(p.row, p.interval, p.highest, p.scale, flt.seed, flt.position)
            going = False
        else:
            at_q = place_of_drafted(drafts, slot)
            q = kept(drafts, slot, OF_DRAFTS, draft_logits, drafted_by, draft_rooms, at_q)
            know_number(drafts, root + draft, SCALE, tl.full([], 1.0, tl.float32))
            know_number(drafts, root + draft, UNIT, unit_of(q.total))
            sync()
            unit = unit_of(p.total) * prefix.to(tl.float32)
            rejections = Rejections(draft, tl.full([], -1, tl.int32), at.request, root)
            left, tile = race_tiles(p, unit, q, drafts, rejections, flt.seed, flt.position, False)
            if (node > 0) & ends_block(bits, prefix, left):
                end = node
            if (end == node) & (p.row.x_max >= NONE):
                drawn = race_left(p, unit, q, drafts, rejections, left, tile, flt.seed, flt.position, False)
            drafted = token_of(drafts, at.request, draft)
            p_drafted = weight_of(p, drafted) * unit_of(p.total)
            prefix = longer_prefix(prefix, p_drafted, weight_of(q, drafted) * unit_of(q.total))
            # No longer one can stand where this one cannot.
            going = prefix > 0.0
        if RAW:
            raw = raw_distribution(target, rooms, at)
        if going:
            know(drafts, slot, TOKEN, drafted)
            if WANTED:
                know_number(drafts, slot, LOGPROB, log_probability_of(p, drafted))
            if RAW:
                know_number(drafts, slot, RAW_LOGPROB, log_probability_of(raw, drafted))
        if end == node:
            token = drawn
            if token >= 0:
                if WANTED:
                    logprob = log_probability_of(p, token)
                if RAW:
                    raw_logprob = log_probability_of(raw, token)
        node += 1
    if decides:
        for i in range(0, end):
            know(drafts, root + i, ACCEPTED, i + 1)
        sync()
        know(drafts, root + end, ACCEPTED, -1)
        know(drafts, root + end, TOKEN, token)
        know_number(drafts, root + end, LOGPROB, logprob)
        know_number(drafts, root + end, RAW_LOGPROB, raw_logprob)
