"""Drafts without a model, from the text itself: what followed an earlier occurrence of the end of the text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Lookup(Protocol):
    """An index of a sequence that grows."""

    @property
    def length(self) -> int:
        """How many tokens it has."""

    def extend(self, tokens: Sequence[int]) -> None:
        """Add tokens to the end."""

    def propose(self, count: int) -> list[int]:
        """At most so many tokens that may come next."""


class Ngrams:
    """Proposes what followed the most recent earlier occurrence of the longest n-gram that ends the sequence.

    n goes from `longest` down to 1, and the first n-gram that occurred before decides. Where the tokens that followed
    it run into the end of the sequence, the proposal goes on with itself, as if it had come true.

    >>> index = Ngrams(longest=2)
    >>> index.extend([5, 6, 7, 8, 6, 7])
    >>> index.propose(2), index.propose(6)
    ([8, 6], [8, 6, 7, 8, 6, 7])
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._sequence: list[int] = []
        # Of each n-gram that has a token after it, where the last of these tokens stands.
        self._after: dict[tuple[int, ...], int] = {}

    @property
    def length(self) -> int:
        return len(self._sequence)

    def extend(self, tokens: Sequence[int]) -> None:
        sequence = self._sequence
        for token in tokens:
            at = len(sequence)
            for n in range(1, min(self._longest, at) + 1):
                self._after[tuple(sequence[at - n :])] = at
            sequence.append(token)

    def propose(self, count: int) -> list[int]:
        sequence = self._sequence
        for n in range(min(self._longest, len(sequence)), 0, -1):
            begin = self._after.get(tuple(sequence[-n:]))
            if begin is not None:
                proposed = sequence[begin : begin + count]
                while len(proposed) < count:
                    proposed.append(proposed[begin + len(proposed) - len(sequence)])
                return proposed
        return []


class Suffixes:
    """Proposes what most often followed the longest end of the sequence that occurred before; of equals, the latest.

    A suffix automaton (Blumer et al., 1985) of the sequence: each state stands for substrings that end at the same
    places, and knows how many these are and which is the last. The link of the state of the whole sequence is its
    longest end that occurred before. From there the proposal follows, token by token, the transition whose substring
    occurs most often; where a substring has no continuation, the longest end of it that has one takes its place. There
    is no proposal where the last token is new.

    A token is added in constant time on average, and in time proportional to the number of ends of the sequence that
    occurred before for the counts.

    >>> index = Suffixes()
    >>> index.extend([1, 2, 3, 1, 2, 4, 1, 2, 4, 9, 1, 2])
    >>> index.propose(3)
    [4, 9, 1]
    """

    def __init__(self) -> None:
        self._length = self._last = 0
        # Of each state; 0 is the empty string.
        self._next: list[dict[int, int]] = [{}]
        self._link = [-1]
        self._long = [0]
        self._count = [0]
        self._end = [0]

    @property
    def length(self) -> int:
        return self._length

    def extend(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            self._add(token)

    def propose(self, count: int) -> list[int]:
        following, links, counts, ends = self._next, self._link, self._count, self._end
        proposed: list[int] = []
        state = links[self._last]
        while state > 0 and len(proposed) < count:
            if not following[state]:
                state = links[state]
                continue
            token, state = max(following[state].items(), key=lambda each: (counts[each[1]], ends[each[1]]))
            proposed.append(token)
        return proposed

    def _add(self, token: int) -> None:
        following, links, long = self._next, self._link, self._long
        self._length += 1
        made = self._state({}, 0, self._length, 0)
        state = self._last
        while state >= 0 and token not in following[state]:
            following[state][token] = made
            state = links[state]
        if state >= 0:
            led = following[state][token]
            if long[led] == long[state] + 1:
                links[made] = led
            else:
                part = self._state(dict(following[led]), links[led], long[state] + 1, self._count[led])
                links[led] = links[made] = part
                while state >= 0 and following[state].get(token) == led:
                    following[state][token] = part
                    state = links[state]
        self._last = state = made
        while state > 0:
            self._count[state] += 1
            self._end[state] = self._length
            state = links[state]

    def _state(self, following: dict[int, int], link: int, long: int, count: int) -> int:
        self._next.append(following)
        self._link.append(link)
        self._long.append(long)
        self._count.append(count)
        self._end.append(0)
        return len(self._link) - 1
