"""What is measured on a GPU: rows in rotation, parameters as a tensor entry for each row, and what a call is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from .cases import DTYPES
from .peers import Job
from .peers.penalties import Penalties
from .speculation_cases import FROM_DRAFT_ROWS

GREEDY, TEMPERED, TOP_K, TOP_P = "greedy", "temperature 0.7", "top-k 50", "top-p 0.9"
JOINT, COMBINED = "top-k 50, top-p 0.9", "top-k 50, top-p 0.9, min-p 0.05"
MIXED, EVERYTHING, SOFTMAX = "a mix of all", "everything on", "softmax"

# The filters of each job; the rows of a batch have them in turn.
ROWS_OF: dict[str, tuple[Job, ...]] = {
    GREEDY: (Job(0.0, 0, 1.0, 0.0),),
    TEMPERED: (Job(0.7, 0, 1.0, 0.0),),
    TOP_K: (Job(1.0, 50, 1.0, 0.0),),
    TOP_P: (Job(1.0, 0, 0.9, 0.0),),
    JOINT: (Job(1.0, 50, 0.9, 0.0),),
    COMBINED: (Job(1.0, 50, 0.9, 0.05),),
    EVERYTHING: (Job(1.0, 50, 0.9, 0.05),),
}
ROWS_OF[MIXED] = tuple(ROWS_OF[name][0] for name in (GREEDY, TEMPERED, TOP_K, TOP_P, COMBINED))

# Rules by which drafts are verified, with the filters of target and draft; a request has so many drafts.
DRAFTS = 5
COUPLED, POINT_MASS, REJECTION = "verify, coupled", "verify, point mass", "verify, rejection"
ALONE = ", temperature alone"
SPECULATIVE: dict[str, tuple[str, Job]] = {
    name + more: (rule, job)
    for more, job in (("", Job(0.8, 50, 0.95, 0.0)), (ALONE, Job(0.8, 0, 1.0, 0.0)))
    for name, rule in ((COUPLED, "coupled"), (POINT_MASS, "point_mass"), (REJECTION, "rejection"))
}

PENALTIES = Penalties(repetition=1.1, frequency=0.2, presence=0.1)
HISTORY, BIASES, TOP = 1024, 16, 20
REPORTS: dict[str, Any] = {"logprob": True, "raw_logprob": True, "rank": True, "top_n": TOP}
SEED, POSITION = 7, 11
MOST_LIKELY = 40
# Rows are made so many at a time, because what they are made from is float32.
PART = 64


@dataclass(frozen=True)
class Point:
    """One place of the grid: a job on logits of one size, dtype (of DTYPES) and distribution."""

    job: str
    vocab: int
    batch: int
    dtype: str = "bfloat16"
    logits: str = "peaked"
    cache: str = "cold"

    @property
    def rows(self) -> int:
        """How many rows of logits one call has; those that drafts were drawn from are not counted."""
        return self.batch * (DRAFTS + 1) if self.job in SPECULATIVE else self.batch

    @property
    def bytes(self) -> int:
        """What one call must move.

        The logits once, for rejection those of the drafts too, and for softmax the probabilities, which are float32.
        """
        rejecting = self.job in SPECULATIVE and SPECULATIVE[self.job][0] in FROM_DRAFT_ROWS
        rows = self.rows + (self.batch * DRAFTS if rejecting else 0)
        return rows * self.vocab * (DTYPES[self.dtype].itemsize + (4 if self.job == SOFTMAX else 0))


class Pool:
    """Rows [R, V] on a device, and for each of them what penalties, bias and bitmask need.

    "normal" is N(0, 3); "peaked" is N(-4, 2) with 40 tokens that decay from 16 like Zipf's law.
    """

    def __init__(self, vocab: int, dtype: str, logits: str, rows: int, device: torch.device) -> None:
        self._generator = torch.Generator(device).manual_seed(2024)
        self._device = device
        self._first: dict[int, Tensor] = {}
        self.rows = torch.empty(rows, vocab, dtype=DTYPES[dtype], device=device)
        for start in range(0, rows, PART):
            part = self.rows[start : start + PART]
            part.copy_(self._make(len(part), vocab, logits))

    def first(self, count: int) -> Tensor:
        """The first rows on the CPU: the same object each time, so that what is known of them is worked out once."""
        if count not in self._first:
            self._first[count] = self.rows[:count].cpu()
        return self._first[count]

    def inputs(self, batch: int, count: int) -> list[slice]:
        """Which rows the inputs of a batch size have: `count` of them at most, as many as there are."""
        return [slice(n * batch, (n + 1) * batch) for n in range(min(count, len(self.rows) // batch))]

    @cached_property
    def features(self) -> dict[str, Tensor]:
        """History, bias and bitmask of every row: the row's best tokens among them, so that they change the draw."""
        rows, vocab = self.rows.shape
        likely = torch.empty(rows, min(MOST_LIKELY, vocab), dtype=torch.int64, device=self._device)
        for start in range(0, rows, PART):
            likely[start : start + PART] = self.rows[start : start + PART].float().topk(likely.shape[1]).indices
        # As in text, a few ids make up a third, and most never occur.
        history = (self._uniform(rows, HISTORY) ** 8 * vocab).long().clamp(max=vocab - 1)
        history.scatter_(1, self._integers(HISTORY, (rows, likely.shape[1])), likely)
        ids = torch.cat([likely[:, :BIASES], self._integers(vocab, (rows, BIASES))], 1)[:, :BIASES]
        bias = self._uniform(rows, ids.shape[1]) - 0.5
        words = self._words(rows, vocab)
        best = likely[:, :1]
        words.scatter_(1, best // 32, words.gather(1, best // 32) | (1 << best % 32))
        return {
            "history": history.int(),
            "bias_ids": ids.int(),
            "bias": bias,
            "bitmask": torch.where(words >= 2**31, words - 2**32, words).int(),
        }

    def _make(self, rows: int, vocab: int, logits: str) -> Tensor:
        made = torch.randn(rows, vocab, generator=self._generator, device=self._device)
        if logits == "normal":
            return made.mul_(3)
        heavy = min(MOST_LIKELY, vocab)
        decay = 16 - 2 * torch.log(torch.arange(1, heavy + 1, dtype=torch.float32, device=self._device))
        return made.mul_(2).sub_(4).scatter_(1, self._integers(vocab, (rows, heavy)), decay.expand(rows, heavy))

    def _words(self, rows: int, vocab: int) -> Tensor:
        """Words of 32 bits, three quarters of them ones."""
        shape = (rows, (vocab + 31) // 32)
        return self._integers(2**32, shape) | self._integers(2**32, shape)

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self._generator, device=self._device)

    def _integers(self, high: int, shape: tuple[int, ...]) -> Tensor:
        return torch.randint(high, shape, generator=self._generator, device=self._device)


@lru_cache(maxsize=2)
def pool_of(vocab: int, dtype: str, logits: str, most: int, cold_bytes: int, device: torch.device) -> Pool:
    """Rows for batches of up to `most`, at least two such batches and at least `cold_bytes` of them."""
    rows = max(2 * most, -(-cold_bytes // (vocab * DTYPES[dtype].itemsize)))
    return Pool(vocab, dtype, logits, rows, device)


def inputs_of(point: Point, most: int, cold_bytes: int, device: torch.device) -> tuple[Pool, list[slice]]:
    """The rows for a point, and which of them each input has: one input if it is to be warm, else `cold_bytes` of them.

    `most` is the largest batch of the run, so that its points share their rows.
    """
    pool = pool_of(point.vocab, point.dtype, point.logits, most, cold_bytes, device)
    return pool, pool.inputs(point.rows, 1 if point.cache == "warm" else max(2, -(-cold_bytes // point.bytes)))


@lru_cache(maxsize=32)
def parameters(job: str, batch: int, device: torch.device) -> dict[str, Tensor]:
    """The filters, seed and position of a job, an entry for each row."""
    of_rows = [asdict(ROWS_OF[job][row % len(ROWS_OF[job])]) for row in range(batch)]
    dtypes = {"temperature": torch.float32, "top_k": torch.int32, "top_p": torch.float32, "min_p": torch.float32}
    made = {name: torch.tensor([row[name] for row in of_rows], dtype=dtype) for name, dtype in dtypes.items()}
    made["seed"] = SEED + torch.arange(batch)
    made["position"] = torch.full((batch,), POSITION)
    return {name: value.to(device) for name, value in made.items()}


def arguments(point: Point, pool: Pool, rows: slice) -> dict[str, Any]:
    """All that `sample` is given beside the logits, for the rows of one input."""
    given: dict[str, Any] = {**parameters(point.job, point.batch, pool.rows.device), "order": "hf"}
    if point.job == EVERYTHING:
        given |= {name: value[rows] for name, value in pool.features.items()}
        given |= {
            "prompt_length": HISTORY // 2,
            "repetition_penalty": PENALTIES.repetition,
            "frequency_penalty": PENALTIES.frequency,
            "presence_penalty": PENALTIES.presence,
            **REPORTS,
        }
    return given


def rows_of_arguments(given: dict[str, Any], rows: Sequence[int]) -> dict[str, Any]:
    """The arguments for some of the rows, on the CPU."""
    return {name: value[list(rows)].cpu() if isinstance(value, Tensor) else value for name, value in given.items()}
