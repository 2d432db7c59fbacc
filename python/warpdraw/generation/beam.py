"""Beam search: the most probable continuations of a prompt, as far as a number of beams can find them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from time import perf_counter

import torch
from torch import Tensor

from .. import ops
from ..model.cache import KVCache
from ..model.weights import Checkpoint
from .checks import check_count, check_number
from .draw import Batch
from .engine import FIRST_TOKENS, PREFILL_TOKENS
from .loop import Prompts, requests_of
from .params import SamplingParams
from .request import Request
from .results import Completion, Completions, Throughput
from .search import Goal, Search
from .strategies import SEARCH_READS, refuse_unread
from .vocabulary import Vocabulary

STRATEGY = "beam search"
LARGEST_PENALTY = 1000.0


def beam_search(
    model: Checkpoint,
    prompts: Prompts,
    params: SamplingParams | Sequence[SamplingParams] | None = None,
    *,
    beams: int = 4,
    length_penalty: float = 1.0,
    early_stopping: bool | str = False,
    max_rows: int = 64,
) -> Completions:
    """Search for the continuation of each prompt with the largest ``sum(log p) / length ** length_penalty``.

    beams           how many unfinished continuations are followed at once.
    params          when texts end, bans, biases and penalties; params.n is how many of the best come back, at most
                    `beams`. The probabilities are those of the model after the bans, biases and penalties. What has to
                    do with a draw is refused: nothing is drawn.
    length_penalty  0 compares sums; above 0 favours long texts; length counts the generated tokens, the end included.
    early_stopping  False ends a search when as many texts as beams are finished and the best beam, at its length, is
                    no better than the worst of them; True already when there are as many; "never" not before the best
                    beam cannot become better at any length up to max_tokens.
    max_rows        the most beams in the batch at once; the other prompts wait until a search ends.

    Returns the completions in the order of the prompts, those of a prompt from the best on: `sample` is the place,
    `score` what is above, natural logarithm. They are those of transformers' ``generate(num_beams=...)``.
    Raises ValueError or TypeError as `generate` does, and for parameters of a draw.

    >>> from warpdraw import SamplingParams, beam_search, load
    >>> best, second = beam_search(load("tiny-target"), "The sky is", SamplingParams(n=2, max_tokens=9))
    >>> best.score >= second.score
    True
    """
    check_count("beams", beams, 1)
    check_count("max_rows", max_rows, 1)
    check_number("length_penalty", length_penalty, -LARGEST_PENALTY, LARGEST_PENALTY, "a number in [-1000, 1000]")
    if early_stopping not in (False, True, "never"):
        raise ValueError(f"early_stopping: expected one of False, True, 'never', got {early_stopping!r}")
    if beams > max_rows:
        raise ValueError(f"beams: expected at most max_rows = {max_rows}, got {beams}")
    requests = requests_of(model, prompts, params)
    for request in requests:
        refuse_unread(request.name, request.params, STRATEGY, SEARCH_READS | {"n"})
        if request.params.n > beams:
            raise ValueError(f"{request.name}.n: expected at most beams = {beams}, got {request.params.n}")
    if not requests:
        return Completions([], Throughput())
    with torch.inference_mode():
        return _Run(model, requests, Goal(beams, length_penalty, early_stopping), max_rows).completions()


class _Run:
    """The searches of all prompts, as many at a time as there are slots for."""

    def __init__(self, model: Checkpoint, requests: list[Request], goal: Goal, max_rows: int) -> None:
        self._model, self._goal = model, goal
        self._device = model.model.embedding.weight.device
        self._waiting = deque(requests)
        slots = min(len(requests), max_rows // goal.beams) * goal.beams
        longest = max(len(each.ids) + min(each.params.max_tokens, FIRST_TOKENS) for each in requests)
        capacity = min(longest, model.config.max_positions)
        dtype = model.model.embedding.weight.dtype
        self._cache = KVCache(model.config, slots, capacity, dtype, self._device)
        self._free = list(range(slots))
        self._searches: list[Search] = []
        self._vocabulary = Vocabulary(model)
        self._batch: Batch | None = None
        self._throughput = Throughput()

    def completions(self) -> Completions:
        found: list[Completion] = []
        while self._waiting or self._searches:
            logits = [self._decode()] if self._searches else []
            started = perf_counter()
            while self._waiting and len(self._free) >= self._goal.beams:
                logits.append(self._read(self._waiting.popleft()))
            prefilled = perf_counter()
            self._step(torch.cat(logits))
            for search in self._searches:
                if search.done:
                    found += search.completions()
                    self._free += search.slots
            self._searches = [search for search in self._searches if not search.done]
            self._throughput.prefill_seconds += prefilled - started
            self._throughput.decode_seconds += perf_counter() - prefilled
        found.sort(key=lambda completion: (completion.index, completion.sample))
        self._throughput.completion_tokens = sum(completion.completion_tokens for completion in found)
        return Completions(found, self._throughput)

    def _read(self, request: Request) -> Tensor:
        """Read a prompt for all beams of a search: the logits [beams, V] after it."""
        slots = [self._free.pop(0) for _ in range(self._goal.beams)]
        for slot in slots:
            self._cache.truncate(slot, 0)
        logits = self._model.model.read(request.ids, self._cache, slots[0], PREFILL_TOKENS)
        self._cache.copy(slots[0], slots[1:])
        self._searches.append(Search(self._model, request, slots, self._goal))
        self._throughput.prompt_tokens += len(request.ids)
        return logits[:, -1].expand(len(slots), -1)

    def _decode(self) -> Tensor:
        started = perf_counter()
        tokens = [place.tokens[-1:] for search in self._searches for place in search.places]
        slots = torch.tensor([slot for search in self._searches for slot in search.slots])
        logits: Tensor = self._model.model(torch.tensor(tokens, device=self._device), self._cache, slots)
        self._throughput.decode_seconds += perf_counter() - started
        return logits[:, -1]

    def _step(self, logits: Tensor) -> None:
        places = [place for search in self._searches for place in search.places]
        if self._batch is None or self._batch.places != places:
            self._batch = Batch(places, self._batch, self._vocabulary, 0, self._device)
        batch = self._batch
        batch.read_bitmasks()
        count = min(max(search.candidates for search in self._searches), logits.shape[1])
        best = ops.sample(logits, **batch.inputs(), top_n=count, top_of="filtered")
        ids, logprobs = best.top_ids.tolist(), best.top_logprobs.tolist()

        parents: list[int] = []
        for search in self._searches:
            first, end = len(parents), len(parents) + len(search.slots)
            before = [place.tokens for place in search.places]
            kept = search.step(ids[first:end], logprobs[first:end])
            for beam, parent in enumerate(kept):
                if beam != parent:
                    start = len(search.request.ids) + _shared(before[beam], before[parent])
                    self._cache.copy(search.slots[parent], [search.slots[beam]], start)
            parents += [first + parent for parent in kept]
        batch.follow(parents)


def _shared(one: list[int], other: list[int]) -> int:
    """How many tokens two beams begin with in common: those they have from one beam."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), len(one))
