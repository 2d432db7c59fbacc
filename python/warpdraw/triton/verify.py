"""verify: what comes of every node of the drafts, each by a program of its own; then the way that is taken."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..ops import verify as op
from . import overlay
from .arguments import Inputs, Nodes, Number, Table, argument, inputs_of, named, names_of, rows_of, store
from .block import block_kernel
from .distributions import (
    OF_DRAFTS,
    OF_TARGET,
    distribution_of,
    distributions_kernel,
    filter_at,
    kept,
    log_probability_of,
    raw_distribution,
)
from .drafts import (
    ACCEPTED,
    BLOCK,
    DEPTH,
    DRAWN_FROM,
    FIELDS,
    FIRST,
    LOGPROB,
    MIXED,
    NEXT,
    RAW_LOGPROB,
    REJECTION,
    TOKEN,
    Drafts,
    drafts_kernel,
    know,
    know_number,
    known,
    known_number,
    method_of,
    place_of,
    place_of_drafted,
    token_of,
)
from .launch import WARPS_OF_TILES, Kernel, launch
from .race import race
from .report import fill
from .residual import reject
from .rows import CHUNK, NONE, TILE, find_maxima, rooms_for, row_at

Outputs = names_of("Outputs", op.contract.outputs)
OF_HISTORY = (
    "repetition_penalty", "frequency_penalty", "presence_penalty", "dry_multiplier", "no_repeat_ngram",
)  # fmt: skip
OF_FILTER = ("temperature", "top_k", "top_p", "min_p")
WARPS_OF_DRAFTS = 1


@triton.jit
def maxima_kernel(drafts, target, inputs, rooms, draft_logits, drafted_by, draft_rooms, RAW: tl.constexpr):
    """Tiles of a node's row, or of the row that its drafts were drawn from."""
    slot, first = tl.program_id(0).to(tl.int64), tl.program_id(1) * CHUNK
    if known(drafts, slot, DEPTH) >= 0:
        if tl.program_id(2) == 0:
            find_maxima(target, inputs, rooms, place_of(drafts, slot), first, RAW)
        elif draft_logits is not None:
            if known(drafts, slot, DRAWN_FROM) >= 0:
                find_maxima(draft_logits, drafted_by, draft_rooms, place_of_drafted(drafts, slot), first, False)


@triton.jit
def draft_of(drafts, request, root, first, token):
    """The first draft in the list that is a token; -1 if none is."""
    draft, found = first, tl.zeros_like(first) - 1
    while draft >= 0:
        if token_of(drafts, request, draft) == token:
            found = draft
            draft = tl.zeros_like(draft) - 1
        else:
            draft = known(drafts, root + draft, NEXT)
    return found


@triton.jit
def nodes_kernel(
    drafts, target, inputs, rooms, draft_logits, drafted_by, draft_rooms, ORDER: tl.constexpr, METHOD: tl.constexpr,
    DISTINCT: tl.constexpr, WANTED: tl.constexpr, RAW: tl.constexpr,
):  # fmt: skip
    """What comes of a node, whether or not a request comes to it."""
    slot = tl.program_id(0).to(tl.int64)
    decides = known(drafts, slot, DEPTH) >= 0
    if decides:
        at = place_of(drafts, slot)
        rule = method_of(drafts, at, METHOD)
        if rule != BLOCK:
            first = known(drafts, slot, FIRST)
            flt = filter_at(drafts, inputs, at, METHOD)
            if draft_logits is None:
                p = distribution_of(row_at(target, inputs, rooms, at), inputs, flt, at, ORDER, WANTED)
            else:
                p = kept(drafts, slot, OF_TARGET, target, inputs, rooms, at)
            token, accepted = tl.full([], -1, tl.int32), tl.full([], -1, tl.int32)
            if p.row.x_max >= NONE:
                draws = True
                if draft_logits is not None:
                    draws = known(drafts, slot, DRAWN_FROM) < 0
                if draws:
                    token, _ = race(p.row, p.interval, p.highest, p.scale, flt.seed, flt.position)
                    accepted = draft_of(drafts, at.request, slot - slot % drafts.nodes, first, token)
                elif draft_logits is not None:
                    at_q = place_of_drafted(drafts, slot)
                    q = kept(drafts, slot, OF_DRAFTS, draft_logits, drafted_by, draft_rooms, at_q)
                    token, accepted = reject(drafts, at, p, q, flt, first, DISTINCT)
                if WANTED:
                    know_number(drafts, slot, LOGPROB, log_probability_of(p, token))
                if RAW:
                    raw = raw_distribution(target, rooms, at)
                    know_number(drafts, slot, RAW_LOGPROB, log_probability_of(raw, token))
            know(drafts, slot, TOKEN, token)
            know(drafts, slot, ACCEPTED, accepted)


@triton.jit
def store_at(table, row, place, value):
    """An entry of an output that may not be wanted."""
    if table is not None:
        tl.store(table.data + row * table.stride + place, value)


@triton.jit
def way_kernel(drafts, outputs):
    """From the root of a request's drafts along what was accepted."""
    b = tl.program_id(0).to(tl.int64)
    root = b * drafts.nodes
    place, node = tl.full([], 0, tl.int32), tl.full([], 0, tl.int32)
    bonus = tl.full([], False, tl.int1)
    valid = known(drafts, root, DEPTH) >= 0
    going = valid
    while going:
        slot = root + node
        token = known(drafts, slot, TOKEN)
        valid = token >= 0
        going = valid
        if valid:
            store_at(outputs.tokens, b, place, token)
            store_at(outputs.nodes, b, place, node)
            if outputs.logprob is not None:
                store_at(outputs.logprob, b, place, known_number(drafts, slot, LOGPROB))
            if outputs.raw_logprob is not None:
                store_at(outputs.raw_logprob, b, place, known_number(drafts, slot, RAW_LOGPROB))
            place += 1
            bonus = known(drafts, slot, FIRST) < 0
            node = known(drafts, slot, ACCEPTED)
            going = node >= 0
    store(outputs.accepted, b, tl.where(valid, place - 1, place))
    store(outputs.valid, b, valid)
    store(outputs.bonus, b, valid & bonus)
    fill(outputs.tokens, b, place, -1)
    fill(outputs.nodes, b, place, -1)
    fill(outputs.logprob, b, place, -float("inf"))
    fill(outputs.raw_logprob, b, place, -float("inf"))


def in_requests(rows: Tensor | None, offsets: Tensor | None) -> Any:
    """Rows of logits or of a bitmask by request, where these may have offsets."""
    if rows is None or offsets is None:
        return rows_of(rows)
    return Nodes(rows, 0, rows.stride(0), rows.shape[1])


@Kernel
def verify(*bound: Any) -> None:
    call = named(op.contract, bound)
    specs = {spec.name: spec for spec in op.contract.inputs}

    def given(name: str) -> Any:
        return argument(specs[name], call[name])

    tokens, offsets, logits = call["draft_tokens"], call["offsets"], call["target_logits"]
    requests, nodes, V = tokens.shape[0], tokens.shape[1] + 1, logits.shape[-1]
    slots = requests * nodes
    if slots == 0:
        return
    device = logits.device
    method = MIXED.value if isinstance(call["method"], Tensor) else call["method"]
    drafts = Drafts(
        rows_of(tokens), given("method"), given("step"), given("first_child"), given("next_sibling"), given("offsets"),
        nodes, slots, torch.empty(FIELDS.value, slots, dtype=torch.int32, device=device),
    )  # fmt: skip
    target = in_requests(logits, offsets)
    needed = method in (REJECTION.value, BLOCK.value, MIXED.value)
    draft_logits = rows_of(call["draft_logits"]) if needed else None
    drafted_by, draft_rooms = None, None
    if draft_logits is not None:
        nothing = Inputs(*[None] * len(Inputs._fields))
        drafted_by = nothing._replace(**{name: given(f"draft_{name}") for name in OF_FILTER})
        draft_rooms = rooms_for(slots, V, 0, device)

    # What requests say, and what their nodes do: the bitmask is by node, and so is the history if anything reads it.
    of_requests = inputs_of(bound[3:])._replace(bitmask=in_requests(call["bitmask"], offsets))
    inputs, histories = of_requests, None
    if of_requests.history is not None:
        if any(getattr(inputs, name) is not None for name in OF_HISTORY):
            size = inputs.history.size + nodes - 1
            histories = Table(torch.empty(slots, size, dtype=torch.int32, device=device), size, size)
        lengths = inputs.history_length or Number(of_requests.history.size)
        inputs = inputs._replace(history=histories, history_length=lengths)
    rooms = rooms_for(slots, V, overlay.words_for(inputs, V), device)

    outputs = Outputs(*[rows_of(call[spec.name]) for spec in op.contract.outputs])
    wanted, raw = outputs.logprob is not None, outputs.raw_logprob is not None
    rows_given = nodes if offsets is None else logits.shape[0]
    common = {"METHOD": method, "WANTED": wanted, "RAW": raw}
    rows = (drafts, target, inputs, rooms, draft_logits, drafted_by, draft_rooms)
    launch(
        drafts_kernel, (slots,), drafts, of_requests, draft_logits, drafted_by, histories, rows_given, V,
        METHOD=method, warps=WARPS_OF_TILES,
    )  # fmt: skip
    chunks = triton.cdiv(triton.cdiv(V, TILE.value), CHUNK.value)
    grid = (slots, chunks, 1 if draft_logits is None else 2)
    launch(maxima_kernel, grid, *rows, RAW=raw, warps=WARPS_OF_TILES)
    if draft_logits is not None:
        launch(distributions_kernel, (slots, 2), *rows, ORDER=call["order"], METHOD=method)
    if method != BLOCK.value:
        distinct = op.contract.word("siblings", call["siblings"]) == "distinct"
        launch(nodes_kernel, (slots,), *rows, ORDER=call["order"], DISTINCT=distinct, **common)
    if draft_logits is not None and method in (BLOCK.value, MIXED.value) and drafts.first_child is None:
        launch(block_kernel, (requests,), *rows, **common)
    launch(way_kernel, (requests,), drafts, outputs, warps=WARPS_OF_DRAFTS)
