"""Decode steps as CUDA graphs: model and draw of rows that stay together, on tensors that stay where they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..model.cache import KVCache
from ..model.transformer import Transformer
from .draw import Batch, Draws
from .place import Drawn
from .results import Throughput
from .row import Row

# Attention looks at a multiple of this many places, so that one graph serves as many steps.
PLACES = 256
# Rows that have been together for so many steps are expected to stay; a graph costs about as much as some steps do.
STEPS_BEFORE = 2

Capture = Callable[[Callable[[], None]], Callable[[], None]]


class Graphs:
    """Decides step by step whether a graph runs it, and counts in a Throughput what ran and why a graph did not."""

    def __init__(self, model: Transformer, cache: KVCache, draws: Draws, throughput: Throughput) -> None:
        self._model, self._cache, self._draws, self._throughput = model, cache, draws, throughput
        device = model.embedding.weight.device
        self._capture = captured if device.type == "cuda" else directly
        self._graph: _Graph | None = None
        self._together = 0
        self._batch: Batch | None = None
        self._off = ""  # why there are no graphs any more

    def step(self, rows: Sequence[Row]) -> list[Drawn] | None:
        """The next token of each row; None where the step has to run without a graph."""
        batch = self._draws.batch_of([row.place for row in rows])
        self._together = self._together + 1 if batch is not None and batch is self._batch else 0
        self._batch = batch
        reason = self._off or self._reason(batch)
        if batch is not None and not reason:
            reason = self._make_ready(rows, batch)
        if batch is None or self._graph is None or reason:
            self._graph = None
            counted = self._throughput.eager_steps
            counted[reason] = counted.get(reason, 0) + 1
            return None
        self._throughput.graph_steps += 1
        logits, result = self._graph.run()
        self._cache.advance(self._graph.slots, 1)
        return batch.finish(logits, result)

    def forget(self) -> None:
        """Start anew: tokens and positions are no longer those of the last step."""
        self._graph = None

    def _reason(self, batch: Batch | None) -> str:
        if self._draws.explains:
            return "explained steps compute more than a draw"
        if batch is None:
            return "rows came or went, or differ in the order of filters or in what is reported"
        if any(place.params.guidance != 1 for place in batch.places):
            return "guided rows read two slots"
        if batch.mirostat is not None:
            return "mirostat chooses its filter on the host"
        if self._together < STEPS_BEFORE:
            return "the rows have just come together"
        return ""

    def _make_ready(self, rows: Sequence[Row], batch: Batch) -> str:
        """Have a graph that fits; the reason if there is none."""
        slots = torch.tensor([row.slot for row in rows])
        needed = int(self._cache.lengths[slots].max()) + 1
        self._cache.grow(needed)
        places = min(self._cache.capacity, -(-needed // PLACES) * PLACES)
        where = (self._cache.capacity, places, *batch.storage())
        batch.read_bitmasks()
        if self._graph is not None and self._graph.where == where:
            return ""
        try:
            self._graph = _Graph(self._model, self._cache, rows, batch, places, where, self._capture)
        except RuntimeError as error:  # whatever a capture forbids
            self._graph = None
            self._off = f"the step cannot be captured: {str(error).splitlines()[0]}"
            return self._off
        self._throughput.graphs += 1
        return ""


class _Graph:
    """One captured step: each run draws the next token of the same rows."""

    def __init__(
        self,
        model: Transformer,
        cache: KVCache,
        rows: Sequence[Row],
        batch: Batch,
        places: int,
        where: tuple[int, ...],
        capture: Capture,
    ) -> None:
        self._model, self._cache, self._batch, self._places, self.where = model, cache, batch, places, where
        device = model.embedding.weight.device
        self.slots = torch.tensor([row.slot for row in rows])
        self._slots = self.slots.to(device)
        self._tokens = torch.tensor([[row.last] for row in rows], device=device)
        self._positions = cache.lengths[self.slots][:, None].to(device)
        self._logits: Tensor
        self._result: Any
        changed = (self._tokens, self._positions, batch.position)
        before = [tensor.clone() for tensor in changed]
        # Once without a capture, which loads what a capture must not; the keys that it writes are written again.
        _aside(device, self._step)
        for tensor, value in zip(changed, before, strict=True):
            tensor.copy_(value)
        self._replay = capture(self._step)

    def run(self) -> tuple[Tensor, Any]:
        """The logits [B, V] of the step and what was drawn from them, valid until the next run."""
        self._replay()
        return self._logits, self._result

    def _step(self) -> None:
        self._logits = self._model.decode(self._tokens, self._cache, self._slots, self._positions, self._places)
        self._result = self._batch.sample(self._logits)
        self._batch.position.add_(1)
        # A row without a token ends; until then it must name one.
        self._tokens.copy_(self._result.tokens[:, None].clamp(min=0))
        self._positions.add_(1)


def captured(step: Callable[[], None]) -> Callable[[], None]:
    """A CUDA graph of the step."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    replay: Callable[[], None] = graph.replay
    return replay


def directly(step: Callable[[], None]) -> Callable[[], None]:
    """The step itself: the same code where there are no graphs, for tests."""
    return step


def _aside(device: torch.device, step: Callable[[], None]) -> None:
    """Run a step; on a GPU on a stream of its own, as captures want it."""
    if device.type != "cuda":
        step()
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream(device).wait_stream(stream)
