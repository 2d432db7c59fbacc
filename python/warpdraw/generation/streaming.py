"""Text as it arrives: whole characters from tokens, and nothing that may become part of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy

Decode = Callable[[list[int]], str]

# What a decoder writes for bytes that are not, or not yet, UTF-8.
REPLACEMENT = "\ufffd"
# A character has at most four bytes: one that began before the last three tokens is whole or broken by now.
UNDECIDED_TOKENS = 3
# More waiting tokens than this can only be broken bytes; settling them keeps the cost of a step constant.
WAITING_LIMIT = 8


class Detokenizer:
    """Turns token ids into text piece by piece; the pieces together are the text of the whole sequence.

    decode   ids to text, as the tokenizer does it for a whole sequence.
    context  the ids before the first token (the prompt), so that a leading space, which some decoders strip
             at the start of a text, is kept in the middle of one.

    A piece never ends inside a character: the bytes of an unfinished one wait for the rest, and become U+FFFD
    only when they turn out to be broken. A step decodes the waiting tokens and those of the piece before, but
    never the whole text.

    >>> detokenizer = Detokenizer(lambda ids: bytes(ids).decode("utf-8", "replace"))
    >>> [detokenizer.push(byte) for byte in "é!".encode()]
    ['', 'é', '!']
    """

    def __init__(self, decode: Decode, context: Sequence[int] = ()) -> None:
        self._decode = decode
        self._context: list[int] = []
        self._context_text = ""
        self._waiting: list[int] = []
        self._waiting_text = ""

        # A short end of the context will do, but not one that begins in the middle of a character.
        for length in range(WAITING_LIMIT, WAITING_LIMIT + UNDECIDED_TOKENS + 1):
            self._context = list(context[-length:])
            self._context_text = decode(self._context) if self._context else ""
            if not self._context_text.startswith(REPLACEMENT):
                break

    def push(self, token: int) -> str:
        """The text that this token completes; '' in the middle of a character."""
        text = self._text_after_context([*self._waiting, token])
        # Special tokens have no text. (A space that is only stripped here has some when it stands twice.)
        if text == self._waiting_text and not self._decode([token, token]):
            return ""
        self._waiting.append(token)
        self._waiting_text = text

        if text and not text.endswith(REPLACEMENT):
            return self._settle(len(self._waiting))
        if len(self._waiting) > WAITING_LIMIT:
            return self._settle(len(self._waiting) - UNDECIDED_TOKENS)
        return ""

    def finish(self) -> str:
        """The text of what still waits; an unfinished character becomes U+FFFD."""
        return self._settle(len(self._waiting)) if self._waiting else ""

    def fork(self) -> Detokenizer:
        """One that has taken the same tokens, and goes on by itself."""
        other = copy(self)
        other._waiting = list(self._waiting)
        return other

    @property
    def waiting(self) -> int:
        """How many tokens wait for the rest of a character."""
        return len(self._waiting)

    def _text_after_context(self, tokens: list[int]) -> str:
        text = self._decode(self._context + tokens)
        if text.startswith(self._context_text):
            return text[len(self._context_text) :]
        if self._context_text.endswith(REPLACEMENT):
            # The context ended inside a character that these tokens complete.
            return text[_shared(text, self._context_text) :]
        # Some decoders reject a whole run of byte tokens for one broken byte; text already given out stays.
        return self._decode(tokens)

    def _settle(self, count: int) -> str:
        """Give out the text of the first `count` waiting tokens, which become the context of the others."""
        settled, rest = self._waiting[:count], self._waiting[count:]
        piece = self._waiting_text
        if rest:
            # A character that reaches over the boundary belongs to the tokens that complete it.
            piece = piece[: _shared(piece, self._text_after_context(settled))]
        self._context, self._context_text = settled, self._decode(settled)
        self._waiting, self._waiting_text = rest, self._text_after_context(rest) if rest else ""
        return piece


def _shared(one: str, other: str) -> int:
    """The length of the longest common prefix."""
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


class StopStrings:
    """Passes text on up to the first stop string, and holds back what could be the beginning of one.

    The first stop string is the one whose last character comes first (of several, the longest); so the result
    does not depend on how the text is cut into pieces.

    >>> stops = StopStrings(("\\n\\n",))
    >>> stops.push("one\\n"), stops.push("two\\n"), stops.push("\\nthree"), stops.found
    ('one', '\\ntwo', '', '\\n\\n')
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(sorted(stop, key=len, reverse=True))
        self._held = ""
        self.found: str | None = None

    def push(self, piece: str, armed: bool = True) -> str:
        """The text that certainly comes before any stop string; one that ends here counts if `armed`."""
        if not self._stop:
            return piece
        text, begin = self._held + piece, len(self._held)
        end, found = len(text) + 1, None
        for stop in self._stop if armed else ():
            at = text.find(stop, max(0, begin - len(stop) + 1))
            if at >= 0 and at + len(stop) < end:
                end, found = at + len(stop), stop
        if found is not None:
            self._held, self.found = "", found
            return text[: end - len(found)]
        held = self._held_length(text)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def finish(self) -> str:
        """What was held back: no stop string came of it."""
        held, self._held = self._held, ""
        return held

    def _held_length(self, text: str) -> int:
        longest = 0
        for stop in self._stop:
            for length in range(min(len(stop) - 1, len(text)), longest, -1):
                if text.endswith(stop[:length]):
                    longest = length
                    break
        return longest


class TextStream:
    """The text of one sample: tokens in, text out, up to the first stop string."""

    def __init__(self, decode: Decode, context: Sequence[int], stop: Sequence[str]) -> None:
        self._detokenizer = Detokenizer(decode, context)
        self._stops = StopStrings(stop)
        self.decoded = 0  # characters, those held back included

    @property
    def stop(self) -> str | None:
        """The stop string that ended the text."""
        return self._stops.found

    def push(self, token: int, armed: bool = True) -> str:
        """The text that this token makes certain; a stop string counts only if `armed`."""
        return self._stops.push(self._counted(self._detokenizer.push(token)), armed)

    def finish(self, armed: bool = True) -> str:
        """The rest of the text, when no token follows."""
        piece = self._stops.push(self._counted(self._detokenizer.finish()), armed)
        return piece if self.stop is not None else piece + self._stops.finish()

    @property
    def waiting(self) -> int:
        """How many of the last tokens wait for the rest of a character."""
        return self._detokenizer.waiting

    def fork(self) -> TextStream:
        """One that has taken the same tokens, and goes on by itself."""
        other = copy(self)
        other._detokenizer, other._stops = self._detokenizer.fork(), copy(self._stops)
        return other

    def _counted(self, piece: str) -> str:
        self.decoded += len(piece)
        return piece
