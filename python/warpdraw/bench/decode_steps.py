"""Measures decode steps of one model at one batch size: the model alone, and with each sampler after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from .. import ops
from ..generation.graph import captured
from ..model.cache import KVCache
from ..model.transformer import Transformer
from .gpu_clock import EVENTS, Clock, Run
from .gpu_jobs import COMBINED, ROWS_OF, parameters
from .gpu_methods import OURS
from .gpu_work import VERIFIED_ROWS
from .peers import Peer
from .verify import NotVerified, check_drawn, check_equal, check_weights

MODEL = "the model alone"
STEPS_VERIFIED = 3

Draw = Callable[[Tensor], Any]
Made = TypeVar("Made")


class Steps:
    """The same tokens at the last place of each slot in every step, so that all methods have the same logits."""

    def __init__(self, model: Transformer, cache: KVCache, batch: int, clock: Clock, peers: dict[str, Peer]) -> None:
        device = clock.device
        self._model, self._cache, self._clock, self._peers, self.batch = model, cache, clock, peers, batch
        generator = torch.Generator(device).manual_seed(batch)
        self._tokens = torch.randint(model.config.vocab_size, (batch, 1), generator=generator, device=device)
        self._slots = torch.arange(batch, device=device)
        self._positions = torch.full((batch, 1), cache.capacity - 1, device=device)
        self._arguments: dict[str, Any] = {**parameters(COMBINED, batch, device), "order": "hf"}
        self._position = self._arguments["position"] = self._arguments["position"].clone()
        self.drawn = torch.zeros(batch, dtype=torch.int64, device=device)

    def _forward(self) -> Tensor:
        places = self._cache.capacity
        return self._model.decode(self._tokens, self._cache, self._slots, self._positions, places)[:, 0]

    def draws(self) -> dict[str, Draw]:
        """What follows the model in each method; it writes to `drawn`."""
        job = ROWS_OF[COMBINED][0]
        peers = {
            name: lambda logits, peer=peer: self.drawn.copy_(peer.draw(logits, job))
            for name, peer in self._peers.items()
        }
        return {OURS: self.draw, **peers}

    def draw(self, logits: Tensor) -> None:
        """Our op, and the next position."""
        ops.sample(logits, **self._arguments, tokens=self.drawn)
        self._position.add_(1)

    def measure(self, seconds: float, fail: Callable[[str, Exception], None]) -> list[dict[str, Any]]:
        """A record for each method that is verified; `fail` is told of the others."""
        steps: dict[str, Run] = {MODEL: self._clock.bind(lambda _: self._forward(), 1)}
        alone: dict[str, Run] = {}
        logits = self._forward()
        check_finite(logits)
        for name, draw in self.draws().items():
            try:
                self._check(name, draw, logits)
                alone[name] = self._clock.bind(lambda _, draw=draw: draw(logits), 1)  # type: ignore[misc]
                steps[name] = bind_after(self._clock, self._forward, draw)
                self._check_step(name, steps[name], logits)
            except Exception as error:  # whatever other people's code raises
                fail(name, error)
                steps.pop(name, None)
                alone.pop(name, None)
        times, own = self._clock.time_in_turn(steps, seconds), self._clock.time_in_turn(alone, seconds / 4)
        model = times[MODEL].median
        return [
            {
                "batch": self.batch,
                "method": name,
                **timing.record(),
                "way": steps[name].way,
                "reason": steps[name].reason,
                "share": max(0.0, 1 - model / timing.median),
                "tokens_per_second": self.batch / timing.median,
                "sampler": None if name == MODEL else own[name].record() | {"way": alone[name].way},
            }
            for name, timing in times.items()
        ]

    def _check(self, name: str, draw: Draw, logits: Tensor) -> None:
        """Ours draws what the CPU backend draws, at each of several positions; a peer, what the filters keep."""
        rows, job = logits[:VERIFIED_ROWS].cpu(), ROWS_OF[COMBINED][0]
        if name != OURS:
            peer = self._peers[name]
            if peer.probs is not None:
                check_weights(name, peer.probs(logits, job)[: len(rows)].cpu(), rows, job)
        for _ in range(STEPS_VERIFIED):
            wanted = self._of_cpu(logits)
            draw(logits)
            if name == OURS:
                check_equal(name, self.drawn.cpu(), wanted, "the CPU backend")
            check_drawn(name, self.drawn[: len(rows)].cpu(), rows, job)

    def _check_step(self, name: str, run: Run, logits: Tensor) -> None:
        """The tokens that a timed step leaves are those of the step's logits."""
        self.drawn.fill_(-1)
        run.seconds()
        if name == OURS:
            self._position.sub_(1)
            wanted = self._of_cpu(logits)
            self._position.add_(1)
            check_equal(name, self.drawn.cpu(), wanted, "the CPU backend")
        rows = logits[:VERIFIED_ROWS].cpu()
        check_drawn(name, self.drawn[: len(rows)].cpu(), rows, ROWS_OF[COMBINED][0])

    def _of_cpu(self, logits: Tensor) -> Tensor:
        given = {key: value.cpu() if isinstance(value, Tensor) else value for key, value in self._arguments.items()}
        tokens: Tensor = ops.sample(logits.cpu(), **given).tokens
        return tokens


def check_finite(logits: Tensor) -> None:
    """Random weights have not gone astray."""
    if not bool(logits.isfinite().all()):
        raise NotVerified("the logits of the model are not finite")


def bind_after(clock: Clock, forward: Callable[[], Made], then: Callable[[Made], Any]) -> Run:
    """Make a step ready: a model, and what follows on what it makes.

    If that waits for the device it comes after a graph of the model, as engines do it.
    """
    run = clock.bind(lambda _: then(forward()), 1)
    if run.way != EVENTS:
        return run
    made: list[Made] = []  # what the replayed graph writes
    replay = captured(lambda: made.append(forward()))

    def call(number: int) -> Any:
        replay()
        return then(made[0])

    return clock.bind(call, 1)
