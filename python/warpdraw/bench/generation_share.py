"""What sampling takes of a decode step: the call of the op, and all that is done around it for a draw."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

from ..generation.engine import Engine
from ..model.weights import Checkpoint
from .generation_jobs import Figure, Options, uniform

BATCHES = (1, 32)
# Steps before these are those in which prompts are read and tensors are made.
FIRST_STEP = 3
OP_TARGET = 0.05


class _Watched:
    """A function whose calls are timed, in the place of a method of an object."""

    def __init__(self, owner: Any, name: str) -> None:
        self.seconds = 0.0
        self._function = getattr(owner, name)
        setattr(owner, name, self)

    def __call__(self, *args: Any) -> Any:
        begun = perf_counter()
        try:
            return self._function(*args)
        finally:
            self.seconds += perf_counter() - begun


def shares(model: Checkpoint, batch: int, steps: int, quick: bool) -> dict[str, float]:
    """Medians of a step of `batch` rows in seconds, and of the parts of it that the op and the whole draw are."""
    job = uniform(model, batch, quick)
    engine = Engine(model, batch)
    for prompt, params in zip(job.prompts, job.params(), strict=True):
        engine.add(prompt, params)
    for _ in range(FIRST_STEP):
        engine.step()
    draws = _Watched(engine._draws, "draw")
    ops = [_Watched(each, "sample") for each in engine._draws._batches.values()]
    whole: list[float] = []
    drawn: list[float] = []
    called: list[float] = []
    for _ in range(min(steps, job.lengths[0] - FIRST_STEP - 1)):
        draws.seconds, ops[0].seconds = 0.0, 0.0
        begun = perf_counter()
        engine.step()
        whole.append(perf_counter() - begun)
        drawn.append(draws.seconds / whole[-1])
        called.append(ops[0].seconds / whole[-1])
    return {"step_seconds": median(whole), "draw": median(drawn), "op": median(called)}


def sampling_share(
    model: Checkpoint, options: Options, tell: Callable[[float], None]
) -> tuple[list[Figure], dict[str, Any]]:
    """The share of a step, at a batch of one and of many."""
    job = "sampling's share of a decode step"
    figures, detail = [], {}
    for number, batch in enumerate(BATCHES):
        runs = [shares(model, batch, 80, options.quick) for _ in range(options.rounds)]
        found = {name: median(run[name] for run in runs) for name in runs[0]}
        detail[f"batch {batch}"] = found
        figures += [
            Figure(job, f"batch {batch}, the call of the op", 100 * found["op"], "%", 100 * OP_TARGET, False),
            Figure(job, f"batch {batch}, with all of its Python", 100 * found["draw"], "%"),
        ]
        tell((number + 1) / len(BATCHES))
    return figures, detail
