"""Decode steps as CUDA graphs: model and draw of a bucket of rows, on tensors that stay where they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..history import TokenHistory
from ..model.cache import KVCache
from ..model.transformer import Transformer
from .draw import LISTS, Batch, Draws
from .place import Drawn
from .results import Throughput
from .row import Row

# Attention looks at a multiple of this many places, so that one graph serves as many steps.
PLACES = 256
# A graph costs about as much as some steps do, so it is made after so many that it could have run.
STEPS_BEFORE = 2
# So many graphs are kept; each holds the memory of its step.
MOST_GRAPHS = 32

Capture = Callable[[Callable[[], None]], Callable[[], None]]
Key = tuple[Any, ...]


class Graphs:
    """Decides step by step whether a graph runs it, and counts in a Throughput what ran and why a graph did not.

    A graph is for a bucket of 1, 2, 4, 8 and so on rows, and for the parameters that these have: it serves whichever
    rows they are. Rows that are missing in a bucket read and write the last slot of the cache, which no request has.
    """

    def __init__(self, model: Transformer, cache: KVCache, draws: Draws, throughput: Throughput) -> None:
        self._model, self._cache, self._draws, self._throughput = model, cache, draws, throughput
        self._device = model.embedding.weight.device
        self._capture = captured if self._device.type == "cuda" else directly
        self._graphs: dict[Key, _Graph] = {}
        self._wanted: Counter[Key] = Counter()
        self._off = ""  # why there are no graphs any more

    def step(self, rows: Sequence[Row]) -> list[Drawn] | None:
        """The next token of each row; None where the step has to run without a graph."""
        batch = None
        if not self._draws.explains:
            batches = self._draws.batches([row.place for row in rows], self._device)
            batch = batches[0][1] if len(batches) == 1 else None
        reason = self._off or self._reason(batch)
        graph: _Graph | None = None
        if batch is not None and not reason:
            graph, reason = self._graph_for(rows, batch)
        if batch is None or graph is None:
            counted = self._throughput.eager_steps
            counted[reason] = counted.get(reason, 0) + 1
            return None
        self._throughput.graph_steps += 1
        logits, result = graph.run()
        self._cache.advance(graph.slots, 1)
        return batch.finish(logits, result)

    def forget(self) -> None:
        """Take note that tokens and positions of rows are no longer those that a graph has left."""
        for graph in self._graphs.values():
            graph.loaded = None

    def _reason(self, batch: Batch | None) -> str:
        if self._draws.explains:
            return "explained steps compute more than a draw"
        if batch is None:
            return "rows differ in the order of filters or in what is reported"
        if any(place.params.guidance != 1 for place in batch.places):
            return "guided rows read two slots"
        if batch.mirostat is not None:
            return "mirostat chooses its filter on the host"
        return ""

    def _graph_for(self, rows: Sequence[Row], batch: Batch) -> tuple[_Graph | None, str]:
        """A graph that is ready for these rows; or the reason why there is none."""
        slots = torch.tensor([row.slot for row in rows])
        needed = int(self._cache.lengths[slots].max()) + 1
        if needed > self._cache.capacity:
            self._cache.grow(needed)
            self._graphs.clear()
        places = min(self._cache.capacity, -(-needed // PLACES) * PLACES)
        size = bucket(len(rows))
        key = (size, places, self._cache.capacity, *_kind(batch))
        graph = self._graphs.get(key)
        self._wanted[key] += 1
        if graph is None and self._wanted[key] <= STEPS_BEFORE:
            return None, "there have been few steps of the kind"
        batch.read_bitmasks()
        if graph is None:
            try:
                graph = _Graph(self._model, self._cache, rows, batch, size, places, self._capture)
            except RuntimeError as error:  # whatever a capture forbids
                self._off = f"the step cannot be captured: {str(error).splitlines()[0]}"
                return None, self._off
            if len(self._graphs) == MOST_GRAPHS:
                del self._graphs[next(iter(self._graphs))]
            self._graphs[key] = graph
            self._throughput.graphs += 1
        graph.load(rows, batch)
        for each in self._graphs.values():  # what another one holds of rows is old from now on
            if each is not graph:
                each.loaded = None
        return graph, ""


class _Graph:
    """One captured step of a bucket: each run draws the next token of the rows that were loaded."""

    def __init__(
        self,
        model: Transformer,
        cache: KVCache,
        rows: Sequence[Row],
        batch: Batch,
        size: int,
        places: int,
        capture: Capture,
    ) -> None:
        self._model, self._cache, self._places = model, cache, places
        device = model.embedding.weight.device
        self._tokens = torch.zeros(size, 1, dtype=torch.int64, device=device)
        self._positions = torch.zeros(size, 1, dtype=torch.int64, device=device)
        self._slots = torch.zeros(size, dtype=torch.int64, device=device)
        self._inputs: dict[str, Any] = {
            name: _roomy(name, value, size) if isinstance(value, Tensor) else value
            for name, value in batch.arguments.items()
        }
        self._position: Tensor = self._inputs["position"]
        self._history: TokenHistory | None = None
        if batch.history is not None:
            self._history = batch.history.roomy(size, bucket(batch.history.capacity))
        self._reports = batch.reports.arguments
        self.slots = torch.tensor([], dtype=torch.int64)
        self.loaded: tuple[Any, ...] | None = None
        self._logits: Tensor
        self._result: Any

        self.load(rows, batch)
        changed = (self._tokens, self._positions, self._position)
        before = [tensor.clone() for tensor in changed]
        # Once without a capture, which loads what a capture must not; the keys that it writes are written again.
        _aside(device, self._step)
        for tensor, value in zip(changed, before, strict=True):
            tensor.copy_(value)
        self._replay = capture(self._step)

    def load(self, rows: Sequence[Row], batch: Batch) -> None:
        """Take these rows, unless the last run has left them here; the tensors of the batch are those of the graph."""
        if self.loaded == (batch, *batch.storage()):
            return
        count, device = len(rows), self._tokens.device
        self.slots = torch.tensor([row.slot for row in rows])
        self._slots.fill_(self._cache.slots - 1)
        self._slots[:count] = self.slots.to(device)
        self._positions.zero_()
        self._positions[:count] = self._cache.lengths[self.slots][:, None].to(device)
        self._tokens[:count] = torch.tensor([[row.last] for row in rows], device=device)
        own = {name: value for name, value in self._inputs.items() if isinstance(value, Tensor)}
        batch.move(own, self._history)
        self.loaded = (batch, *batch.storage())

    def run(self) -> tuple[Tensor, Any]:
        """The logits [B, V] of the step and what was drawn from them, valid until the next run."""
        self._replay()
        count = len(self.slots)
        each = (None if tensor is None else tensor[:count] for tensor in self._result)
        return self._logits[:count], self._result._make(each)

    def _step(self) -> None:
        logits = self._model.decode(self._tokens, self._cache, self._slots, self._positions, self._places)
        self._logits = logits[:, 0]
        history = self._history.inputs if self._history is not None else {}
        self._result = ops.sample(self._logits, **self._inputs, **history, **self._reports)
        self._position.add_(1)
        # A row without a token ends; until then it must name one.
        self._tokens.copy_(self._result.tokens[:, None].clamp(min=0))
        self._positions.add_(1)


def bucket(count: int) -> int:
    """The smallest power of two that is at least `count`."""
    return 1 << (count - 1).bit_length()


def _kind(batch: Batch) -> Key:
    """What graphs of a batch have in common: which parameters there are, how wide they are, and what is reported."""
    inputs = tuple(
        (name, value if not isinstance(value, Tensor) else _width(name, value))
        for name, value in batch.arguments.items()
    )
    history = bucket(batch.history.capacity) if batch.history is not None else 0
    return (*inputs, history, *batch.reports.arguments.items())


def _width(name: str, tensor: Tensor) -> tuple[int, ...]:
    return tuple(bucket(size) if name in LISTS else size for size in tensor.shape[1:])


def _roomy(name: str, tensor: Tensor, rows: int) -> Tensor:
    """A tensor for so many rows, each with what a row of this one has."""
    room = tensor.new_full((rows, *_width(name, tensor)), 0 if name == "bias" else -1)
    room[(slice(None), *map(slice, tensor.shape[1:]))] = tensor[:1]
    return room


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
