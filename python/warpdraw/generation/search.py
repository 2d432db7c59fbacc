"""Search: the beams of one prompt in a beam search, and the best of its texts that ended."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..model.weights import Checkpoint
from .place import Drawn, Place
from .request import Request
from .results import Completion
from .row import Row
from .streaming import TextStream


@dataclass(frozen=True)
class Goal:
    """What a search looks for, and when it gives up."""

    beams: int
    length_penalty: float
    early_stopping: bool | str

    def score(self, total: float, length: int) -> float:
        """What a text of a length is ranked by."""
        return total / math.pow(length, self.length_penalty)


@dataclass(frozen=True)
class Finished:
    """A text that ended, and its score."""

    score: float
    tokens: list[int]


@dataclass(frozen=True)
class Child:
    """A beam and the token that follows it; `total` is the log-probability of all its tokens."""

    total: float
    beam: int
    token: int
    text: TextStream | None


class Search:
    """The search of one prompt: its beams, each with its slot in the cache, and the best texts that ended.

    A beam stays in its slot with its best token; its other tokens take the slots of beams that end, so that only
    what differs is copied.
    """

    def __init__(self, model: Checkpoint, request: Request, slots: list[int], goal: Goal) -> None:
        self.request, self.slots, self._goal, self._model = request, slots, goal, model
        row = Row(model, request, 0, slots[0], model.config.max_positions)
        self._limit, self._ends = row.limit, row.ends
        self.places: list[Place] = [replace(row.place, tokens=[]) for _ in slots]
        # Beams that are the same: only one of them counts.
        self._totals = [0.0, *[-math.inf] * (len(slots) - 1)]
        self._texts = [row.text.fork() if request.params.stop else None for _ in slots]
        self._best: list[Finished] = []
        self.done = False

    @property
    def candidates(self) -> int:
        """How many tokens of a beam can matter: if all that may end do, as many as beams go on."""
        return max(2, 1 + len(self._ends)) * self._goal.beams

    def step(self, ids: list[list[int]], logprobs: list[list[float]]) -> list[int]:
        """Take the best tokens of each beam; returns for each beam the one that it continues."""
        children = self._children(ids, logprobs)
        length = len(self.places[0].tokens) + 1
        running: list[Child] = []
        for place, child in enumerate(children):
            if length < self._limit and child.token not in self._ends and (child.text is None or not child.text.stop):
                running.append(child)
            elif place < self._goal.beams:
                tokens = [*self.places[child.beam].tokens, child.token]
                self._best.append(Finished(self._goal.score(child.total, length), tokens))
        self._best = sorted(self._best, key=lambda finished: -finished.score)[: self._goal.beams]
        self.done = self._is_done(running, length)
        return list(range(len(self.slots))) if self.done else self._follow(running[: self._goal.beams])

    def _children(self, ids: list[list[int]], logprobs: list[list[float]]) -> list[Child]:
        """The best continuations of all beams, the best one first."""
        every = [
            (self._totals[beam] + logprob, beam, token)
            for beam, pairs in enumerate(zip(ids, logprobs, strict=True))
            for token, logprob in zip(*pairs, strict=True)
            if self._totals[beam] + logprob > -math.inf
        ]
        every.sort(key=lambda each: (-each[0], each[1:]))
        return [Child(*each, self._text_with(*each[1:])) for each in every[: self.candidates]]

    def _text_with(self, beam: int, token: int) -> TextStream | None:
        text = self._texts[beam]
        if text is None or token in self._ends:
            return text
        text = text.fork()
        text.push(token, armed=len(self.places[beam].tokens) + 1 >= self.request.params.min_tokens)
        return text

    def _is_done(self, running: list[Child], length: int) -> bool:
        if not running:
            return True
        if len(self._best) < self._goal.beams:
            return False
        if self._goal.early_stopping is True:
            return True
        hopes = self._goal.early_stopping == "never" and self._goal.length_penalty > 0
        possible = self._goal.score(running[0].total, self._limit if hopes else length)
        return possible <= self._best[-1].score

    def _follow(self, running: list[Child]) -> list[int]:
        count = len(self.slots)
        chosen: dict[int, Child] = {}
        others = []
        for child in running:
            if child.beam in chosen:
                others.append(child)
            else:
                chosen[child.beam] = child
        free = [beam for beam in range(count) if beam not in chosen]
        # Beams without a continuation of their own repeat another's, and do not count.
        others += [replace(running[0], total=-math.inf)] * (len(free) - len(others))
        chosen.update(zip(free, others, strict=True))

        children = [chosen[beam] for beam in range(count)]
        before = [place.tokens for place in self.places]
        self._totals = [child.total for child in children]
        self._texts = [child.text and child.text.fork() for child in children]
        for place, child in zip(self.places, children, strict=True):
            place.tokens = [*before[child.beam], child.token]
        return [child.beam for child in children]

    def completions(self) -> list[Completion]:
        """The best texts, as many as the request wants; one that says why where there is none."""
        made = []
        for sample, finished in enumerate(self._best[: self.request.params.n]):
            row = Row(self._model, self.request, sample, self.slots[0], self._model.config.max_positions)
            for token in finished.tokens:
                event = row.advance(Drawn(token))
            assert event.completion is not None
            made.append(replace(event.completion, seed=0, score=finished.score))
        if not made:
            row = Row(self._model, self.request, 0, self.slots[0], self._model.config.max_positions)
            failed = row.advance(Drawn(None, "no beam has a token that can follow")).completion
            assert failed is not None
            made.append(replace(failed, seed=0))
        return made
