"""The drafts of requests as a tree: node 0 is the end of the sequence so far, node i the i-th draft; as core/verify.h.

Every node has a slot. A first launch finds out which nodes a request may come to, and what leads on from them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from . import arithmetic as n
from .arguments import Place, of_row, only_row, pointer_of
from .edits import LIST, all_of, is_valid, length_of, reads_history, within
from .filters import filter_of

COUPLED, REJECTION, POINT_MASS, BLOCK, GREEDY = (tl.constexpr(i) for i in range(5))
MIXED = tl.constexpr(-1)  # a method of each request
STEPS = tl.constexpr(1 << 24)

# What is known of a slot, each in an array of its own. First, before any row is read: how many drafts lead to the node,
# negative if nothing comes of it; its first draft, the same if it needs the row that this was drawn from, and the next
# draft of its parent, negative if there is none.
DEPTH, FIRST, DRAWN_FROM, NEXT = (tl.constexpr(i) for i in range(4))
# Then its outcome: the token, negative if its row has none, the draft that was accepted, and what is said of the token.
TOKEN, ACCEPTED, LOGPROB, RAW_LOGPROB = (tl.constexpr(i) for i in range(4, 8))
# Of a draft that was rejected, as in core/verify.h.
SCALE, UNIT = tl.constexpr(8), tl.constexpr(9)
FIELDS = tl.constexpr(30)  # with the two distributions of distributions.py


class Drafts(NamedTuple):
    tokens: Any
    method: Any
    step: Any
    first_child: Any  # None for a chain
    next_sibling: Any
    offsets: Any  # where requests have rows of their own
    nodes: Any  # of a request
    slots: Any  # of all
    known: Any  # int32 [FIELDS, slots]
    end: Any = None


@triton.jit
def known(drafts, slot, which: tl.constexpr):
    return tl.load(drafts.known + which * drafts.slots + slot)


@triton.jit
def know(drafts, slot, which: tl.constexpr, value):
    tl.store(drafts.known + which * drafts.slots + slot, value)


@triton.jit
def known_number(drafts, slot, which: tl.constexpr):
    return n.float_of(known(drafts, slot, which))


@triton.jit
def know_number(drafts, slot, which: tl.constexpr, value):
    know(drafts, slot, which, n.bits_of(value).to(tl.int32, bitcast=True))


@triton.jit
def method_of(drafts, at, METHOD: tl.constexpr):
    return of_row(drafts.method, at, METHOD, tl.int32)


@triton.jit
def token_of(drafts, request, node):
    return tl.load(drafts.tokens.data + request * drafts.tokens.stride + node - 1).to(tl.int32)


@triton.jit
def rows_of_request(drafts, request):
    """The first of a request's rows, and the first after them."""
    if drafts.offsets is not None:
        offset = drafts.offsets.data + request * drafts.offsets.stride
        return tl.load(offset).to(tl.int64), tl.load(offset + drafts.offsets.stride).to(tl.int64)
    else:
        return tl.full([], 0, tl.int64), tl.zeros([], tl.int64) + drafts.nodes


@triton.jit
def place_of(drafts, slot):
    """The place of a node that something may come of."""
    request = slot // drafts.nodes
    first_row, _ = rows_of_request(drafts, request)
    return Place(request, slot, first_row + slot - request * drafts.nodes, known(drafts, slot, DEPTH))


@triton.jit
def place_of_drafted(drafts, slot):
    """The place of the row that the drafts of a node were drawn from."""
    request = slot // drafts.nodes
    return Place(request, slot, slot - request * drafts.nodes, tl.full([], 0, tl.int32))


# ---- before any row is read


@triton.jit
def link_of(links, request, node, mask):
    return tl.load(links.data + request * links.stride + node, mask=mask, other=-1)


@triton.jit
def leads_on(to, node, drafts):
    return (to == -1) | ((to > node) & (to < drafts.nodes))


@triton.jit
def nodes_are_valid(drafts, request, rows, V):
    """Whether all drafts are tokens, those with a row at least, and all links lead on, no two to the same node."""
    valid = tl.full([LIST], True, tl.int1)
    for start in range(0, drafts.nodes, LIST):
        node = start + tl.arange(0, LIST)
        exists = node < drafts.nodes
        to = drafts.tokens.data + request * drafts.tokens.stride + node - 1
        id = tl.load(to, mask=exists & (node > 0), other=-1)
        valid &= (id >= -1) & (id < V) & ((node < rows) | (id < 0))
        if drafts.first_child is not None:
            sibling = link_of(drafts.next_sibling, request, node, exists)
            valid &= leads_on(link_of(drafts.first_child, request, node, exists), node, drafts)
            valid &= leads_on(sibling, node, drafts) & ((node > 0) | (sibling == -1))
    if drafts.first_child is not None:
        for node in range(1, drafts.nodes):
            links = tl.zeros([LIST], tl.int32)
            for start in range(0, node, LIST):
                before = start + tl.arange(0, LIST)
                links += (link_of(drafts.first_child, request, before, before < node) == node).to(tl.int32)
                links += (link_of(drafts.next_sibling, request, before, before < node) == node).to(tl.int32)
            valid &= tl.sum(links, 0) <= 1
    return all_of(valid)


@triton.jit
def request_is_valid(drafts, inputs, draft_logits, drafted_by, at, rows_given, V, METHOD: tl.constexpr):
    rule = method_of(drafts, at, METHOD)
    valid = within(rule, COUPLED, GREEDY) & filter_of(inputs, at).valid & is_valid(inputs, at, V)
    compares = (rule != REJECTION) & (rule != BLOCK)
    if draft_logits is None:
        valid &= compares
    else:
        valid &= compares | filter_of(drafted_by, at).valid
    if drafts.first_child is not None:
        valid &= rule != BLOCK
    step = of_row(drafts.step, at, 0, tl.int64)
    valid &= (step >= 0) & (step < STEPS)
    begin, end = rows_of_request(drafts, at.request)
    rows = end - begin
    valid &= (begin >= 0) & (end <= rows_given) & (rows >= 1) & (rows <= drafts.nodes)
    return valid & nodes_are_valid(drafts, at.request, rows, V)


@triton.jit
def real(drafts, request, node):
    """A draft, or the next one of its parent that is a token; -1 if none is."""
    missing = False
    if node >= 0:
        missing = token_of(drafts, request, node) < 0
    while missing:
        missing = False
        if drafts.next_sibling is None:
            node = tl.zeros_like(node) - 1
        else:
            node = link_of(drafts.next_sibling, request, node, True)
            if node >= 0:
                missing = token_of(drafts, request, node) < 0
    return node


@triton.jit
def parent_of(drafts, request, node):
    """The node whose draft this is; -1 if nothing leads to it."""
    if drafts.first_child is None:
        return node - 1
    else:
        parent = tl.zeros_like(node) - 1
        while node > 0:
            child_of, sibling_of = tl.zeros_like(node) - 1, tl.zeros_like(node) - 1
            for start in range(0, node, LIST):
                before = start + tl.arange(0, LIST)
                child = link_of(drafts.first_child, request, before, before < node)
                sibling = link_of(drafts.next_sibling, request, before, before < node)
                child_of = tl.maximum(child_of, tl.max(tl.where(child == node, before, -1), 0))
                sibling_of = tl.maximum(sibling_of, tl.max(tl.where(sibling == node, before, -1), 0))
            parent, node = child_of, sibling_of
        return parent


@triton.jit
def depth_of(drafts, request, node):
    """How many drafts lead to a node; -1 if none do, or one of them is no token."""
    depth = tl.zeros_like(node)
    while node > 0:
        depth += 1
        is_token = token_of(drafts, request, node) >= 0
        node = tl.where(is_token, parent_of(drafts, request, node), -1)
    return tl.where(node == 0, depth, -1)


@triton.jit
def write_history(drafts, inputs, histories, at, slot, node, depth):
    """What a node's penalties read: the history of its request, then the drafts that lead to it."""
    if reads_history(inputs, at):
        length = length_of(inputs, at)
        read, write = pointer_of(inputs.history, at), histories.data + slot * histories.stride
        for start in range(0, length, LIST):
            i = start + tl.arange(0, LIST)
            tl.store(write + i, tl.load(read + i, mask=i < length, other=0), mask=i < length)
        place = length + depth
        while node > 0:
            place -= 1
            tl.store(write + place, token_of(drafts, at.request, node))
            node = parent_of(drafts, at.request, node)


@triton.jit
def drafts_kernel(drafts, inputs, draft_logits, drafted_by, histories, rows_given, V, METHOD: tl.constexpr):
    """What is known of a slot before any row is read."""
    slot = tl.program_id(0).to(tl.int64)
    at = only_row(slot // drafts.nodes)
    request = at.request
    node = (slot - request * drafts.nodes).to(tl.int32)
    begin, end = rows_of_request(drafts, request)
    depth = tl.full([], -1, tl.int32)
    if request_is_valid(drafts, inputs, draft_logits, drafted_by, at, rows_given, V, METHOD):
        if node < end - begin:
            depth = depth_of(drafts, request, node)
        if depth >= 0:
            first = tl.full([], -1, tl.int32)
            if drafts.first_child is not None:
                first = link_of(drafts.first_child, request, node, True)
                know(drafts, slot, NEXT, real(drafts, request, link_of(drafts.next_sibling, request, node, True)))
            else:
                first = tl.where(node + 1 < drafts.nodes, node + 1, -1)
                know(drafts, slot, NEXT, -1)
            first = real(drafts, request, first)
            know(drafts, slot, FIRST, first)
            rule = method_of(drafts, at, METHOD)
            know(drafts, slot, DRAWN_FROM, tl.where((rule == REJECTION) | (rule == BLOCK), first, -1))
            if histories is not None:
                write_history(drafts, inputs, histories, at, slot, node, depth)
    know(drafts, slot, DEPTH, depth)
