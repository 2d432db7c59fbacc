"""Repetition: whether a text goes round in circles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Repetition:
    """Ends a text whose last tokens are one pattern `count` times, for ``SamplingParams(stop_on_repeat=...)``.

    count     how often the pattern comes, side by side, from 2.
    shortest  the fewest tokens of a pattern.
    longest   the most, at most 512.

    Raises TypeError or ValueError; the message names the field, what is allowed and what it was.

    >>> Repetition(3).found([9, 1, 2, 1, 2, 1, 2]), Repetition(3).found([9, 1, 2, 1, 2])
    (2, None)
    """

    count: int = 4
    shortest: int = 1
    longest: int = 64

    def __post_init__(self) -> None:
        for name, low, high in (("count", 2, 2**31 - 1), ("shortest", 1, 512), ("longest", self.shortest, 512)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name}: expected an integer in [{low}, {high}], got {value!r}")
            if not low <= value <= high:
                raise ValueError(f"{name}: expected an integer in [{low}, {high}], got {value}")

    def found(self, tokens: Sequence[int]) -> int | None:
        """How many tokens the shortest pattern has that ends the tokens so often; None where there is none."""
        for size in range(self.shortest, min(self.longest, len(tokens) // self.count) + 1):
            # x[i] = x[i - size] over the last (count - 1) size tokens
            length = (self.count - 1) * size
            if tokens[-1] == tokens[-1 - size] and tokens[-length:] == tokens[-length - size : -size]:
                return size
        return None
