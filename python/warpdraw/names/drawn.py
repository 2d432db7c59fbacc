"""generate: names drawn from a model, how likely each is, and which are new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import ops
from ..generation.params import SamplingParams, fresh_seed
from .alphabet import END, LONGEST, check_letters, ids_of, text_of
from .listing import known_names
from .models import NameModel, Report, load

MOST = 100_000


@dataclass(frozen=True)
class Name:
    """One name that was drawn.

    logprob     natural logarithm of the model's probability of the name from its first letter on, its end included,
                whatever temperature and filters it was drawn with.
    per_letter  the same for each letter, the end being one.
    new         whether it is not in the list.
    ended       whether the model ended it; otherwise it has as many letters as a name may have.
    """

    name: str
    logprob: float
    per_letter: float
    new: bool
    ended: bool


@dataclass(frozen=True)
class Names:
    """The names of one run.

    share_new       of the names, how many are not in the list, from 0 to 1.
    share_repeated  how many are the same as one before.
    """

    model: str
    start: str
    params: SamplingParams
    names: tuple[Name, ...]

    @property
    def share_new(self) -> float:
        return sum(each.new for each in self.names) / len(self.names)

    @property
    def share_repeated(self) -> float:
        return (len(self.names) - len({each.name for each in self.names})) / len(self.names)


def generate(
    count: int = 20,
    start: str = "",
    model: str | Path | NameModel = "mlp",
    params: SamplingParams | None = None,
    report: Report | None = None,
) -> Names:
    """Draw names that begin with `start`. Name j depends on the seed and j alone, not on the count.

    model   "mlp", "mlp-2d", "transformer", a folder that `train` wrote, or what `load` gave.
    params  temperature, top_k, top_p, min_p, order and seed; the others do not apply.
    report  called with the number of names that are finished.

    Raises ValueError for a count below 1, for a start with anything but letters from a to z or as long as a name may
    be, and for an unknown model.

    >>> names = generate(3, "abi", params=SamplingParams(seed=7))
    >>> len(names.names), all(each.name.startswith("abi") for each in names.names)
    (3, True)
    """
    if type(count) is not int or not 1 <= count <= MOST:
        raise ValueError(f"count: expected an integer from 1 to {MOST}, got {count!r}")
    check_letters("start", start, LONGEST - 1)
    params = params or SamplingParams()
    seeded = SamplingParams(
        temperature=params.temperature,
        top_k=params.top_k,
        top_p=params.top_p,
        min_p=params.min_p,
        order=params.order,
        seed=fresh_seed() if params.seed is None else params.seed,
    )
    found = load(model) if isinstance(model, str | Path) else model
    drawn = found.draw(start, count, seeded, report or (lambda finished: None))
    texts = [start + text_of(ids) for ids in drawn]
    ended = [END in ids for ids in drawn]
    names = []
    for text, whole, letters in zip(texts, ended, letter_logprobs(found, texts), strict=True):
        counted = letters if whole else letters[:-1]
        total = sum(counted)
        names.append(Name(text, total, total / max(1, len(counted)), text not in known_names(), whole))
    return Names(found.name, start, seeded, tuple(names))


def letter_logprobs(model: NameModel, names: Sequence[str]) -> list[list[float]]:
    """For each name the natural log-probability of each letter after those before it, and of the end after the last.

    >>> [len(letters) for letters in letter_logprobs(load("mlp"), ["asha", "abhay"])]
    [5, 6]
    """
    for name in names:
        check_letters("name", name)
    logits = model.logits(names)
    tokens = torch.tensor([each for name in names for each in (*ids_of(name), END)])
    logprobs = ops.log_softmax(torch.cat(logits)).gather(1, tokens[:, None])[:, 0].tolist()
    each = iter(logprobs)
    return [[next(each) for _ in range(len(name) + 1)] for name in names]


@dataclass(frozen=True)
class Novelty:
    """How many of `count` names are new, `share_new`, and how many repeat another, `share_repeated`."""

    model: str
    count: int
    share_new: float
    share_repeated: float


def novelty(
    count: int = 1000, model: str | Path | NameModel = "mlp", *, seed: int = 0, params: SamplingParams | None = None
) -> Novelty:
    """What share of so many names, drawn at temperature 1 or as `params` say, is not in the list.

    >>> novelty(50).count
    50
    """
    drawn = generate(count, "", model, params or SamplingParams(seed=seed))
    return Novelty(drawn.model, count, drawn.share_new, drawn.share_repeated)
