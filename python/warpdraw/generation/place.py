"""Place: where a row draws, by its request's parameters; and what was drawn there."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from .params import LOGPROBS_OF, SamplingParams
from .results import KeptTokens, Step, TokenLogprob
from .rules import Rules
from .vocabulary import TokenLists


@dataclass(eq=False)
class Place:
    """Where a row draws: its request's parameters, its seed, its prompt and the tokens drawn so far, which grow."""

    name: str
    params: SamplingParams
    lists: TokenLists
    seed: int
    prompt: list[int]
    ends: tuple[int, ...]
    tokens: list[int]
    rules: Rules | None = None
    limits: list[float] = field(default_factory=list)  # of mirostat: the mu of each token, and of the next one

    @property
    def position(self) -> int:
        """The index in the sequence of the next token."""
        return len(self.prompt) + len(self.tokens)

    @property
    def id_lists(self) -> dict[str, tuple[float, ...]]:
        """The lists of the row, by the op's names."""
        return {
            "allowed_ids": self.lists.allowed,
            "banned_ids": self.lists.banned,
            "stop_ids": self.ends if self.params.min_tokens else (),
            "bias_ids": tuple(token for token, _ in self.lists.bias),
            "bias": tuple(bias for _, bias in self.lists.bias),
            "dry_breakers": self.lists.breakers,
        }

    @cached_property
    def call(self) -> tuple[str, str]:
        """What rows must have in common to share a call: the order, and which distribution is reported."""
        return self.params.order, self.params.logprobs_of if self.params.logprobs else LOGPROBS_OF[0]


@dataclass(frozen=True)
class Drawn:
    """The token of one row and what was asked about it; or None, and why the row has no candidate."""

    token: int | None
    problem: str | None = None
    logprob: TokenLogprob | None = None
    kept: KeptTokens | None = None
    step: Step | None = None
