"""Attention of single positions over a cache, many rows to a call, with the same bits in any batch and slot (CPU)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

PLACES = 64
"""A position's attention reads whole blocks of this many places, those that it may not see masked."""

# Rows in slots that are not neighbours share a call, with the slots between, while these have at most so many numbers.
GAP_NUMBERS = 24576


@dataclass
class _Call:
    """Rows in slots first .. last that read the same places; `mask` [rows, 1, 1, places] is what each of them sees."""

    first: int
    last: int
    places: slice
    mask: Tensor
    rows: list[int]  # one for each slot, or several of one slot


@dataclass
class Plan:
    """How positions of slots are attended to in few calls; `order` says where in their results each row is found."""

    calls: list[_Call]
    queries: Tensor | None  # rows in the order of the calls; None where that is their own
    order: Tensor | None


def plan_of(rows: Sequence[tuple[int, int]], window: int | None, numbers: int, dtype: torch.dtype) -> Plan:
    """A plan for rows of one (slot, position) each. `numbers` are those of a place: kv_heads x D.

    What a row reads follows from its position alone, whatever the others are: so its result does, too, because each
    row and head of a call is computed by itself.
    """
    groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for row, (slot, position) in enumerate(rows):
        start = 0 if window is None else max(0, position + 1 - window) // PLACES * PLACES
        end = -(-(position + 1) // PLACES) * PLACES
        groups.setdefault((start, end), []).append((slot, row))
    calls = []
    for (start, end), members in groups.items():
        gap = GAP_NUMBERS // (numbers * (end - start)) + 1
        for first, last, found in _runs(sorted(members), gap):
            positions = torch.tensor([[rows[row][1]] for row in found])
            place = torch.arange(start, end)
            # seen(i, j) = j <= i and j > i - window, for a row's position i and places j
            seen = place <= positions
            if window is not None:
                seen &= place > positions - window
            mask = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, -torch.inf)[:, None, None]
            calls.append(_Call(first, last, slice(start, end), mask, found))
    taken = [row for call in calls for row in call.rows]
    if taken == list(range(len(rows))):
        return Plan(calls, None, None)
    at = {row: place for place, row in reversed(list(enumerate(taken)))}
    return Plan(calls, torch.tensor(taken), torch.tensor([at[row] for row in range(len(rows))]))


def _runs(members: list[tuple[int, int]], gap: int) -> list[tuple[int, int, list[int]]]:
    """Slots that lie at most `gap` apart, each with its row, a slot between with the row before; or one slot's rows."""
    runs: list[tuple[int, int, list[int]]] = []
    for at, (slot, row) in enumerate(members):
        several = (at > 0 and members[at - 1][0] == slot) or (at + 1 < len(members) and members[at + 1][0] == slot)
        if runs:
            first, last, rows = runs[-1]
            alone = last - first + 1 == len(rows)  # a run of slots, not of positions
            if (several and first == last == slot) or (not several and alone and 0 < slot - last <= gap):
                rows += [rows[-1]] * (slot - last - 1) + [row]
                runs[-1] = first, slot, rows
                continue
        runs.append((slot, slot, [row]))
    return runs


def attend_rows(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    plan: Plan,
    mix: Callable[..., Tensor] = F.scaled_dot_product_attention,
    scale: float | None = None,
) -> Tensor:
    """Attention of query [B, T, H, D] over cached keys and values [slots, kv_heads, places, D], as planned.

    The heads of a group stand side by side as the query's sequence. `mix` is the attention of one call, with the
    arguments of `scaled_dot_product_attention`; what it gives a row must not depend on the other rows.
    """
    grouped = query.view(-1, keys.shape[1], query.shape[2] // keys.shape[1], query.shape[3])
    if plan.queries is not None:
        grouped = grouped[plan.queries]
    mixed, at = [], 0
    for call in plan.calls:
        count = len(call.rows)
        part = grouped if len(plan.calls) == 1 else grouped[at : at + count]
        seen = slice(call.first, call.last + 1)
        key, value = keys[seen, :, call.places], values[seen, :, call.places]
        if call.first == call.last and count > 1:
            key, value = key.expand(count, -1, -1, -1), value.expand(count, -1, -1, -1)
        mixed.append(mix(part, key, value, call.mask, scale=scale))
        at += count
    out = mixed[0] if len(mixed) == 1 else torch.cat(mixed)
    return (out if plan.order is None else out[plan.order]).view_as(query)
