"""Batches: rows of tokens and their targets, each a function of the data, the seed and the step alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .vocabulary import Ids

# The target of a place that is not trained on.
IGNORED = -100
# The held-out part is looked at up to so many tokens, so that a large text does not make each look slow.
HELD_OUT_TOKENS = 1 << 16

Batch = tuple[Tensor, Tensor]


class Data(Protocol):
    """What `Training` asks of its data. Tokens and targets are int64 [B, T]; a target is the token after its place."""

    @property
    def begins(self) -> bool:
        """Whether each text begins with the token that ends one."""

    @property
    def tokens(self) -> int:
        """How many tokens there are to train on."""

    def batch(self, seed: int, step: int, rows: int) -> Batch:
        """The rows of one step."""

    def held_out(self, rows: int) -> Iterator[Batch]:
        """The held-out part, `rows` rows at once, in order; nothing where there is none."""

    def fingerprint(self) -> str:
        """SHA-256 of all tokens, as hex digits."""


class Windows:
    """Rows of `context` tokens from one long text. Each epoch begins at another place and has its own order of rows.

    training, held_out: token ids [N]. Raises ValueError where they are too short.

    >>> data = Windows(np.arange(9), np.arange(9, 12), context=4)
    >>> tokens, targets = data.batch(seed=0, step=0, rows=1)
    >>> bool((targets == tokens + 1).all()), [batch[0].tolist() for batch in data.held_out(rows=8)]
    (True, [[[9, 10]]])
    """

    begins = False

    def __init__(self, training: Ids, held_out: Ids, context: int) -> None:
        if len(training) <= context:
            raise ValueError(
                f"text: expected more than context ({context}) tokens to train on, got {len(training)} "
                "(a longer text, a smaller context or a smaller held_out)"
            )
        if len(held_out) == 1:
            raise ValueError("held_out: expected 0 or a share of at least 2 tokens, got 1 token")
        self._training, self._held_out, self._context = training, held_out, context
        # Rows start `context` apart; what is left of the text is room to move the first one.
        self._rows = max(1, (len(training) - context) // context)
        self._room = min(context, len(training) - self._rows * context)

    @property
    def tokens(self) -> int:
        return len(self._training)

    def batch(self, seed: int, step: int, rows: int) -> Batch:
        starts = np.empty(rows, dtype=np.int64)
        for epoch, places, taken in _taken(self._rows, step, rows):
            shift, order = _epoch(seed, epoch, self._room, self._rows)
            starts[taken] = shift + self._context * order[places]
        window = self._training[starts[:, None] + np.arange(self._context + 1)]
        return _batch(window.astype(np.int64))

    def held_out(self, rows: int) -> Iterator[Batch]:
        ids = self._held_out[: HELD_OUT_TOKENS + 1]
        starts = range(0, len(ids) - 1, self._context)
        windows = [ids[start : start + self._context + 1] for start in starts]
        yield from _padded_batches(windows, rows)

    def fingerprint(self) -> str:
        return _fingerprint([self._training, self._held_out])


class Documents:
    """Rows that are each a short text of its own, padded to the longest of the batch; padding is not trained on.

    training, held_out: lists of token ids, each with its beginning and its end, of at most context + 1 tokens. Raises
    ValueError for others.

    >>> data = Documents([[0, 5, 6, 0], [0, 7, 0]], [], context=8)
    >>> tokens, targets = data.batch(seed=0, step=0, rows=2)
    >>> sorted(tokens.tolist()), sorted(targets.tolist())
    ([[0, 5, 6], [0, 7, 0]], [[5, 6, 0], [7, 0, -100]])
    """

    begins = True

    def __init__(self, training: Sequence[Sequence[int]], held_out: Sequence[Sequence[int]], context: int) -> None:
        if not training:
            raise ValueError("text: expected at least one line to train on, got none (a smaller held_out)")
        for number, ids in enumerate([*training, *held_out]):
            if not 2 <= len(ids) <= context + 1:
                raise ValueError(
                    f"text: expected lines of at most context - 1 ({context - 1}) tokens, "
                    f"got {len(ids) - 2} in line {number + 1} (blank ones not counted)"
                )
        self._training = [np.array(ids, dtype=np.int32) for ids in training]
        self._held_out = [np.array(ids, dtype=np.int32) for ids in held_out]

    @property
    def tokens(self) -> int:
        return sum(map(len, self._training))

    def batch(self, seed: int, step: int, rows: int) -> Batch:
        chosen = np.empty(rows, dtype=np.int64)
        for epoch, places, taken in _taken(len(self._training), step, rows):
            _, order = _epoch(seed, epoch, 1, len(self._training))
            chosen[taken] = order[places]
        return _padded([self._training[index] for index in chosen])

    def held_out(self, rows: int) -> Iterator[Batch]:
        yield from _padded_batches(self._held_out, rows)

    def fingerprint(self) -> str:
        return _fingerprint([*self._training, *self._held_out])


def _taken(size: int, step: int, rows: int) -> Iterator[tuple[int, slice, slice]]:
    """For each epoch that a step has rows of: its number, which of its places, and which rows of the step they are."""
    first, end = step * rows, (step + 1) * rows
    for epoch in range(first // size, (end - 1) // size + 1):
        begin, finish = max(first, epoch * size), min(end, (epoch + 1) * size)
        yield epoch, slice(begin - epoch * size, finish - epoch * size), slice(begin - first, finish - first)


@lru_cache(maxsize=2)
def _epoch(seed: int, epoch: int, room: int, size: int) -> tuple[int, NDArray[np.int64]]:
    """Where the first row of an epoch starts, and the order of its rows."""
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return int(generator.integers(room)), generator.permutation(size)


def _batch(rows: NDArray[np.int64]) -> Batch:
    window = torch.from_numpy(rows)
    return window[:, :-1].contiguous(), window[:, 1:].contiguous()


def _padded(rows: Sequence[NDArray[np.generic]]) -> Batch:
    width = max(map(len, rows)) - 1
    tokens = torch.zeros(len(rows), width, dtype=torch.int64)
    targets = torch.full((len(rows), width), IGNORED)
    for row, ids in enumerate(rows):
        whole = torch.from_numpy(ids.astype(np.int64))
        tokens[row, : len(ids) - 1], targets[row, : len(ids) - 1] = whole[:-1], whole[1:]
    return tokens, targets


def _padded_batches(rows: Sequence[NDArray[np.generic]], count: int) -> Iterator[Batch]:
    for start in range(0, len(rows), count):
        yield _padded(rows[start : start + count])


def _fingerprint(parts: Sequence[NDArray[np.generic]]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(np.ascontiguousarray(part, dtype="<i4").tobytes())
    return digest.hexdigest()
