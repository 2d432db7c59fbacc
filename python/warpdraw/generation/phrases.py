"""Phrases: texts that may not be written, found in a text that grows."""

from __future__ import annotations

import re
from collections.abc import Sequence


class Phrases:
    """Finds banned phrases, and says how much of a text's end may still become one.

    With `case` the case of letters matters. (Letters whose case changes their number, as in "ß" and "SS", stay what
    they are.)

    >>> phrases = Phrases(["In conclusion"])
    >>> phrases.found("So, in conclusion"), phrases.begin("So, in con"), phrases.begin("So, so")
    ((4, 'In conclusion'), 4, 6)
    """

    def __init__(self, phrases: Sequence[str], case: bool = False) -> None:
        self._case = case
        self._named = {self._fold(phrase): phrase for phrase in reversed(phrases)}
        longest_first = sorted(self._named, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)))
        self._beginnings = {phrase[:length] for phrase in self._named for length in range(1, len(phrase))}
        self._longest = len(longest_first[0]) - 1

    def found(self, text: str) -> tuple[int, str] | None:
        """Where the first phrase of a text begins, the longest of those that begin there, and the phrase."""
        match = self._pattern.search(self._fold(text))
        return None if match is None else (match.start(), self._named[match.group()])

    def begin(self, text: str) -> int:
        """Where the longest end of a text begins that a phrase may begin with; its length where there is none."""
        folded = self._fold(text)
        for at in range(max(0, len(folded) - self._longest), len(folded)):
            if folded[at:] in self._beginnings:
                return at
        return len(folded)

    def _fold(self, text: str) -> str:
        """Without case, character for character."""
        if self._case:
            return text
        folded = text.casefold()
        if len(folded) == len(text):
            return folded
        return "".join(one if len(one) == 1 else each for each, one in ((each, each.casefold()) for each in text))
