"""Contrastive search: the probable token that says something new, by the model's own states."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import ops
from ..model.cache import KVCache
from ..model.weights import Checkpoint
from .checks import check_count, check_number
from .draw import Batch
from .engine import FIRST_TOKENS, PREFILL_TOKENS
from .loop import Prompts, requests_of
from .params import SamplingParams
from .place import Drawn
from .reports import problem
from .request import Request
from .results import Completion, Completions, Throughput
from .row import Row
from .strategies import refuse_unread
from .vocabulary import Vocabulary

STRATEGY = "contrastive search"


def contrastive_search(
    model: Checkpoint,
    prompts: Prompts,
    params: SamplingParams | Sequence[SamplingParams] | None = None,
    *,
    alpha: float = 0.6,
    k: int = 4,
    max_rows: int = 64,
) -> Completions:
    """Continue each prompt with ``argmax over the k best v of (1 - alpha) p(v) - alpha max_j cos(h_v, h_j)``.

    h_v is the model's last hidden state, after the final norm, at token v, and h_j are those of all tokens before it,
    the prompt's included (Su et al. 2022, arXiv 2202.06417). p is the model's distribution after bans, biases and
    penalties.

    alpha     from 0, which is greedy, to 1: what it costs to resemble an earlier state.
    k         how many tokens are compared; the model reads each of them, so a step costs k rows.
    params    when texts end, bans, biases and penalties. What has to do with a draw is refused: nothing is drawn.
    max_rows  the most rows in the batch at once, k for each prompt; the other prompts wait.

    Returns the completions in the order of the prompts. Raises ValueError or TypeError as `generate` does, and for
    parameters of a draw.

    >>> from warpdraw import SamplingParams, contrastive_search, load
    >>> text = contrastive_search(load("tiny-target"), "The sky is", SamplingParams(max_tokens=9), k=3)[0].text
    """
    check_number("alpha", alpha, 0, 1, "a number in [0, 1]")
    check_count("k", k, 1)
    check_count("max_rows", max_rows, 1)
    if k > min(max_rows, model.config.vocab_size):
        name = "max_rows" if max_rows < model.config.vocab_size else "the vocabulary"
        raise ValueError(f"k: expected at most {name} = {min(max_rows, model.config.vocab_size)}, got {k}")
    requests = requests_of(model, prompts, params)
    for request in requests:
        refuse_unread(request.name, request.params, STRATEGY)
    if not requests:
        return Completions([], Throughput())
    with torch.inference_mode():
        return _Run(model, requests, alpha, k, max_rows).completions()


class _Text:
    """One text: its row, the slots of its k candidates, its states [T, hidden], normalised, and the next logits."""

    def __init__(self, row: Row, slots: list[int], states: Tensor, logits: Tensor) -> None:
        self.row, self.slots, self.states, self.logits = row, slots, states, logits
        self.completion: Completion | None = None

    def take(self, drawn: Drawn) -> None:
        """Add the chosen token."""
        event = self.row.advance(drawn)
        if event.completion is not None:
            self.completion = replace(event.completion, seed=0)


class _Run:
    """The texts of all prompts, as many at a time as there are slots for."""

    def __init__(self, model: Checkpoint, requests: list[Request], alpha: float, k: int, max_rows: int) -> None:
        self._model, self._alpha, self._k = model, alpha, k
        self._device = model.model.embedding.weight.device
        self._waiting = deque(requests)
        slots = min(len(requests), max_rows // k) * k
        longest = max(len(each.ids) + min(each.params.max_tokens, FIRST_TOKENS) for each in requests)
        dtype = model.model.embedding.weight.dtype
        self._cache = KVCache(model.config, slots, min(longest, model.config.max_positions), dtype, self._device)
        self._free = list(range(slots))
        self._texts: list[_Text] = []
        self._vocabulary = Vocabulary(model)
        self._batch: Batch | None = None
        self._throughput = Throughput()

    def completions(self) -> Completions:
        found: list[Completion] = []
        while self._waiting or self._texts:
            started = perf_counter()
            while self._waiting and len(self._free) >= self._k:
                self._texts.append(self._read(self._waiting.popleft()))
            prefilled = perf_counter()
            self._step()
            for text in self._texts:
                if text.completion is not None:
                    found.append(text.completion)
                    self._free += text.slots
            self._texts = [text for text in self._texts if text.completion is None]
            self._throughput.prefill_seconds += prefilled - started
            self._throughput.decode_seconds += perf_counter() - prefilled
        found.sort(key=lambda completion: completion.index)
        self._throughput.completion_tokens = sum(completion.completion_tokens for completion in found)
        return Completions(found, self._throughput)

    def _read(self, request: Request) -> _Text:
        slots = [self._free.pop(0) for _ in range(self._k)]
        for slot in slots:
            self._cache.truncate(slot, 0)
        states: list[Tensor] = []
        rows = torch.tensor(slots[:1])
        for start in range(0, len(request.ids), PREFILL_TOKENS):
            part = torch.tensor([request.ids[start : start + PREFILL_TOKENS]], device=self._device)
            logits = self._model.model(part, self._cache, rows, last=True, states=states)
        self._cache.copy(slots[0], slots[1:])
        self._throughput.prompt_tokens += len(request.ids)
        row = Row(self._model, request, 0, slots[0], self._model.config.max_positions)
        return _Text(row, slots, _directions(torch.cat(states, dim=1)[0]), logits[0])

    def _step(self) -> None:
        """Choose a token for each text."""
        places = [text.row.place for text in self._texts]
        if self._batch is None or self._batch.places != places:
            self._batch = Batch(places, self._batch, self._vocabulary, 0, self._device)
        batch, count = self._batch, len(self._texts)
        batch.read_bitmasks()
        logits = torch.cat([text.logits for text in self._texts])
        best = ops.sample(logits, **batch.inputs(), top_n=self._k, top_of="filtered")

        states: list[Tensor] = []
        slots = torch.tensor([slot for text in self._texts for slot in text.slots])
        read = self._model.model(best.top_ids.long().clamp(min=0).view(-1, 1), self._cache, slots, states=states)
        after = read.view(count, self._k, -1)
        directions = _directions(torch.cat(states)).view(count, self._k, -1)

        for row, text in enumerate(self._texts):
            # score(v) = (1 - alpha) p(v) - alpha max_j cos(h_v, h_j)
            likeness = (directions[row] @ text.states.T).amax(-1)
            score = (1 - self._alpha) * best.top_logprobs[row].exp() - self._alpha * likeness
            chosen = int(score.masked_fill(best.top_logprobs[row] == -torch.inf, -torch.inf).argmax())
            token = int(best.top_ids[row, chosen])
            if token < 0:
                text.take(Drawn(None, problem(text.logits[0])))
                continue
            text.take(Drawn(token))
            text.states = torch.cat([text.states, directions[row, chosen : chosen + 1]])
            text.logits = after[row, chosen : chosen + 1]
            # Their last position is that of another candidate.
            kept, length = text.slots[chosen], text.row.length
            self._cache.copy(kept, text.slots, length - 1)
        batch.follow(list(range(count)))


def _directions(states: Tensor) -> Tensor:
    """Hidden states as float32 of length 1: their products are cosines."""
    return F.normalize(states.float(), dim=-1)
