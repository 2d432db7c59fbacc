"""Mirostat: a filter that follows the surprise of the tokens drawn, so that its mean is what was asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .. import ops
from .place import Place

# The exponent of Zipf's law is estimated from so many of the most probable tokens.
LEADING = 100
# A flatter distribution than this has no exponent to speak of.
LEAST_EXPONENT = 1e-6


class Mirostat:
    """The filters of the mirostat rows of a batch (Basu et al. 2020, arXiv 2007.14966).

    Each row has a largest surprise mu, in bits, at first 2 tau. Version 2 drops the tokens whose surprise -log2 p is
    larger; version 1 keeps the k best, with k such that, by Zipf's law, the surprise of the last is mu. Both filters
    see what bans, penalties and the temperature leave, and keep a token. After each draw
    mu becomes mu - eta (surprise of the token - tau), where the surprise is in the model's own distribution.
    """

    def __init__(self, places: Sequence[Place], vocabulary: int) -> None:
        self._places, self._vocabulary = places, vocabulary
        self._rows = [row for row, place in enumerate(places) if place.params.mirostat]
        self._first = [row for row in self._rows if places[row].params.mirostat == 1]

    def filters(self, logits: Tensor, arguments: dict[str, Any]) -> dict[str, Tensor]:
        """The epsilon and top_k of all rows for the next draw from logits [B, V]."""
        epsilon = [place.params.epsilon for place in self._places]
        top_k = [place.params.top_k for place in self._places]
        for row in self._rows:
            if self._places[row].params.mirostat == 2:
                epsilon[row] = min(1.0, 2.0 ** -max(self._limit(row), 0.0))
        if self._first:
            for row, leading in zip(self._first, self._leading(logits, arguments), strict=True):
                top_k[row] = kept_tokens(leading, self._limit(row), self._vocabulary)
        return {
            "epsilon": torch.tensor(epsilon, dtype=torch.float32, device=logits.device),
            "top_k": torch.tensor(top_k, dtype=torch.int32, device=logits.device),
        }

    def follow(self, tokens: Sequence[int | None], raw_logprobs: Sequence[float]) -> None:
        """Learn from what was drawn for each row; before the places have taken it."""
        for row in self._rows:
            place, token = self._places[row], tokens[row]
            if token is not None:
                limit, surprise = self._limit(row), -raw_logprobs[row] / math.log(2)
                # mu' = mu - eta (S(x) - tau)
                after = limit - place.params.mirostat_eta * (surprise - place.params.mirostat_tau)
                place.limits[len(place.tokens) + 1 :] = [after]

    def _limit(self, row: int) -> float:
        """The mu of the next token of a row, which may have lost tokens since the last one."""
        place = self._places[row]
        if not place.limits:
            place.limits.append(2 * place.params.mirostat_tau)
        return place.limits[len(place.tokens)]

    def _leading(self, logits: Tensor, arguments: dict[str, Any]) -> list[list[float]]:
        """The log-probabilities of the most probable tokens of the rows of version 1."""
        rows = torch.tensor(self._first, device=logits.device)
        given = arguments | {"top_k": 0, "epsilon": 0.0}
        of_rows = {name: value[rows] if isinstance(value, Tensor) else value for name, value in given.items()}
        count = min(LEADING, logits.shape[1])
        best = ops.sample(logits[rows], **of_rows, top_n=count, top_of="filtered").top_logprobs
        return [[value for value in row if value > -math.inf] for row in best.tolist()]


def exponent(leading: Sequence[float]) -> float:
    """The exponent of Zipf's law p(i) ~ 1 / i^s that fits log-probabilities, the largest first, by least squares.

    >>> round(exponent([-1.2 * math.log(i) for i in range(1, 101)]), 6)
    1.2
    """
    # s = sum(t_i b_i) / sum(t_i^2), with t_i = log((i + 1) / i), b_i = log(p_i / p_(i+1)), i = 1 .. m - 1
    steps = [math.log((i + 1) / i) for i in range(1, len(leading))]
    falls = [one - other for one, other in pairwise(leading)]
    squares = math.fsum(step * step for step in steps)
    return math.fsum(step * fall for step, fall in zip(steps, falls, strict=True)) / squares if steps else math.inf


def kept_tokens(leading: Sequence[float], limit: float, vocabulary: int) -> int:
    """How many tokens version 1 keeps for a largest surprise `limit` in bits, from 1 to the vocabulary.

    >>> zipf = [-1.2 * math.log(i) for i in range(1, 101)]
    >>> [kept_tokens(zipf, limit, 50_000) for limit in (0, 4, 8, 100)]
    [1, 3, 29, 50000]
    """
    s = max(exponent(leading), LEAST_EXPONENT)
    if not math.isfinite(s):
        return 1
    # k = ((s - 1) 2^mu / (1 - N^(1 - s)))^(1 / s), as logarithms: a power may be too large for a float
    scale = math.log(vocabulary)
    ratio = 1 / scale if s == 1 else (s - 1) / -math.expm1((1 - s) * scale)
    log_k = (math.log(ratio) + limit * math.log(2)) / s
    return max(1, round(math.exp(min(max(log_k, 0.0), scale))))
