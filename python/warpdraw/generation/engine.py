"""Engine: requests that come and go, drawn for in one running batch with a fixed number of slots."""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from collections.abc import Callable
from time import monotonic, perf_counter

import torch
from torch import Tensor

from ..model.cache import KVCache
from ..model.weights import Checkpoint
from .draw import Draws
from .graph import Graphs
from .guidance import Guidance
from .params import SamplingParams
from .place import Drawn
from .prompts import Prompts
from .request import Prompt, Request, request_of
from .results import Event, FinishReason, Throughput
from .row import NO_SLOT, Row
from .speculation import Speculation, speculation_of
from .strategies import refuse_with_drafts
from .verifying import Speculative
from .vocabulary import Vocabulary

# On the CPU a prompt is read in parts of this many tokens, whatever else a step does: other parts, other bits.
PREFILL_TOKENS = 128
# How many prompt tokens a step reads where nothing else is said, and the parts of a prompt where bits are not promised.
STEP_TOKENS = 512
# The cache starts with room for this many tokens and grows when they do not suffice.
FIRST_TOKENS = 256
# Why a step runs without a graph.
DRAFTED = "steps with drafts differ in the number of tokens"


class EngineFull(RuntimeError):
    """As many requests wait as an engine's `max_waiting` allows."""


class Engine:
    """Generation for a loop or a server of one's own: requests join and leave a running batch between any two steps.

    `add` gives a request an id, and `step` draws the next token of every running sample. Requests wait in the order in
    which they came until there is a slot for each of their n samples (or all slots, for as many of them). A step reads
    at most `prefill_tokens` tokens of prompts beside that, so that a long prompt does not hold up those that run. The
    tokens of a request are those that `generate` draws for it alone: whoever else is there, whenever they join or leave
    (float32 on the CPU).

    What goes wrong in one request (no candidate is left, or its ``bitmask`` function raises) ends it with finish_reason
    "error" and the others go on. What the model raises (no memory is left) comes out of `step`, and ends the engine.
    An engine is for one thread.

    Args:
        model: the checkpoint that all requests draw from.
        slots: the most samples that run at once; a guided one counts as two.
        context: the most tokens of a sample, prompt included; None is the model's own limit.
        prefill_tokens: the most prompt tokens that a step reads, at least 128; None is no limit.
        max_waiting: the most requests that wait to be started; None is no limit.
        capacity: how many tokens of each slot the cache has room for at first. It doubles when a sample is longer, up
            to `context`, and holds both copies while it does; ``capacity=context`` allocates all at once.
        explain: how many leading candidates each event's `step` reports; 0 is none.
        graphs: whether decode steps run as CUDA graphs, one for each bucket of 1, 2, 4, 8 and so on rows; None is where
            the model is on a GPU. On the CPU True runs the same steps without a graph.
        draft: what drafts tokens, as for `generate`.
        clock: seconds from any start, which deadlines are measured by.
        raises: whether what a request's own function raises comes out of `step`, as with `generate`, instead.

    Attributes:
        throughput: tokens and seconds so far.

    Raises:
        TypeError, ValueError: the message names the argument, what is allowed and what it was.

    >>> from warpdraw import Engine, SamplingParams, load
    >>> engine = Engine(load("tiny-target"), slots=2)
    >>> one = engine.add("The sky is", SamplingParams(seed=7, max_tokens=3))
    >>> engine.step()[0].text
    ' blue'
    >>> two = engine.add("The grass is", SamplingParams(seed=7), deadline=60.0)
    >>> engine.cancel(one)
    True
    >>> [(event.index == one, event.finish_reason) for event in engine.step()]
    [(True, 'cancelled'), (False, None)]
    """

    def __init__(
        self,
        model: Checkpoint,
        slots: int = 8,
        context: int | None = None,
        *,
        prefill_tokens: int | None = STEP_TOKENS,
        max_waiting: int | None = None,
        capacity: int | None = None,
        explain: int = 0,
        graphs: bool | None = None,
        draft: Speculation | Checkpoint | str | None = None,
        clock: Callable[[], float] = monotonic,
        raises: bool = False,
    ) -> None:
        most = model.config.max_positions
        self.context = most if context is None else _integer("context", context, 2, most)
        _integer("slots", slots, 1)
        _integer("explain", explain, 0)
        if prefill_tokens is not None:
            _integer("prefill_tokens", prefill_tokens, PREFILL_TOKENS)
        if max_waiting is not None:
            _integer("max_waiting", max_waiting, 1)
        if capacity is None:
            capacity = min(FIRST_TOKENS, self.context)
        _integer("capacity", capacity, 1, self.context)
        self._speculation = None if draft is None else speculation_of(draft, model)

        self.throughput = Throughput()
        self._checkpoint, self._vocabulary, self._clock, self._max_waiting = (
            model,
            Vocabulary(model),
            clock,
            max_waiting,
        )
        self._draws = Draws(self._vocabulary, explain, raises=raises)
        self._device = model.model.embedding.weight.device
        self._with_graphs = self._device.type == "cuda" if graphs is None else graphs
        budget = math.inf if prefill_tokens is None else prefill_tokens
        self._part = PREFILL_TOKENS if self._device.type == "cpu" else int(min(STEP_TOKENS, budget))

        self._waiting: deque[tuple[Request, range]] = deque()
        self._running: list[Row] = []
        self._slots, self._free = slots, list(range(slots))
        self._next_id = 0
        self._left: dict[int, int] = {}  # how many samples of each request have not ended
        self._deadlines: dict[int, float] = {}
        self._ended: dict[int, FinishReason] = {}  # requests that end before the next step
        self._speculative: Speculative | None = None
        with torch.inference_mode():
            dtype = model.model.embedding.weight.dtype
            # The rows that a graph's bucket has too many write to a slot of their own.
            spare = 1 if self._with_graphs else 0
            self._cache = KVCache(model.config, slots + spare, capacity, dtype, self._device, self.context)
            if self._speculation is not None:
                self._speculative = Speculative(
                    model, self._cache, self._speculation, self._draws, self.throughput, self._part
                )
        self._graphs = Graphs(model.model, self._cache, self._draws, self.throughput)
        self._guidance = Guidance(model.model, self._cache, self._part)
        self._prompts = Prompts(model.model, self._cache, self._part, budget)

    @property
    def memory_bytes(self) -> int:
        """What the cache takes when samples of `context` tokens fill all slots: keys and values, those of a draft
        model included. It never takes more, but for the copy while it grows.
        """
        drafts = 0 if self._speculative is None else self._speculative.memory_bytes
        return self._cache.bytes_of(self.context) + drafts

    @property
    def slots(self) -> int:
        """The most samples that run at once."""
        return self._slots

    @property
    def running(self) -> int:
        """How many samples have a slot: those that draw, and those whose prompt is being read."""
        return len(self._running) + len(self._prompts.rows)

    @property
    def waiting(self) -> int:
        """How many requests wait to be started; a request whose first samples run is none of them."""
        return sum(samples.start == 0 for _, samples in self._waiting)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing runs: a step has nothing to do."""
        return not self._left

    def add(self, prompt: Prompt, params: SamplingParams | None = None, *, deadline: float | None = None) -> int:
        """Let a request wait for slots, and return its id: the `index` of its events and completions.

        ``prompt`` is text or a list of token ids, ``deadline`` seconds from now: a sample that has not ended by then
        ends before the next step, with finish_reason "deadline" and the text so far.

        Raises ValueError or TypeError for what `generate` refuses, and for a prompt that leaves no room in `context`;
        EngineFull where `max_waiting` requests wait. Nothing has changed then.
        """
        if deadline is not None:
            if isinstance(deadline, bool) or not isinstance(deadline, int | float):
                raise TypeError(f"deadline: expected None or a number of seconds > 0, got {deadline!r}")
            if not deadline > 0:
                raise ValueError(f"deadline: expected None or a number of seconds > 0, got {deadline!r}")
        if self._max_waiting is not None and self.waiting >= self._max_waiting:
            raise EngineFull(f"max_waiting: expected at most {self._max_waiting} waiting requests, got one more")
        params = SamplingParams() if params is None else params
        request = request_of(self._checkpoint, self._vocabulary, self._next_id, prompt, params)
        self.enqueue(request)
        self._next_id += 1
        if deadline is not None:
            self._deadlines[request.index] = self._clock() + deadline
        return request.index

    def enqueue(self, request: Request) -> None:
        """Let a request that was checked wait; its index must be one of its own."""
        if request.longest >= self.context:
            room = f"the context of {self.context} tokens that each of the {self.slots} slots has"
            raise ValueError(f"prompt: expected fewer tokens than {room}, got {request.longest}")
        if request.slots > self.slots:
            raise ValueError(
                f"{request.name}.guidance: expected 1 where there is one slot, because a guided sample takes two, "
                f"got {request.params.guidance}"
            )
        if self._speculation is not None:
            refuse_with_drafts(request.name, request.params)
        if self._speculation is not None and self._speculation.method == "greedy" and request.params.temperature:
            raise ValueError(
                f"{request.name}.temperature: expected 0 with drafts of method 'greedy', "
                f"got {request.params.temperature}"
            )
        if request.params.ban_phrases and self._speculation is not None and not self._speculation.keeps_text:
            # Their noise has decided more than the token that is taken back.
            raise ValueError(
                f"{request.name}.ban_phrases: expected none with drafts of method {self._speculation.method!r}, "
                f"got {request.params.ban_phrases!r}"
            )
        # The samples of a prompt start together, as far as there are slots for them.
        together = self.slots // request.slots
        for first in range(0, request.params.n, together):
            self._waiting.append((request, range(first, min(first + together, request.params.n))))
        self._left[request.index] = request.params.n

    def cancel(self, id: int) -> bool:
        """End a request before the next step, which reports its last events; False where it has ended already.

        Each of its samples ends with finish_reason "cancelled" and the text so far, those that have not started too.
        """
        if id not in self._left:
            return False
        self._ended.setdefault(id, "cancelled")
        return True

    def step(self) -> list[Event]:
        """Draw the next token, or with drafts several, of each running sample; read prompts for which there are slots.

        Returns the events of the tokens, and of the samples that ended, each with its completion. An idle engine
        returns none.
        """
        with torch.inference_mode():
            events = self._end_early()
            started = perf_counter()
            self._admit()
            rows, logits = self._start()
            prefilled = perf_counter()
            drawn = self._decode_and_draw(rows, logits) if self._running or rows else []
            self._settle()
        self.throughput.prefill_seconds += prefilled - started
        self.throughput.decode_seconds += perf_counter() - prefilled
        self.throughput.completion_tokens += sum(len(event.token_ids) for event in drawn)
        return events + drawn

    def _end_early(self) -> list[Event]:
        """End the samples of requests that were cancelled or whose time is over."""
        if self._deadlines:
            now = self._clock()
            for index, deadline in self._deadlines.items():
                if now >= deadline:
                    self._ended.setdefault(index, "deadline")
        if not self._ended:
            return []
        rows = self._running + self._prompts.rows
        for request, samples in self._waiting:
            if request.index in self._ended:
                rows += [Row(self._checkpoint, request, sample, NO_SLOT, self.context) for sample in samples]
        rows = [row for row in rows if row.request.index in self._ended]
        events = [row.end(self._ended[row.request.index]) for row in rows]
        self._leave(rows)
        self._running = [row for row in self._running if not row.finished]
        self._prompts.drop_finished()
        self._waiting = deque(each for each in self._waiting if each[0].index not in self._ended)
        self._ended.clear()
        return events

    def _admit(self) -> None:
        """Give slots to the requests that have waited longest; none overtakes another."""
        while self._waiting and len(self._waiting[0][1]) * self._waiting[0][0].slots <= len(self._free):
            request, samples = self._waiting.popleft()
            count = len(samples) * request.slots
            slots, self._free = self._free[:count], self._free[count:]
            for slot in slots:
                self._cache.truncate(slot, 0)
            pairs = zip(samples, slots, strict=False)
            rows = [Row(self._checkpoint, request, sample, slot, self.context) for sample, slot in pairs]
            for row, slot in zip(rows, slots[len(rows) :], strict=False):
                row.negative_slot = slot
            self._prompts.add(rows)

    def _start(self) -> tuple[list[Row], list[Tensor]]:
        """Read parts of prompts; the samples of those that have been read, and logits [n, V] after each prompt."""
        rows: list[Row] = []
        logits: list[Tensor] = []
        for started, last in self._prompts.read():
            self._cache.copy(started[0].slot, [row.slot for row in started[1:]])
            self.throughput.prompt_tokens += len(started[0].request.ids)
            if self._speculative is not None:
                self._speculative.admit(started)
            rows += started
            logits.append(self._guidance.start(started, last).expand(len(started), -1))
        return rows, logits

    def _decode_and_draw(self, admitted: list[Row], logits: list[Tensor]) -> list[Event]:
        """The next tokens of the running rows, and the first of those admitted, which run from now on."""
        running = self._running
        self._running = running + admitted
        if self._speculative is not None:
            if self._with_graphs:
                counted = self.throughput.eager_steps
                counted[DRAFTED] = counted.get(DRAFTED, 0) + 1
            return self._speculative.events(running, admitted, logits)
        drawn = self._graphs.step(running) if self._with_graphs and not admitted else None
        if drawn is None:
            self._graphs.forget()
            if running:
                logits = [self._guidance.decode(running), *logits]
            drawn = self._draw(logits, self._running)
        return [event for row, result in zip(self._running, drawn, strict=True) for event in row.take(result)]

    def _draw(self, logits: list[Tensor], rows: list[Row]) -> list[Drawn]:
        return self._draws.draw(torch.cat(logits) if len(logits) > 1 else logits[0], [row.place for row in rows])

    def _settle(self) -> None:
        """Take back what rows have taken back, and let those that have ended leave."""
        for row in self._running:
            if row.rewound:
                self._rewind(row)
        if any(row.finished for row in self._running):
            self._leave([row for row in self._running if row.finished])
            self._running = [row for row in self._running if not row.finished]

    def _rewind(self, row: Row) -> None:
        """Forget the tokens that a row has no longer; the last one that it has is read once more."""
        row.rewound = False
        self._cache.truncate(row.slot, row.length - 1)
        self._guidance.rewind(row)
        self._draws.rewind(row.place)
        self._graphs.forget()
        if self._speculative is not None:
            self._speculative.rewind(row)

    def _leave(self, rows: list[Row]) -> None:
        """Take back the slots of rows, and forget requests none of whose samples is left."""
        for row in rows:
            for slot in (row.slot, row.negative_slot):
                if slot != NO_SLOT:
                    insort(self._free, slot)
            request = row.request.index
            self._left[request] -= 1
            if not self._left[request]:
                del self._left[request]
                self._deadlines.pop(request, None)


def _integer(name: str, value: int, least: int, most: float = math.inf) -> int:
    allowed = f"an integer of at least {least}" if most == math.inf else f"an integer in [{least}, {most}]"
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{name}: expected {allowed}, got {value!r}")
    return value
