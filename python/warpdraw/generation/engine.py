"""Engine: requests that come and go, drawn for in one running batch with a fixed number of slots."""

from __future__ import annotations

from collections import deque
from time import perf_counter

import torch
from torch import Tensor

from ..model.cache import KVCache
from ..model.weights import Checkpoint
from .draw import Draws
from .graph import Graphs
from .place import Drawn
from .results import Event, Throughput
from .row import Request, Row
from .speculation import Speculation
from .verifying import Speculative
from .vocabulary import Vocabulary

# A prompt is read in parts of this many tokens, because what the layers compute for a part exists at once.
PREFILL_TOKENS = 512
# The cache starts with room for this many tokens after the longest prompt and grows when they do not suffice.
FIRST_TOKENS = 256
# Why a step runs without a graph.
DRAFTED = "steps with drafts differ in the number of tokens"


class Engine:
    """Runs requests step by step; `throughput` counts as it goes."""

    def __init__(
        self,
        model: Checkpoint,
        slots: int,
        capacity: int,
        explain: int = 0,
        graphs: bool | None = None,
        speculation: Speculation | None = None,
    ) -> None:
        self.throughput = Throughput()
        self._checkpoint, self._draws = model, Draws(Vocabulary(model), explain)
        self._device = model.model.embedding.weight.device
        self._with_graphs = self._device.type == "cuda" if graphs is None else graphs
        self._waiting: deque[tuple[Request, range]] = deque()
        self._running: list[Row] = []
        self._free = list(range(slots))
        self._speculative: Speculative | None = None
        with torch.inference_mode():
            self._cache = KVCache(model.config, slots, capacity, model.model.embedding.weight.dtype, self._device)
            if speculation is not None:
                self._speculative = Speculative(
                    model, self._cache, speculation, self._draws, self.throughput, PREFILL_TOKENS
                )
        self._graphs = Graphs(model.model, self._cache, self._draws, self.throughput)

    def add(self, request: Request) -> None:
        """Let a request wait for slots. The samples of a prompt start together, as far as there are slots for them."""
        slots = self._cache.slots
        for first in range(0, request.params.n, slots):
            self._waiting.append((request, range(first, min(first + slots, request.params.n))))

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not (self._waiting or self._running)

    def step(self) -> list[Event]:
        """Read the prompts for which there are slots, and draw the next token, or several, of each running sample."""
        running = self._running
        with torch.inference_mode():
            started, logits = perf_counter(), []

            # prefill
            admitted: list[Row] = []
            while self._waiting and len(self._waiting[0][1]) <= len(self._free):
                rows, last = self._prefill(*self._waiting.popleft())
                admitted += rows
                logits.append(last)
            prefilled = perf_counter()

            # decode
            if self._speculative is not None:
                events = self._speculative.events(running, admitted, logits)
                if self._with_graphs:
                    counted = self.throughput.eager_steps
                    counted[DRAFTED] = counted.get(DRAFTED, 0) + 1
                running += admitted
            else:
                drawn = self._graphs.step(running) if self._with_graphs and not admitted else None
                if drawn is None:
                    if running:
                        logits.insert(0, self._decode(running))
                    running += admitted
                    drawn = self._draw(logits, running)
                events = [row.advance(result) for row, result in zip(running, drawn, strict=True)]

            self.throughput.prefill_seconds += prefilled - started
            self.throughput.decode_seconds += perf_counter() - prefilled
            self.throughput.completion_tokens += sum(len(event.token_ids) for event in events)
        self._free += [row.slot for row in running if row.finished]
        self._running = [row for row in running if not row.finished]
        return events

    def _draw(self, logits: list[Tensor], rows: list[Row]) -> list[Drawn]:
        return self._draws.draw(torch.cat(logits) if len(logits) > 1 else logits[0], [row.place for row in rows])

    def _prefill(self, request: Request, samples: range) -> tuple[list[Row], Tensor]:
        """Read a prompt into the slot of its first sample, copied for the others; logits [n, V] after its end."""
        slots = [self._free.pop(0) for _ in samples]
        for slot in slots:
            self._cache.truncate(slot, 0)
        for start in range(0, len(request.ids), PREFILL_TOKENS):
            part = torch.tensor([request.ids[start : start + PREFILL_TOKENS]], device=self._device)
            logits = self._checkpoint.model(part, self._cache, torch.tensor(slots[:1]), last=True)
        self._cache.copy(slots[0], slots[1:])
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.throughput.prompt_tokens += len(request.ids)
        rows = [Row(self._checkpoint, request, sample, slot) for sample, slot in zip(samples, slots, strict=True)]
        if self._speculative is not None:
            self._speculative.admit(rows)
        return rows, logits[:, -1].expand(len(rows), -1)

    def _decode(self, rows: list[Row]) -> Tensor:
        """Logits [B, V] after the last token of each row."""
        tokens = torch.tensor([row.tokens[-1:] for row in rows], device=self._device)
        logits: Tensor = self._checkpoint.model(tokens, self._cache, torch.tensor([row.slot for row in rows]))
        return logits[:, -1]
