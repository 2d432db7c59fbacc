"""Masks: the bitmasks of requests at their drafts."""

from __future__ import annotations

from .draw import Batch


class Masks:
    """The bitmasks before each draft of a row and after its last, as the row's function gives them.

    The function is asked about drafts that it allows itself, and about none after the end of a text.
    """

    def __init__(self, batch: Batch, longest: int) -> None:
        self._batch = batch
        self.words = batch.all_allowed(len(batch.places), longest + 1)
        for row in batch.masked:
            self._read(row, [])

    def step(self, row: int, drafted: list[int], token: int) -> bool:
        """Add a draft to `drafted` if the mask allows it, and read the mask after it; whether more can follow."""
        if token < 0 or not (int(self.words[row, len(drafted), token // 32]) >> (token % 32)) & 1:
            return False
        drafted.append(token)
        if token in self._batch.places[row].ends:
            return False
        self._read(row, drafted)
        return True

    def follow(self, row: int, drafts: list[int]) -> list[int]:
        """The drafts up to the last one that is allowed."""
        if row not in self._batch.masked:
            return drafts
        followed: list[int] = []
        for token in drafts:
            if not self.step(row, followed, token):
                break
        return followed

    def _read(self, row: int, drafted: list[int]) -> None:
        tokens = self._batch.places[row].tokens
        self._batch.read_bitmask(row, tokens + drafted, self.words[row, len(drafted)])
