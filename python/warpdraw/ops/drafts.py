"""Verification by definition in float64: one request after the other, from the root of its drafts, node by node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .arguments import PARAMETERS, Arguments, names_in
from .filters import kept_tokens
from .noise import uniforms
from .race import race

_PARAMETERS = names_in(PARAMETERS)
_DRAFTED_FROM = (
    "step",
    "offsets",
    "draft_temperature",
    "draft_top_k",
    "draft_top_p",
    "draft_min_p",
    "first_child",
    "next_sibling",
    "siblings",
)
_METHODS = ("coupled", "rejection", "point_mass", "block", "greedy")
_MOST_STEPS = 2**24


@dataclass(frozen=True)
class Verified:
    """What became of one request."""

    tokens: list[int]
    nodes: list[int]
    logprobs: list[float]
    raw_logprobs: list[float]
    accepted: int
    valid: bool
    bonus: bool


INVALID = Verified([], [], [], [], 0, False, False)


def reference(
    draft_tokens: Tensor, target_logits: Tensor, draft_logits: Tensor | None, method: Tensor | int, *others: Any
) -> tuple[Tensor, ...]:
    """The outputs of verify, from its inputs in the order of the contract."""
    *inputs, order = others
    names = (*_PARAMETERS, *_DRAFTED_FROM)
    call = _Call(draft_tokens, target_logits, draft_logits, method, dict(zip(names, inputs, strict=True)), order)
    verified = [_Request(call, b).verify() for b in range(draft_tokens.shape[0])]
    places = draft_tokens.shape[1] + 1

    def padded(name: str, filler: float, dtype: torch.dtype) -> Tensor:
        rows = [getattr(each, name) for each in verified]
        made = [row + [filler] * (places - len(row)) for row in rows]
        return torch.tensor(made, dtype=dtype, device=draft_tokens.device).view(len(rows), places)

    def each(name: str, dtype: torch.dtype) -> Tensor:
        return torch.tensor([getattr(one, name) for one in verified], dtype=dtype, device=draft_tokens.device)

    return (
        padded("tokens", -1, torch.int64),
        each("accepted", torch.int32),
        each("valid", torch.bool),
        each("bonus", torch.bool),
        padded("logprobs", -torch.inf, torch.float32),
        padded("raw_logprobs", -torch.inf, torch.float32),
        padded("nodes", -1, torch.int32),
    )


@dataclass(frozen=True)
class _Call:
    draft_tokens: Tensor
    target_logits: Tensor
    draft_logits: Tensor | None
    method: Tensor | int
    inputs: dict[str, Any]  # the others, by name
    order: str

    def of(self, name: str, b: int) -> Any:
        """A request's entry of a parameter."""
        return entry(self.inputs[name], b)


def entry(value: Any, b: int) -> Any:
    return value[b].item() if isinstance(value, Tensor) else value


class _Request:
    def __init__(self, call: _Call, b: int) -> None:
        self.call, self.b = call, b
        self.drafts: list[int] = call.draft_tokens[b].tolist()
        self.method = entry(call.method, b)
        offsets = call.inputs["offsets"]
        self.first_row = 0 if offsets is None else int(offsets[b])
        self.rows = len(self.drafts) + 1 if offsets is None else int(offsets[b + 1]) - self.first_row
        self.history: list[int] = []
        if (history := call.inputs["history"]) is not None:
            lengths = call.inputs["history_length"]
            length = history.shape[1] if lengths is None else int(lengths[b])
            self.history = history[b, : max(length, 0)].tolist()

    def verify(self) -> Verified:
        if not self.is_valid():
            return INVALID
        if _METHODS[self.method] == "block":
            return self.block()
        tokens: list[int] = []
        nodes = [0]
        while True:
            arguments = self.target(nodes[-1], tokens)
            p = _probabilities(arguments)
            if p is None:
                return self.result(tokens, nodes[:-1], False, False)
            rule = self.reject if _METHODS[self.method] == "rejection" else self.compare
            token, draft = rule(p, nodes[-1], len(tokens))
            tokens.append(token)
            if draft is None:
                return self.result(tokens, nodes, True, not self.children(nodes[-1]))
            nodes.append(draft)

    # What is drawn and which draft it is.

    def compare(self, p: Tensor, node: int, depth: int) -> tuple[int, int | None]:
        token = self.draw(p, depth)
        return token, next((draft for draft in self.children(node) if self.drafts[draft - 1] == token), None)

    def reject(self, p: Tensor, node: int, depth: int) -> tuple[int, int | None]:
        children = self.children(node)
        q = self.draft(node) if children else None
        if q is None:
            return self.draw(p, depth), None
        left = p
        for tried, draft in enumerate(children):
            token = self.drafts[draft - 1]
            if q[token] > 0 and self.uniform(depth, tried) * q[token] < left[token]:
                return token, draft
            rest = (left - q).clamp(min=0.0)
            if rest.sum() <= 0:
                return self.draw_rest(p, depth), None
            left = rest / rest.sum()
            if self.call.inputs["siblings"] == "distinct":
                q = q.index_fill(0, torch.tensor([token]), 0.0)
                q = q / q.sum() if q.sum() > 0 else q
        return self.draw_rest(left, depth), None

    def block(self) -> Verified:
        prefix, end = [1.0], 0
        tokens: list[int] = []
        targets: list[Tensor | None] = []
        drafted: list[Tensor | None] = []
        zero = torch.zeros(self.call.target_logits.shape[-1], dtype=torch.float64)
        while True:
            count = len(tokens)
            targets.append(_probabilities(self.target(count, tokens)))
            p = zero if targets[-1] is None else targets[-1]
            u = self.uniform(count - 1, 0) if count else 1.0
            children = self.children(count)
            if not children:
                end = count if u < prefix[-1] else end
                break
            drafted.append(self.draft(count))
            q = zero if drafted[-1] is None else drafted[-1]
            left = float((prefix[-1] * p - q).clamp(min=0.0).sum())
            if count and (prefix[-1] >= 1 or u * (left + 1 - prefix[-1]) < left):
                end = count
            token = self.drafts[count]
            prefix.append(min(1.0, prefix[-1] * float(p[token] / q[token])) if q[token] > 0 else 0.0)
            tokens.append(token)
        taken, last = tokens[:end], targets[end]
        if last is None:
            return self.result(taken, list(range(end)), False, False)
        if end == len(tokens):
            taken.append(self.draw(last, end))
        else:
            q_at_end = drafted[end]
            rest = (prefix[end] * last - (zero if q_at_end is None else q_at_end)).clamp(min=0.0)
            taken.append(self.draw_rest(rest if rest.sum() > 0 else last, end))
        return self.result(taken, list(range(end + 1)), True, end == len(tokens))

    # Noise

    def at(self, depth: int) -> tuple[Tensor, Tensor]:
        position = (self.call.of("position", self.b) + depth + 2**63) % 2**64 - 2**63
        return torch.tensor([self.call.of("seed", self.b)]), torch.tensor([position])

    def draw(self, p: Tensor, depth: int) -> int:
        return int(race(p[None], *self.at(depth)))

    def draw_rest(self, left: Tensor, depth: int) -> int:
        return int(race(left[None], *self.at(depth), "residual_tile", "residual_token"))

    def uniform(self, depth: int, tried: int) -> float:
        return float(uniforms(*self.at(depth), "accept", tried + 1, self.call.of("step", self.b))[0, tried])

    # The tree

    def link(self, name: str, node: int) -> int:
        links = self.call.inputs[name]
        if links is not None:
            return int(links[self.b, node])
        return node + 1 if name == "first_child" and node < len(self.drafts) else -1

    def children(self, node: int) -> list[int]:
        found, draft = [], self.link("first_child", node)
        while draft != -1:
            found.append(draft)
            draft = self.link("next_sibling", draft)
        return [draft for draft in found if self.drafts[draft - 1] != -1]

    # Rows

    def parameters(self) -> dict[str, Any]:
        given = {name: self.call.inputs[name] for name in _PARAMETERS}
        return {
            name: value[self.b : self.b + 1] if isinstance(value, Tensor) and name != "bitmask" else value
            for name, value in given.items()
        }

    def row(self, rows: Tensor, node: int) -> Tensor:
        return (rows[self.b, node] if rows.dim() == 3 else rows[self.first_row + node])[None]

    def target(self, node: int, tokens: list[int]) -> Arguments:
        """The row of a node: its bitmask, its position, and the drafts before it at the end of the history."""
        given = self.parameters()
        if given["bitmask"] is not None:
            given["bitmask"] = self.row(given["bitmask"], node)
        if given["history"] is not None:
            given["history"] = torch.tensor([self.history + tokens], dtype=torch.int32)
            given["history_length"] = None
        _, given["position"] = self.at(len(tokens))
        if _METHODS[self.method] == "greedy":
            given["top_k"] = 1
        return Arguments.of(self.row(self.call.target_logits, node), **given, order=self.call.order)

    def draft(self, node: int) -> Tensor | None:
        assert self.call.draft_logits is not None
        return _probabilities(self.drafted_from(self.row(self.call.draft_logits, node)))

    def drafted_from(self, row: Tensor) -> Arguments:
        names = ("temperature", "top_k", "top_p", "min_p")
        values = {name: self.call.of(f"draft_{name}", self.b) for name in names}
        return Arguments.of(row, **values, order=self.call.order)

    def is_valid(self) -> bool:
        V, K = self.call.target_logits.shape[-1], len(self.drafts)
        if not 0 <= self.method < len(_METHODS):
            return False
        if _METHODS[self.method] in ("rejection", "block"):
            if self.call.draft_logits is None or not self.drafted_from(self.row(self.call.draft_logits, 0)).valid():
                return False
            if _METHODS[self.method] == "block" and self.call.inputs["first_child"] is not None:
                return False
        if not 0 <= self.call.of("step", self.b) < _MOST_STEPS:
            return False
        rows_end = self.call.target_logits.shape[0] if self.call.inputs["offsets"] is not None else K + 1
        if not (self.first_row >= 0 and 1 <= self.rows <= K + 1 and self.first_row + self.rows <= rows_end):
            return False
        if any(not -1 <= token < V for token in self.drafts) or any(t != -1 for t in self.drafts[self.rows - 1 :]):
            return False
        return self.links_are_valid(K) and self.parameters_are_valid()

    def links_are_valid(self, K: int) -> bool:
        if self.call.inputs["first_child"] is None:
            return True
        links = [(node, self.link(name, node)) for name in ("first_child", "next_sibling") for node in range(K + 1)]
        led_to = [to for _, to in links if to != -1]
        forward = all(to == -1 or node < to <= K for node, to in links)
        return forward and len(set(led_to)) == len(led_to) and self.link("next_sibling", 0) == -1

    def parameters_are_valid(self) -> bool:
        given = self.parameters()
        if given["bitmask"] is not None:
            given["bitmask"] = self.row(given["bitmask"], 0)
        row = self.row(self.call.target_logits, 0)
        return bool(Arguments.of(row, **given, order=self.call.order).valid())

    def result(self, tokens: list[int], nodes: list[int], valid: bool, bonus: bool) -> Verified:
        accepted = len(tokens) - valid
        logprobs: list[float] = []
        raw: list[float] = []
        for place, (token, node) in enumerate(zip(tokens, nodes, strict=True)):
            p = _probabilities(self.target(node, tokens[:place]))
            plain = _probabilities(Arguments.of(self.row(self.call.target_logits, node)))
            for probabilities, found in ((p, logprobs), (plain, raw)):
                assert probabilities is not None
                found.append(float(probabilities[token].log()))
        return Verified(tokens, nodes, logprobs, raw, accepted, valid, bonus)


def _probabilities(arguments: Arguments) -> Tensor | None:
    """What a row's filters keep of it as probabilities [V]; None if that is nothing."""
    kept = kept_tokens(arguments)
    return kept.log_weights[0].softmax(-1) if kept.mask.any() else None
