"""Holding: the last tokens of a text, which a banned phrase may begin in: not given out yet, they may be taken back.

A phrase that is complete takes the text back to the token in which it begins. That token is banned at this place, for
the text before it: a ban goes when the text before it does. Where nothing is left to draw, the token before, if it is
still held, is taken back in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .phrases import Phrases
from .place import Drawn
from .results import GuardAction
from .streaming import TextStream

# A text that is taken back more often ends: each time costs at least a step of the model.
MOST_REWINDS = 1000


@dataclass
class HeldToken:
    """A token that may be taken back: the text as it was before, and where in the text its own ends."""

    drawn: Drawn
    before: TextStream
    given: int  # characters that the text had given out before
    end: int | None = None  # None while it ends inside a character


class Holding:
    """The held end of one text; `bans` are the tokens that may not follow so many tokens of the text."""

    def __init__(self, phrases: Phrases) -> None:
        self._phrases = phrases
        self._tokens: list[HeldToken] = []
        self._text = ""  # what was given out of stop strings' hold, from the first character that is held
        self._start = 0  # where that stands in the text
        self.bans: dict[int, set[int]] = {}
        self.actions: list[GuardAction] = []

    @property
    def count(self) -> int:
        """How many tokens are held."""
        return len(self._tokens)

    @property
    def rewinds(self) -> int:
        """How often the text was taken back."""
        return len(self.actions)

    def add(self, drawn: Drawn, before: TextStream, piece: str, after: TextStream) -> None:
        """Hold a token and what it adds to the text."""
        self._tokens.append(HeldToken(drawn, before, self._start + len(self._text)))
        self.add_text(piece, after)

    def add_text(self, piece: str, after: TextStream) -> None:
        """Hold more text of the tokens so far."""
        self._text += piece
        settled = len(self._tokens) - after.waiting
        for token in reversed(self._tokens[:settled]):
            if token.end is not None:
                break
            token.end = after.decoded

    def banned(self) -> tuple[int, str] | None:
        """Which held token a phrase begins in, and the phrase, where one is complete."""
        found = self._phrases.found(self._text)
        if found is None:
            return None
        begins = self._start + found[0]
        ends = enumerate(token.end for token in self._tokens)
        return next(at for at, end in ends if end is None or end > begins), found[1]

    def take_back(self, at: int, why: str, tokens: list[int]) -> TextStream:
        """Cut `tokens` before a held token, which is banned there from now on; the text as it was there."""
        position = len(tokens) - len(self._tokens) + at
        token = tokens[position]
        for place in [place for place in self.bans if place > position]:
            del self.bans[place]
        self.bans.setdefault(position, set()).add(token)
        self.actions.append(GuardAction("ban_phrases", "rewind", position, token, why))
        held = self._tokens[at]
        self._text = self._text[: held.given - self._start]
        del tokens[position:], self._tokens[at:]
        return held.before

    def release(self, everything: bool = False) -> Iterator[tuple[Drawn, str]]:
        """The tokens, and their texts, that no phrase can begin in."""
        count = len(self._tokens) if everything else self._sure()
        released, self._tokens = self._tokens[:count], self._tokens[count:]
        for at, token in enumerate(released):
            last = everything and at == count - 1
            length = len(self._text) if last or token.end is None else max(0, token.end - self._start)
            piece, self._text = self._text[:length], self._text[length:]
            self._start += len(piece)
            yield token.drawn, piece

    def _sure(self) -> int:
        """How many of the first tokens no phrase can begin in."""
        sure = self._start + self._phrases.begin(self._text)
        ends = [token.end for token in self._tokens]
        count = next((at for at, end in enumerate(ends) if end is None or end > sure), len(ends))
        # What a stop string would hold back again, if the next token were taken back, cannot be given out.
        while 0 < count < len(ends) and self._tokens[count].given < (ends[count - 1] or 0):
            count -= 1
        return count
