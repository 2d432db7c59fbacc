"""What a row's parameters say of its restrictions, bias and penalties, and whether they may be so: as core/edits.h."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from . import arithmetic as n
from .arguments import of_row, pointer_of

LIST = tl.constexpr(512)  # items of a list, or entries, that are looked at together


class History(NamedTuple):
    """The tokens that count, if anything reads them."""

    data: Any
    size: Any


@triton.jit
def any_of(flags):
    return tl.max(flags.to(tl.int32), 0) > 0


@triton.jit
def all_of(flags):
    return tl.min(flags.to(tl.int32), 0) > 0


@triton.jit
def size_of(table):
    if table is None:
        return 0
    else:
        return table.size


@triton.jit
def items_of(ids, start, size):
    """Places in a list from `start` on, and what is there: -1 beyond its end."""
    i = start + tl.arange(0, LIST)
    return i, tl.load(ids + i, mask=i < size, other=-1)


@triton.jit
def vocab_of(inputs, at, V):
    """The ids from here on are no candidates; 0 if the row has fewer logits or too short a bitmask."""
    vocab = of_row(inputs.vocab_size, at, 0, tl.int32)
    vocab = tl.where(vocab == 0, V, tl.where((vocab > 0) & (vocab <= V), vocab, 0)).to(tl.int32)
    if inputs.bitmask is not None:
        vocab = tl.where((vocab + 31) // 32 <= inputs.bitmask.size, vocab, 0)
    return vocab


@triton.jit
def counts_tokens(inputs, at):
    counts = of_row(inputs.repetition_penalty, at, 1.0, tl.float32) != 1.0
    counts |= of_row(inputs.frequency_penalty, at, 0.0, tl.float32) != 0.0
    return counts | (of_row(inputs.presence_penalty, at, 0.0, tl.float32) != 0.0)


@triton.jit
def length_of(inputs, at):
    """Of the history, as it is given, and the tokens of the request that come after it."""
    if inputs.history_length is not None:
        return of_row(inputs.history_length, at, 0, tl.int32) + at.depth
    else:
        return tl.full([], size_of(inputs.history), tl.int32)


@triton.jit
def reads_history(inputs, at):
    reads = counts_tokens(inputs, at) | (of_row(inputs.dry_multiplier, at, 0.0, tl.float32) > 0.0)
    return reads | (of_row(inputs.no_repeat_ngram, at, 0, tl.int32) > 0)


@triton.jit
def history_of(inputs, at):
    size = tl.minimum(tl.maximum(length_of(inputs, at), 0), inputs.history.size)
    return History(inputs.history.data + at.slot * inputs.history.stride, tl.where(reads_history(inputs, at), size, 0))


@triton.jit
def stops_are_banned(inputs, at):
    """Whether there are too few tokens yet."""
    output = length_of(inputs, at) - of_row(inputs.prompt_length, at, 0, tl.int32)
    return output < of_row(inputs.min_tokens, at, 0, tl.int32)


@triton.jit
def within(x, lowest, highest):
    return (x >= lowest) & (x <= highest)


@triton.jit
def ids_are_valid(ids, size, lowest, V):
    valid = tl.full([LIST], True, tl.int1)
    for start in range(0, size, LIST):
        i, id = items_of(ids, start, size)
        valid &= (i >= size) | within(id, lowest, V - 1)
    return all_of(valid)


@triton.jit
def list_is_valid(table, at, V):
    if table is None:
        return tl.full([], True, tl.int1)
    else:
        return ids_are_valid(pointer_of(table, at), table.size, -1, V)


@triton.jit
def biases_are_valid(inputs, at):
    valid = tl.full([LIST], True, tl.int1)
    for start in range(0, inputs.bias_ids.size, LIST):
        i, id = items_of(pointer_of(inputs.bias_ids, at), start, inputs.bias_ids.size)
        bias = tl.load(pointer_of(inputs.bias, at) + i, mask=id >= 0, other=0.0)
        valid &= bias == bias
    return all_of(valid)


@triton.jit
def is_valid(inputs, at, V):
    """Whether the parameters, lengths and lists of a row are what they may be."""
    valid = vocab_of(inputs, at, V) > 0
    repetition = of_row(inputs.repetition_penalty, at, 1.0, tl.float32)
    valid &= (repetition > 0.0) & (repetition <= n.LARGEST)
    valid &= within(of_row(inputs.frequency_penalty, at, 0.0, tl.float32), -n.LARGEST, n.LARGEST)
    valid &= within(of_row(inputs.presence_penalty, at, 0.0, tl.float32), -n.LARGEST, n.LARGEST)
    multiplier = of_row(inputs.dry_multiplier, at, 0.0, tl.float32)
    valid &= within(multiplier, 0.0, n.LARGEST)
    valid &= within(of_row(inputs.dry_base, at, 1.75, tl.float32), 1.0, n.LARGEST)
    valid &= of_row(inputs.dry_allowed_length, at, 2, tl.int32) >= 1
    valid &= of_row(inputs.no_repeat_ngram, at, 0, tl.int32) >= 0
    valid &= of_row(inputs.min_tokens, at, 0, tl.int32) >= 0
    length = length_of(inputs, at)
    valid &= within(length, 0, size_of(inputs.history))
    valid &= within(of_row(inputs.prompt_length, at, 0, tl.int32), 0, length)

    valid &= list_is_valid(inputs.allowed_ids, at, V) & list_is_valid(inputs.banned_ids, at, V)
    valid &= list_is_valid(inputs.stop_ids, at, V) & list_is_valid(inputs.bias_ids, at, V)
    if inputs.bias_ids is not None:
        valid &= biases_are_valid(inputs, at)
    if inputs.dry_multiplier is not None:
        valid &= (multiplier == 0.0) | list_is_valid(inputs.dry_breakers, at, V)
    if inputs.history is not None:
        history = history_of(inputs, at)
        valid &= ids_are_valid(history.data, history.size, 0, V)
    return valid
