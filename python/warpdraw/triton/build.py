"""Building an overlay: each program the part for its tiles, while others build theirs."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from . import arithmetic as n
from .arguments import of_row, pointer_of
from .edits import LIST, History, any_of, counts_tokens, history_of, items_of, size_of, stops_are_banned
from .overlay import FIELDS, Overlay, bit_of, load_logit, overlay_of, place_of, popcount, store_logit

NEVER = tl.constexpr(2147483647)

# What an entry holds, each in an array of its own: its logit, as bits, edited in the end; the places in the list of
# biases of the next one to add and of the last that was added; what the history and the bans say.
LOGIT, NEXT_BIAS, LAST_BIAS = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
IN_HISTORY, IN_OUTPUT, COPIED, BANNED = tl.constexpr(3), tl.constexpr(4), tl.constexpr(5), tl.constexpr(6)


class Part(NamedTuple):
    """What one program builds: for the tokens from `begin` to before `end`. The row has room for `most` entries."""

    begin: Any
    end: Any
    overlay: Overlay
    most: Any


@triton.jit
def build(inputs, at, V, vocab, logits, room, first, CHUNK: tl.constexpr):
    """The part for CHUNK tiles from `first` on. The lists and parameters may be anything: the memory is safe."""
    overlay = overlay_of(inputs, at, V, room)
    most = size_of(inputs.bias_ids) + size_of(inputs.banned_ids) + size_of(inputs.stop_ids) + size_of(inputs.history)
    begin = first * 64
    part = Part(begin, tl.minimum(begin + CHUNK * 64, vocab), overlay, most)
    word = first * 2 + tl.arange(0, CHUNK * 2)
    exists = word < (V + 63) // 64 * 2
    if inputs.allowed_ids is not None:
        restrict(inputs, at, part, word, exists)
    if overlay.edited.dtype.is_ptr():
        edit(inputs, at, part, word, exists, logits)


@triton.jit
def is_mine(part, id):
    return (id >= part.begin) & (id < part.end)


@triton.jit
def set_bit(words, id, mask):
    tl.atomic_or(words + (id >> 5), 1 << (id & 31), mask=mask, sem="relaxed")


@triton.jit
def restrict(inputs, at, part, word, exists):
    """Allows what the list and the bitmask do. A list without an id allows all."""
    ids = pointer_of(inputs.allowed_ids, at)
    size = inputs.allowed_ids.size
    restricted = tl.zeros([LIST], tl.int1)
    for start in range(0, size, LIST):
        _, id = items_of(ids, start, size)
        restricted |= id >= 0
    allowed = part.overlay.allowed + word
    tl.store(allowed, tl.zeros_like(word) + tl.where(any_of(restricted), 0, -1), mask=exists)
    tl.debug_barrier()
    for start in range(0, size, LIST):
        _, id = items_of(ids, start, size)
        set_bit(part.overlay.allowed, id, is_mine(part, id))
    tl.debug_barrier()
    if inputs.bitmask is not None:
        bits = tl.load(pointer_of(inputs.bitmask, at) + word, mask=exists & (word < inputs.bitmask.size), other=0)
        tl.store(allowed, bits & tl.load(allowed, mask=exists, other=0), mask=exists)
        tl.debug_barrier()


@triton.jit
def edit(inputs, at, part, word, exists, logits):
    tl.store(part.overlay.edited + word, 0, mask=exists)
    tl.debug_barrier()
    # Parts have disjoint places: no more tokens can be before this one's than the lists name.
    base = tl.full([], 0, tl.int32)
    if inputs.bias_ids is not None:
        base += mark(part, pointer_of(inputs.bias_ids, at), inputs.bias_ids.size)
    if inputs.banned_ids is not None:
        base += mark(part, pointer_of(inputs.banned_ids, at), inputs.banned_ids.size)
    if inputs.stop_ids is not None:
        stops = tl.where(stops_are_banned(inputs, at), inputs.stop_ids.size, 0)
        base += mark(part, pointer_of(inputs.stop_ids, at), stops)
    if inputs.history is not None:
        history = history_of(inputs, at)
        base += mark(part, history.data, history.size)
    tl.debug_barrier()
    counts = popcount(tl.load(part.overlay.edited + word, mask=exists, other=0))
    tl.store(part.overlay.before + word, base + tl.cumsum(counts, 0) - counts, mask=exists)
    tl.debug_barrier()
    end = base + tl.sum(counts, 0)
    if end > base:
        start_entries(part, base, end, logits)
        if inputs.bias_ids is not None:
            add_biases(part, pointer_of(inputs.bias_ids, at), pointer_of(inputs.bias, at), inputs.bias_ids.size)
        if inputs.history is not None:
            read_history(inputs, at, part, history)
        if inputs.banned_ids is not None:
            ban(part, pointer_of(inputs.banned_ids, at), inputs.banned_ids.size)
        if inputs.stop_ids is not None:
            ban(part, pointer_of(inputs.stop_ids, at), stops)
        tl.debug_barrier()
        finish_entries(inputs, at, part, base, end)
    tl.debug_barrier()


@triton.jit
def mark(part, ids, size):
    """Marks the part's tokens of a list. Returns how many of its items have lower ids."""
    lower = tl.zeros([LIST], tl.int32)
    for start in range(0, size, LIST):
        _, id = items_of(ids, start, size)
        lower += ((id >= 0) & (id < part.begin)).to(tl.int32)
        set_bit(part.overlay.edited, id, is_mine(part, id))
    return tl.sum(lower, 0)


@triton.jit
def field(part, which):
    return part.overlay.entries + which * part.most


@triton.jit
def start_entries(part, base, end, logits):
    for start in range(base, end, LIST):
        place = start + tl.arange(0, LIST)
        tl.store(field(part, NEXT_BIAS) + place, NEVER, mask=place < end)
        tl.store(field(part, LAST_BIAS) + place, -1, mask=place < end)
        for which in tl.static_range(IN_HISTORY, FIELDS):
            tl.store(field(part, which) + place, 0, mask=place < end)
    for start in range(part.begin, part.end, LIST):
        id = start + tl.arange(0, LIST)
        edited = bit_of(part.overlay.edited, id, id < part.end)
        x = n.to_float(tl.load(logits + id, mask=edited, other=0.0))
        if part.overlay.allowed.dtype.is_ptr():
            x = tl.where(bit_of(part.overlay.allowed, id, edited), x, -float("inf"))
        store_logit(part.overlay, place_of(part.overlay, id, edited), x, edited)
    tl.debug_barrier()


@triton.jit
def mine_of(part, ids, start, size):
    """Places in a list from `start` on, which of the tokens there are the part's, and where their entries are."""
    i, id = items_of(ids, start, size)
    mine = is_mine(part, id)
    return i, mine, place_of(part.overlay, id, mine)


@triton.jit
def line_up(part, ids, size):
    """Finds the next bias of each token that has one yet to add. Whether any has."""
    waits = tl.zeros([LIST], tl.int1)
    for start in range(0, size, LIST):
        i, mine, place = mine_of(part, ids, start, size)
        later = i > tl.load(field(part, LAST_BIAS) + place, mask=mine, other=NEVER)
        tl.atomic_min(field(part, NEXT_BIAS) + place, i, mask=later, sem="relaxed")
        waits |= later
    tl.debug_barrier()
    return any_of(waits)


@triton.jit
def add_biases(part, ids, biases, size):
    """Several of one token add up in their order, one in each round."""
    waits = line_up(part, ids, size)
    while waits:
        for start in range(0, size, LIST):
            i, mine, place = mine_of(part, ids, start, size)
            turn = i == tl.load(field(part, NEXT_BIAS) + place, mask=mine, other=NEVER)
            x = load_logit(part.overlay, place, turn) + tl.load(biases + i, mask=turn, other=0.0)
            store_logit(part.overlay, place, x, turn)
            tl.store(field(part, LAST_BIAS) + place, i, mask=turn)
            tl.store(field(part, NEXT_BIAS) + place, NEVER, mask=turn)
        tl.debug_barrier()
        waits = line_up(part, ids, size)


@triton.jit
def read_history(inputs, at, part, history):
    if counts_tokens(inputs, at):
        count_tokens(part, history, of_row(inputs.prompt_length, at, 0, tl.int32))
    if inputs.dry_multiplier is not None:
        copies = of_row(inputs.dry_multiplier, at, 0.0, tl.float32) > 0.0
        find_copies(part, History(history.data, tl.where(copies, history.size, 0)), inputs.dry_breakers, at)
    if inputs.no_repeat_ngram is not None:
        ngram = of_row(inputs.no_repeat_ngram, at, 0, tl.int32)
        if ngram > 0:
            ban_ngrams(part, history, ngram - 1)


@triton.jit
def count_tokens(part, history, prompt):
    for start in range(0, history.size, LIST):
        i, mine, place = mine_of(part, history.data, start, history.size)
        tl.store(field(part, IN_HISTORY) + place, 1, mask=mine)
        tl.atomic_add(field(part, IN_OUTPUT) + place, 1, mask=mine & (i >= prompt), sem="relaxed")


@triton.jit
def matches(history, j, most, going):
    """Where `going`: how many tokens before the end of the history are also those up to place j, at most `most`."""
    length = tl.zeros_like(j)
    step = tl.full([], 0, tl.int32)
    while any_of(going):
        going &= step < tl.minimum(most, j + 1)
        last = tl.load(history.data + history.size - 1 - step)
        going &= tl.load(history.data + j - step, mask=going, other=-1) == last
        step += 1
        length = tl.where(going, step, length)
    return length


@triton.jit
def is_none_of(id, table, at):
    other = id == id
    for i in range(0, size_of(table)):
        other &= id != tl.load(pointer_of(table, at) + i)
    return other


@triton.jit
def find_copies(part, history, breakers, at):
    """How much of the history's end stands before a token, at most; a breaker ends that."""
    limit = history.size
    if breakers is not None:
        last = tl.zeros([LIST], tl.int32)  # the place of a breaker, from 1
        for start in range(0, history.size, LIST):
            i, id = items_of(history.data, start, history.size)
            last = tl.where((i >= history.size) | is_none_of(id, breakers, at), last, i + 1)
        limit -= tl.max(last, 0)
    for start in range(1, history.size, LIST):
        i, mine, place = mine_of(part, history.data, start, history.size)
        if breakers is not None:
            mine &= is_none_of(tl.load(history.data + i, mask=mine, other=-1), breakers, at)
        tl.atomic_max(field(part, COPIED) + place, matches(history, i - 1, limit, mine), mask=mine, sem="relaxed")


@triton.jit
def ban_ngrams(part, history, shared):
    """Bans a token after the same `shared` tokens as are the last."""
    for start in range(0, history.size, LIST):
        i, mine, place = mine_of(part, history.data, start, history.size)
        mine &= i >= shared
        mine &= matches(history, i - 1, shared, mine) == shared
        tl.store(field(part, BANNED) + place, 1, mask=mine)


@triton.jit
def ban(part, ids, size):
    for start in range(0, size, LIST):
        _, mine, place = mine_of(part, ids, start, size)
        tl.store(field(part, BANNED) + place, 1, mask=mine)


@triton.jit
def dry_penalty(multiplier, base, extra):
    """m * b^extra, finite."""
    power = tl.full([], 1.0, tl.float32)
    reached = n.constant(1.0, extra.to(tl.float32))
    step = tl.full([], 0, tl.int32)
    most = tl.max(extra, 0)
    while (step < most) & (power < n.LARGEST) & (base > 1.0):
        power *= base
        step += 1
        reached = tl.where(extra >= step, power, reached)
    penalty = multiplier * tl.where(reached < n.LARGEST, reached, n.LARGEST)
    return tl.where(penalty < n.LARGEST, penalty, n.LARGEST)


@triton.jit
def finish_entries(inputs, at, part, base, end):
    repetition = of_row(inputs.repetition_penalty, at, 1.0, tl.float32)
    frequency = of_row(inputs.frequency_penalty, at, 0.0, tl.float32)
    presence = of_row(inputs.presence_penalty, at, 0.0, tl.float32)
    multiplier = of_row(inputs.dry_multiplier, at, 0.0, tl.float32)
    dry_base = of_row(inputs.dry_base, at, 1.75, tl.float32)
    dry_allowed = tl.maximum(of_row(inputs.dry_allowed_length, at, 2, tl.int32), 1)
    for start in range(base, end, LIST):
        place = start + tl.arange(0, LIST)
        exists = place < end
        x = load_logit(part.overlay, place, exists)
        if inputs.history is not None:
            if counts_tokens(inputs, at):
                in_history = tl.load(field(part, IN_HISTORY) + place, mask=exists, other=0) > 0
                repeated = tl.where(x > 0.0, tl.div_rn(x, n.constant(repetition, x)), x * repetition)
                x = tl.where(in_history, repeated, x)
                in_output = tl.load(field(part, IN_OUTPUT) + place, mask=exists, other=0)
                x = tl.where(in_output > 0, x - frequency * in_output.to(tl.float32) - presence, x)
            if multiplier > 0.0:
                extra = tl.load(field(part, COPIED) + place, mask=exists, other=0) - dry_allowed
                x = tl.where(extra >= 0, x - dry_penalty(multiplier, dry_base, extra), x)
        banned = tl.load(field(part, BANNED) + place, mask=exists, other=0) > 0
        store_logit(part.overlay, place, tl.where(banned, -float("inf"), x), exists)
