"""Speculation: how a request's tokens are drafted before the model verifies them, and how many at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..model.config import ModelConfig
from ..model.weights import Checkpoint

METHODS = ("coupled", "point_mass", "rejection", "block", "greedy")
# What drafts without a model: it is certain of its drafts, so there is no distribution to accept them by.
LOOKUPS = ("ngram", "suffix")
NEEDS_DISTRIBUTION = ("rejection", "block")
MOST_TOKENS = 64
MOST_NGRAM = 64

# What a layer costs where it is small, in parameters that are read in the same time.
PARAMETERS_A_LAYER = 500_000
LOOKUP_COST = 0.02


@dataclass(frozen=True)
class Speculation:
    """How tokens are drafted and verified.

    draft     what drafts: a `Checkpoint` with the vocabulary of the model; "ngram", what followed the longest end of
              the text, of at most `ngram` tokens, where it last occurred; or "suffix", what most often followed the
              longest end of the text that occurred before.
    tokens    the most drafts in a step, from 1 to 64.
    method    how drafts are accepted: "coupled" (the text is that without drafts), "rejection", "block" or "greedy", as
              `warpdraw.verify` defines them; "point_mass" is the same as "coupled". Without a model "rejection" and
              "block" are refused; "greedy" is for requests of temperature 0.
    adaptive  whether a request drafts as many tokens as its own acceptance so far makes worth while, instead of
              `tokens` in each step.
    ngram     the longest n-gram that is looked up, from 1 to 64.
    cost      what drafting a token costs, as a part of what a step of the model costs: with it the number of drafts is
              chosen. None estimates it from the sizes of the two models.

    Raises TypeError or ValueError; the message names the field, what is allowed and what it was.

    >>> Speculation("ngram", tokens=8).tokens
    8
    >>> Speculation("suffix", method="block")
    Traceback (most recent call last):
    ValueError: method: expected one of coupled, point_mass, greedy without a draft model, got 'block'
    """

    draft: Checkpoint | str
    tokens: int = 4
    method: str = "coupled"
    adaptive: bool = True
    ngram: int = 4
    cost: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.draft, str):
            if self.draft not in LOOKUPS:
                raise ValueError(f"draft: expected a Checkpoint or one of {', '.join(LOOKUPS)}, got {self.draft!r}")
        elif not isinstance(self.draft, Checkpoint):
            raise TypeError(f"draft: expected a Checkpoint or one of {', '.join(LOOKUPS)}, got {self.draft!r}")
        for name, most in (("tokens", MOST_TOKENS), ("ngram", MOST_NGRAM)):
            _check_integer(name, getattr(self, name), most)
        if self.method not in METHODS:
            raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {self.method!r}")
        if isinstance(self.draft, str) and self.method in NEEDS_DISTRIBUTION:
            allowed = ", ".join(method for method in METHODS if method not in NEEDS_DISTRIBUTION)
            raise ValueError(f"method: expected one of {allowed} without a draft model, got {self.method!r}")
        if not isinstance(self.adaptive, bool):
            raise TypeError(f"adaptive: expected True or False, got {self.adaptive!r}")
        if self.cost is not None:
            if isinstance(self.cost, bool) or not isinstance(self.cost, int | float):
                raise TypeError(f"cost: expected None or a number >= 0, got {self.cost!r}")
            if not 0 <= self.cost < math.inf:
                raise ValueError(f"cost: expected None or a number >= 0, got {self.cost!r}")

    @property
    def keeps_text(self) -> bool:
        """Whether each text is what it is without drafts, token for token."""
        return self.method not in NEEDS_DISTRIBUTION

    def cost_beside(self, model: Checkpoint) -> float:
        """What a draft costs, as a part of a step of the model: a function of both alone, so that runs repeat."""
        if self.cost is not None:
            return self.cost
        if isinstance(self.draft, str):
            return LOOKUP_COST
        return _size(self.draft.config) / _size(model.config)


def speculation_of(draft: Any, model: Checkpoint) -> Speculation:
    """A speculation from what `generate` was given, checked against the model; errors name `draft`."""
    speculation = draft if isinstance(draft, Speculation) else Speculation(draft)
    drafts = speculation.draft
    if isinstance(drafts, str):
        return speculation
    ours, theirs = model.config.vocab_size, drafts.config.vocab_size
    if ours != theirs:
        raise ValueError(f"draft: expected a model with the vocabulary of {ours} tokens, got {theirs}")
    mine, other = model.tokenizer, drafts.tokenizer
    if mine is not other:
        names, others = mine.backend.get_vocab(), other.backend.get_vocab()
        if names != others:
            differ = sorted(f"{name!r}" for name, _ in names.items() ^ others.items())
            raise ValueError(f"draft: expected a model with the same tokens, got one where {differ[0]} is another")
    devices = [each.model.embedding.weight.device for each in (model, drafts)]
    if devices[0] != devices[1]:
        raise ValueError(f"draft: expected a model on {devices[0]}, got one on {devices[1]}")
    return speculation


def _size(config: ModelConfig) -> float:
    """About what a step of a model costs, in parameters."""
    attention = config.hidden_size * config.head_dim * (2 * config.heads + 2 * config.kv_heads)
    mlp = config.hidden_size * config.mlp_size * (3 if config.mlp == "gated" else 2)
    head = config.hidden_size * config.vocab_size
    return config.layers * (PARAMETERS_A_LAYER + attention + mlp) + head


def _check_integer(name: str, value: Any, most: int) -> None:
    if type(value) is not int:
        raise TypeError(f"{name}: expected an integer in [1, {most}], got {value!r}")
    if not 1 <= value <= most:
        raise ValueError(f"{name}: expected an integer in [1, {most}], got {value}")
