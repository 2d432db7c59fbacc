"""What restrictions, bias and penalties change of a row, kept beside it: a bitmap of the tokens, and an entry for each.

A program builds the part for its tiles, while others build theirs; the cost follows the lists and the history.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from . import arithmetic as n
from .arguments import pointer_of

FIELDS = tl.constexpr(7)  # that an entry has, each in an array of its own; the first is its logit, as bits


class Overlay(NamedTuple):
    """Where a row's is. What a call has no use for is a 0, not a pointer: in Triton 3.6 no function returns None."""

    allowed: Any  # a bit for each token that may be a candidate
    edited: Any  # a bit for each token that has an entry
    before: Any  # the place of the first entry of each word's tokens
    entries: Any


def _edited_by(inputs: Any) -> list[Any]:
    lists = (inputs.bias_ids, inputs.banned_ids, inputs.stop_ids, inputs.history)
    return [table for table in lists if table is not None]


def words_for(inputs: Any, vocab: int) -> int:
    """How many int32 an overlay takes."""
    words, lists = 2 * triton.cdiv(vocab, 64), _edited_by(inputs)
    edits = 2 * words + FIELDS.value * sum(table.size for table in lists) if lists else 0
    return int(edits + (words if inputs.allowed_ids is not None else 0))


@triton.jit
def no_overlay():
    nothing = tl.zeros([], tl.int32)
    return Overlay(nothing, nothing, nothing, nothing)


@triton.jit
def overlay_of(inputs, at, V, room):
    """Where the overlay of a row is, or will be."""
    words = (V + 63) // 64 * 2
    nothing = tl.zeros([], tl.int32)
    allowed = nothing
    if inputs.allowed_ids is not None:
        allowed = room
        room += words
    elif inputs.bitmask is not None:
        allowed = pointer_of(inputs.bitmask, at)
    if (
        (inputs.bias_ids is None)
        and (inputs.banned_ids is None)
        and (inputs.stop_ids is None)
        and (inputs.history is None)
    ):
        return Overlay(allowed, nothing, nothing, nothing)
    else:
        return Overlay(allowed, room, room + words, room + 2 * words)


@triton.jit
def bit_of(words, id, mask):
    """Whether the bits of tokens are set, where `mask` is."""
    return ((tl.load(words + (id >> 5), mask=mask, other=0) >> (id & 31).to(tl.int32)) & 1) != 0


@triton.jit
def popcount(word):
    """How many bits are set: counted in pairs, in fours, in bytes."""
    v = word.to(tl.uint32, bitcast=True)
    v -= (v >> 1) & 0x55555555
    v = (v & 0x33333333) + ((v >> 2) & 0x33333333)
    return ((((v + (v >> 4)) & 0x0F0F0F0F) * 0x01010101) >> 24).to(tl.int32)


@triton.jit
def place_of(overlay, id, mask):
    """Where the entries of tokens are; they have one where `mask` is set."""
    below = ~(tl.full([], -1, tl.int32) << (id & 31).to(tl.int32))
    edited = tl.load(overlay.edited + (id >> 5), mask=mask, other=0)
    return tl.load(overlay.before + (id >> 5), mask=mask, other=0) + popcount(edited & below)


@triton.jit
def load_logit(overlay, place, mask):
    return n.float_of(tl.load(overlay.entries + place, mask=mask, other=0))


@triton.jit
def store_logit(overlay, place, x, mask):
    tl.store(overlay.entries + place, n.bits_of(x).to(tl.int32, bitcast=True), mask=mask)


@triton.jit
def apply(overlay, x, id, mask):
    """Logits of tokens, as the overlay changes them, where `mask` is set."""
    if overlay.allowed.dtype.is_ptr():
        x = tl.where(bit_of(overlay.allowed, id, mask), x, -float("inf"))
    if overlay.edited.dtype.is_ptr():
        edited = bit_of(overlay.edited, id, mask)
        x = tl.where(edited, load_logit(overlay, place_of(overlay, id, edited), edited), x)
    return x
