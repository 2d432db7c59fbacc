"""What the jobs of `warpdraw bench generate` share: their options, their figures and the requests."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

from ..generation.params import SamplingParams
from ..model.weights import Checkpoint

# As many texts are drawn: a temperature below 1 and the usual filter.
DRAWN_WITH = {"temperature": 0.8, "top_k": 50}
UNIFORM_TOKENS = 100
SHORTEST_PROMPT, LONGEST_PROMPT = 4, 64
FEWEST_TOKENS, MOST_TOKENS = 16, 200


class Unusable(Exception):
    """A method that is to be timed does not do the job."""


@dataclass(frozen=True)
class Options:
    """What is asked of a run: the model, how many requests, rounds and texts, and which jobs."""

    model: str = "tiny-target"
    requests: int = 32
    rounds: int = 5
    texts: int = 1000
    only: str = ""
    quick: bool = False


@dataclass(frozen=True)
class Figure:
    """One figure of a job; with a target it is to be at least as much, or at most."""

    job: str
    what: str
    value: float
    unit: str
    target: float | None = None
    at_least: bool = True

    @property
    def met(self) -> bool | None:
        """Whether the target holds; None where there is none."""
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target


@dataclass(frozen=True)
class Requests:
    """A job: prompts, as token ids, and how many tokens to draw after each; texts do not end before."""

    name: str
    prompts: list[list[int]]
    lengths: list[int]

    @property
    def tokens(self) -> int:
        """All tokens to be drawn."""
        return sum(self.lengths)

    def params(self) -> list[SamplingParams]:
        """Of each request, with a seed of its own."""
        return [
            SamplingParams(seed=seed, max_tokens=length, ignore_eos=True, **DRAWN_WITH)  # type: ignore[arg-type]
            for seed, length in enumerate(self.lengths)
        ]


def uniform(model: Checkpoint, count: int, quick: bool) -> Requests:
    """The same prompt for all, and the same length: nothing for a running batch to gain but its slots."""
    ids = model.tokenizer.encode("The sky is")
    return Requests("uniform", [ids] * count, [10 if quick else UNIFORM_TOKENS] * count)


def mixed(model: Checkpoint, count: int, quick: bool) -> Requests:
    """Prompts and texts of unequal lengths, as requests of unlike users are."""
    chance = random.Random(2026)
    text = model.tokenizer.encode("The sky is blue and the air is warm. After the rain the air is fresh. " * 12)
    prompts = [text[: chance.randint(SHORTEST_PROMPT, LONGEST_PROMPT)] for _ in range(count)]
    lengths = [chance.randint(FEWEST_TOKENS, MOST_TOKENS) for _ in range(count)]
    return Requests("mixed", prompts, [max(2, length // 20) for length in lengths] if quick else lengths)


def in_turn(
    methods: dict[str, Callable[[], object]], rounds: int, tell: Callable[[float], None]
) -> dict[str, list[float]]:
    """Seconds of each method in each round, called in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for done in range(rounds):
        for name, method in methods.items():
            begun = perf_counter()
            method()
            seconds[name].append(perf_counter() - begun)
        tell((done + 1) / rounds)
    return seconds


def ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """The median of the ratios of the rounds."""
    return median(one / other for one, other in zip(over, under, strict=True))


def part_of(tell: Callable[[float], None], number: int, count: int) -> Callable[[float], None]:
    """What hears the finished part of one of `count` things."""
    return lambda part: tell((number + part) / count)
