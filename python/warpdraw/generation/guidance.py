"""Classifier-free guidance: logits that lead a text away from what another prompt would make of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import ops
from ..model.cache import KVCache
from ..model.transformer import Transformer
from .row import Row


def guided(logits: Tensor, away: Tensor, scale: Tensor) -> Tensor:
    """``u + scale (c - u)`` [B, V], c and u the log-probabilities of `logits` and `away` [B, V], scale [B].

    The text follows the prompt by scale > 1, ignores the negative one by 1, the other way round by 0
    (Sanchez et al. 2023, arXiv 2306.17806).

    >>> logits, away = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    >>> (guided(logits, away, torch.tensor([2.0])).diff() - -4.0).abs().item() < 1e-6
    True
    """
    conditional: Tensor = ops.log_softmax(logits)
    unconditional: Tensor = ops.log_softmax(away)
    return unconditional + scale[:, None] * (conditional - unconditional)


class Guidance:
    """The second slots of guided rows: what each of them is guided away from, and then the same text."""

    def __init__(self, model: Transformer, cache: KVCache, part: int) -> None:
        self._model, self._cache, self._part = model, cache, part
        self._device = model.embedding.weight.device

    def start(self, rows: Sequence[Row], logits: Tensor) -> Tensor:
        """The samples of a prompt start with logits [1, V]: those that guide their first token."""
        negative = rows[0].request.negative
        if negative is None:
            return logits
        first, *others = [row.negative_slot for row in rows]
        away = self._model.read(negative, self._cache, first, self._part)[:, -1]
        self._cache.copy(first, others)
        return guided(logits, away, self._scales(rows[:1]))

    def decode(self, rows: Sequence[Row]) -> Tensor:
        """Logits [B, V] after the last token of each row, guided where the row is."""
        members = [index for index, row in enumerate(rows) if row.request.negative is not None]
        others = [rows[index] for index in members]
        last = [row.tokens[-1:] or row.request.ids[-1:] for row in rows]
        last += [row.tokens[-1:] or (row.request.negative or [])[-1:] for row in others]
        tokens = torch.tensor(last, device=self._device)
        slots = torch.tensor([*(row.slot for row in rows), *(row.negative_slot for row in others)])
        logits: Tensor = self._model(tokens, self._cache, slots)[:, -1]
        if not members:
            return logits
        logits, away = logits[: len(rows)].float(), logits[len(rows) :]
        at = torch.tensor(members, device=self._device)
        return logits.index_copy(0, at, guided(logits[at], away, self._scales(others)))

    def rewind(self, row: Row) -> None:
        """Forget the tokens that a row has no longer; the last one that it has is read once more."""
        if row.request.negative is not None:
            self._cache.truncate(row.negative_slot, len(row.request.negative) + len(row.tokens) - 1)

    def _scales(self, rows: Sequence[Row]) -> Tensor:
        return torch.tensor([row.params.guidance for row in rows], dtype=torch.float32, device=self._device)
