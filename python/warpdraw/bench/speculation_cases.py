"""What is verified: rows of a target, the rows that drafts were drawn from, and the drafts, all hot or cold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from .. import ops
from .cases import DTYPES, Case
from .harness import COLD_BYTES
from .peers import Job

# The rules: those that need the rows of the drafts, and those that compare. Drafts of the last two are not drawn, but
# the best tokens of their rows.
METHODS = ("rejection", "block", "coupled", "point_mass", "greedy")
FROM_DRAFT_ROWS, COMPARING = METHODS[:2], METHODS[2:]
CERTAIN = ("point_mass", "greedy")
SEED, POSITION = 7, 11


def in_words(job: Job) -> str:
    """The filters in words."""
    words = [f"temperature {job.temperature:g}"]
    words += [f"top-k {job.top_k}"] if job.top_k else []
    return ", ".join(words + ([f"top-p {job.top_p:g}"] if job.top_p < 1 else []))


@dataclass(frozen=True)
class Drafted:
    """Drafts of B requests and what they are to be verified by."""

    target: Tensor  # [B, K+1, V]
    draft: Tensor  # [B, K, V]
    drawn: Tensor  # i64 [B, K]: what `sample` draws from the draft rows with the seeds and positions of the target
    best: Tensor  # i64 [B, K]: the most probable tokens of the draft rows
    seed: Tensor  # i64 [B]
    position: Tensor  # i64 [B]

    def drafts(self, method: str) -> Tensor:
        """Those that a rule is for."""
        return self.best if method in CERTAIN else self.drawn

    def first(self, requests: int) -> Drafted:
        """The same for the first requests only."""
        return Drafted(*(getattr(self, name)[:requests] for name in self.__dataclass_fields__))

    def to(self, device: torch.device) -> Drafted:
        """The same on a device."""
        return Drafted(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))

    def of_rows(self) -> dict[str, Tensor]:
        """Seed and position of every row of the target, as `sample` takes them."""
        places = torch.arange(self.target.shape[1], device=self.target.device)
        return {
            "seed": self.seed.repeat_interleave(len(places)),
            "position": (self.position[:, None] + places).flatten(),
        }


@dataclass(frozen=True)
class DraftedCase:
    """The sizes of one measurement; draft rows are those of the target with N(0, noise^2) added."""

    vocab: int
    batch: int
    drafts: int
    dtype: str = "float32"
    logits: str = "peaked"
    noise: float = 0.5

    @property
    def rows(self) -> Case:
        """The target's rows of a call, one after the other."""
        return Case(self.vocab, self.batch * (self.drafts + 1), self.dtype, self.logits)

    def bytes(self, draft_rows: int) -> int:
        """What must be read: all rows of the target and so many of each request's draft rows."""
        return self.rows.bytes + self.batch * draft_rows * self.vocab * DTYPES[self.dtype].itemsize

    def inputs(self, job: Job, cold_bytes: int = COLD_BYTES) -> list[Drafted]:
        """As many as have together at least `cold_bytes` of target rows; the first of them is the hot one.

        Their number is prime, so that each of several methods that take the next one in turn comes to all of them.
        """
        count = max(3, -(-cold_bytes // self.rows.bytes))
        while any(count % factor == 0 for factor in range(2, count)):
            count += 1
        return [self._drafted(number, rows, job) for number, rows in enumerate(self.rows.make(count))]

    def _drafted(self, number: int, rows: Tensor, job: Job) -> Drafted:
        target = rows.view(self.batch, self.drafts + 1, self.vocab)
        noise = torch.randn(self.batch, self.drafts, self.vocab, generator=torch.Generator().manual_seed(2024 + number))
        draft = noise.mul_(self.noise).add_(target[:, :-1]).to(target.dtype)
        return drafted(target, draft, job, number)


def drafted(target: Tensor, draft: Tensor, job: Job, number: int = 0) -> Drafted:
    """Drafts for rows, drawn with the filters of the target; inputs of other numbers have other noise."""
    seed = SEED + torch.arange(len(target), device=target.device)
    position = torch.full_like(seed, POSITION + number * target.shape[1])
    return redrawn(target, draft, draft.argmax(-1), job, seed, position)


def redrawn(target: Tensor, draft: Tensor, best: Tensor, job: Job, seed: Tensor, position: Tensor) -> Drafted:
    """The same rows with drafts drawn at other places of the noise."""
    made = Drafted(target, draft, best, best, seed, position)
    # The noise of the target's rows but the last.
    noise = {name: value.view(len(target), -1)[:, :-1].flatten() for name, value in made.of_rows().items()}
    drawn = ops.sample(draft.flatten(0, 1), **asdict(job), **noise, order="hf").tokens
    return Drafted(target, draft, drawn.view(best.shape), best, seed, position)


def arguments(method: str, job: Job, given: Drafted) -> dict[str, Any]:
    """All that `verify` is given but drafts, target and method."""
    made: dict[str, Any] = {**asdict(job), "seed": given.seed, "position": given.position, "order": "hf"}
    if method in FROM_DRAFT_ROWS:
        made |= {"draft_logits": given.draft} | {f"draft_{name}": value for name, value in asdict(job).items()}
    return made


def with_other_noise(inputs: list[Drafted], job: Job, requests: int) -> Iterator[Drafted]:
    """The inputs again and again at other places of the noise, until there are so many requests."""
    for turn in range(-(-requests // sum(len(given.target) for given in inputs))):
        for given in inputs:
            position = given.position + 2**20 + turn * len(inputs) * given.target.shape[1]
            yield redrawn(given.target, given.draft, given.best, job, given.seed, position)
