"""Methods with penalties, a grammar's bitmask and log-probabilities: the fused call, and other ways to penalise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..backends import use
from .method import Bound, Method, batches
from .peers import TRANSFORMERS, Job, Peer
from .peers.penalties import Penalties, at_the_history, counts_over_vocabulary
from .verify import NotVerified, check_close, check_drawn, check_kept

PLAIN, PENALISED = "warpdraw.sample, plain", "warpdraw.sample with penalties"
COUNTS, GATHERED, REPETITION = "counts over V", "gather and scatter", "transformers' repetition penalty"
SEED = 7


@dataclass(frozen=True)
class Sequences:
    """Histories for rows of logits: ids i64 [B, length], of which the first half is the prompt.

    Among them are the row's best tokens, so that penalties change what is drawn. A row's history does not depend on how
    many rows follow it.
    """

    length: int = 1024

    @property
    def prompt(self) -> int:
        return self.length // 2

    def of(self, logits: Tensor) -> Tensor:
        ids_seed, places_seed = (torch.Generator().manual_seed(seed) for seed in (2024, 2025))
        likely = logits.float().topk(min(40, logits.shape[-1])).indices
        # As in text, a few ids make up a third, and most never occur.
        ids = (torch.rand(logits.shape[0], self.length, generator=ids_seed) ** 8 * logits.shape[-1]).long()
        places = torch.randint(self.length, (logits.shape[0], likely.shape[-1]), generator=places_seed)
        return ids.scatter_(1, places, likely)


@dataclass(frozen=True)
class Fused:
    """`sample` under a job, with penalties and whatever else is asked for, in one call."""

    job: Job
    penalties: Penalties | None = None
    sequences: Sequences = field(default_factory=Sequences)
    with_bitmask: bool = False
    options: tuple[tuple[str, Any], ...] = ()

    def arguments(self, logits: Tensor) -> dict[str, Any]:
        """All of the call but logits, position and options."""
        made: dict[str, Any] = {**asdict(self.job), "seed": SEED, "order": "hf"}
        if self.penalties:
            made |= {
                "history": self.sequences.of(logits).int(),
                "prompt_length": self.sequences.prompt,
                "repetition_penalty": self.penalties.repetition,
                "frequency_penalty": self.penalties.frequency,
                "presence_penalty": self.penalties.presence,
            }
        if self.with_bitmask:
            made["bitmask"] = bitmask_of(logits)
        return made

    def method(self, name: str) -> Method:
        """The eager Python call."""

        def bind(inputs: Sequence[Tensor]) -> Bound:
            positions = count()
            given = [self.arguments(x) | dict(self.options) for x in inputs]
            return lambda number: ops.sample(inputs[number], position=next(positions), **given[number])

        def check(rows: Tensor, results: list[Any]) -> None:
            batch = len(results[0][0])
            for number, (logits, result) in enumerate(zip(batches(rows, batch), results, strict=True)):
                self._check(name, logits, number, result)

        counted = ["the Python call", *(["bitmask"] if self.with_bitmask else []), *dict(self.options)]
        return Method(name, ", ".join([*counted, *(["penalties"] if self.penalties else [])]), bind, check)

    def _check(self, name: str, logits: Tensor, position: int, result: Any) -> None:
        edited = self.edited(logits)
        arguments = self.arguments(logits)
        filters = {key: value for key, value in arguments.items() if key != "seed"}
        kept = ops.filter_logits(logits, **filters) > -torch.inf
        check_kept(name, kept, edited, self.job)
        check_drawn(name, result[0], edited, self.job)
        with use("scalar"):
            expected = ops.sample(logits, position=position, **arguments | dict(self.options))
        for field_name, got, want in zip(expected._fields, result, expected, strict=True):
            if want is not None and not torch.equal(got, want):
                raise NotVerified(f"{name} does not give the {field_name} of the scalar oracle")
        if "top_n" in dict(self.options):
            shown = edited.masked_fill(~kept, -torch.inf) if dict(self.options).get("top_of") == "filtered" else logits
            best = shown.double().log_softmax(-1).topk(result[-1].shape[-1]).values.float()
            check_close(name, "the log-probabilities", result[-1], best)

    def edited(self, logits: Tensor) -> Tensor:
        """What the filters see, by definition: penalties token by token in float64, then the bitmask."""
        x = _by_definition(logits, self.sequences, self.penalties) if self.penalties else logits.double()
        if self.with_bitmask:
            x = x.masked_fill(~_allowed(logits), -torch.inf)
        return x.float()


def _allowed(logits: Tensor) -> Tensor:
    """Two thirds of the tokens, at random, and the best one: bool [B, V]."""
    allowed = torch.rand(logits.shape, generator=torch.Generator().manual_seed(7)) < 2 / 3
    return allowed.scatter_(1, logits.argmax(-1, keepdim=True), True)


def bitmask_of(logits: Tensor) -> Tensor:
    """The same as bits, int32 [B, ceil(V / 32)]."""
    B, V = logits.shape
    bits = torch.nn.functional.pad(_allowed(logits), (0, -V % 32)).view(B, -1, 32).long()
    words = (bits << torch.arange(32)).sum(-1)
    return torch.where(words >= 2**31, words - 2**32, words).int()


def penalise(name: str, penalties: Penalties, sequences: Sequences, peers: Mapping[str, Peer]) -> Method:
    """Other ways to the penalised logits [B, V], without a draw."""
    only_repetition = Penalties(penalties.repetition, 0.0, 0.0)
    wanted = only_repetition if name == REPETITION else penalties

    def bind(inputs: Sequence[Tensor]) -> Bound:
        run = _penaliser(name, penalties, sequences)
        histories = [sequences.of(x) for x in inputs]
        return lambda number: run(inputs[number], histories[number])

    def check(rows: Tensor, results: list[Tensor]) -> None:
        for logits, result in zip(batches(rows, len(results[0])), results, strict=True):
            check_close(name, "the penalised logits", result, _by_definition(logits, sequences, wanted))

    needs = (TRANSFORMERS,) if name == REPETITION and TRANSFORMERS not in peers else ()
    return Method(name, "the penalised logits only, no draw", bind, check, needs=needs)


def _penaliser(name: str, penalties: Penalties, sequences: Sequences) -> Callable[[Tensor, Tensor], Tensor]:
    if name == REPETITION:
        from .peers.transformers import repetition_penalty

        processor = repetition_penalty(penalties.repetition)
        return lambda logits, history: processor(history, logits)
    run = {COUNTS: counts_over_vocabulary, GATHERED: at_the_history}[name]
    return lambda logits, history: run(logits, history, sequences.prompt, penalties)


def _by_definition(logits: Tensor, sequences: Sequences, penalties: Penalties) -> Tensor:
    """Token by token, in float64."""
    penalised = logits.double()
    for row, history in zip(penalised, sequences.of(logits).tolist(), strict=True):
        output = history[sequences.prompt :]
        for token in set(history):
            x = row[token].item()
            x = x / penalties.repetition if x > 0 else x * penalties.repetition
            row[token] = x - penalties.frequency * output.count(token) - penalties.presence * (token in output)
    return penalised
