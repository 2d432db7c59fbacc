"""Text from prompts: prefill each request, decode all running samples as one batch, draw, stop, stream."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from time import perf_counter

import torch
from torch import Tensor

from ..model.cache import KVCache
from ..model.weights import Checkpoint
from .draw import Draws
from .graph import Graphs
from .params import SamplingParams, fresh_seed
from .place import Drawn
from .results import Completions, Event, Throughput
from .row import Request, Row
from .speculation import Speculation, speculation_of
from .verifying import Speculative
from .vocabulary import Vocabulary

Prompts = str | Sequence[str] | Sequence[list[int]]

# A prompt is read in parts of this many tokens, because what the layers compute for a part exists at once.
PREFILL_TOKENS = 512
# The cache starts with room for this many tokens after the longest prompt and grows when they do not suffice.
FIRST_TOKENS = 256
# Why a step runs without a graph.
DRAFTED = "steps with drafts differ in the number of tokens"


def generate(
    model: Checkpoint,
    prompts: Prompts,
    params: SamplingParams | Sequence[SamplingParams] | None = None,
    *,
    max_rows: int = 64,
    explain: int = 0,
    graphs: bool | None = None,
    draft: Speculation | Checkpoint | str | None = None,
) -> Completions:
    """Draw a completion, or params.n of them, for each prompt: `stream` run to its end.

    Returns the completions in the order of the prompts, the samples of a prompt side by side. The tokens of a
    sample depend on its prompt, parameters and seed alone, not on the rest of the batch (float32 on the CPU).
    Arguments and errors are those of `stream`.

    >>> from warpdraw import SamplingParams, generate, load
    >>> completions = generate(load("tiny-target"), ["The sky is", "The grass is"], SamplingParams(seed=7))
    >>> [completion.index for completion in completions]
    [0, 1]
    """
    events = stream(model, prompts, params, max_rows=max_rows, explain=explain, graphs=graphs, draft=draft)
    completions = [event.completion for event in events if event.completion is not None]
    completions.sort(key=lambda completion: (completion.index, completion.sample))
    return Completions(completions, events.throughput)


def stream(
    model: Checkpoint,
    prompts: Prompts,
    params: SamplingParams | Sequence[SamplingParams] | None = None,
    *,
    max_rows: int = 64,
    explain: int = 0,
    graphs: bool | None = None,
    draft: Speculation | Checkpoint | str | None = None,
) -> Stream:
    """Draw completions for prompts, and iterate over `Event`s as they come.

    prompts   text, a list of texts, or a list of lists of token ids; lengths may differ.
    params    one SamplingParams for all prompts, or one for each; None is SamplingParams().
    max_rows  the most samples in the batch at once; the others wait until one ends.
    explain   how many leading candidates each event's `step` reports; 0 is none.
    graphs    whether steps of rows that stay together run as CUDA graphs; None is where the model is on a GPU. On
              the CPU True runs the same step without a graph. `throughput` says how often, and why not otherwise.
    draft     a smaller model with the same vocabulary, "ngram" or "suffix", or a `Speculation` that says more: what
              proposes tokens, which the model verifies several at once. The text stays what it is without.

    The texts of the events of a sample together are exactly the text of its completion. A sample whose logits
    leave no candidate (all NaN or -inf, or banned) ends with finish_reason "error"; the others go on.
    Raises ValueError or TypeError for an empty prompt, a prompt that leaves no room in the model's context,
    token ids outside the vocabulary, texts that are no token, and lists that do not fit together.

    >>> from warpdraw import SamplingParams, load, stream
    >>> events = stream(load("tiny-target"), "The sky is", SamplingParams(max_tokens=4))
    >>> text = "".join(event.text for event in events)
    """
    for name, value, least in (("max_rows", max_rows, 1), ("explain", explain, 0)):
        if type(value) is not int or value < least:
            raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")
    requests = _requests(model, prompts, params)
    speculation = None if draft is None else speculation_of(draft, model)
    if speculation is not None and speculation.method == "greedy":
        for request in requests:
            if request.params.temperature:
                raise ValueError(
                    f"{request.name}.temperature: expected 0 with drafts of method 'greedy', "
                    f"got {request.params.temperature}"
                )
    return Stream(model, requests, max_rows, explain, graphs, speculation)


class Stream(Iterator[Event]):
    """The events of a run, one for each token drawn; `throughput` counts as it goes."""

    def __init__(
        self,
        model: Checkpoint,
        requests: list[Request],
        max_rows: int,
        explain: int,
        graphs: bool | None,
        speculation: Speculation | None = None,
    ) -> None:
        self.throughput = Throughput()
        self._speculation = speculation
        self._speculative: Speculative | None = None
        self._checkpoint, self._draws = model, Draws(Vocabulary(model), explain)
        # The samples of a prompt start together, from one prefill, as far as there are rows for them.
        self._waiting = deque(
            (request, range(first, min(first + max_rows, request.params.n)))
            for request in requests
            for first in range(0, request.params.n, max_rows)
        )
        self._free = list(range(min(sum(request.params.n for request in requests), max_rows)))
        self._device = model.model.embedding.weight.device
        self._with_graphs = self._device.type == "cuda" if graphs is None else graphs
        self._events = self._run()

    def __next__(self) -> Event:
        return next(self._events)

    def _run(self) -> Iterator[Event]:
        running: list[Row] = []
        if not self._waiting:
            return
        with torch.inference_mode():
            self._cache = self._new_cache()
            if self._speculation is not None:
                self._speculative = Speculative(
                    self._checkpoint, self._cache, self._speculation, self._draws, self.throughput, PREFILL_TOKENS
                )
        graphs = Graphs(self._checkpoint.model, self._cache, self._draws, self.throughput)

        while self._waiting or running:
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
                    drawn = graphs.step(running) if self._with_graphs and not admitted else None
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
            running = [row for row in running if not row.finished]
            yield from events

    def _draw(self, logits: list[Tensor], rows: list[Row]) -> list[Drawn]:
        return self._draws.draw(torch.cat(logits) if len(logits) > 1 else logits[0], [row.place for row in rows])

    def _new_cache(self) -> KVCache:
        config, model = self._checkpoint.config, self._checkpoint.model
        lengths = [len(each.ids) + min(each.params.max_tokens, FIRST_TOKENS) for each, _ in self._waiting]
        capacity = min(max(lengths), config.max_positions)
        return KVCache(config, len(self._free), capacity, model.embedding.weight.dtype, self._device)

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


def _requests(
    model: Checkpoint, prompts: Prompts, params: SamplingParams | Sequence[SamplingParams] | None
) -> list[Request]:
    several: list[str | list[int]] = [prompts] if isinstance(prompts, str) else list(prompts)
    if params is None or isinstance(params, SamplingParams):
        params = [params or SamplingParams()] * len(several)
    if len(params) != len(several):
        raise ValueError(f"params: expected one for each of {len(several)} prompts, got {len(params)}")
    requests, vocabulary = [], Vocabulary(model)
    for index, (prompt, each) in enumerate(zip(several, params, strict=True)):
        if not isinstance(each, SamplingParams):
            raise TypeError(f"params[{index}]: expected a SamplingParams, got {each!r}")
        seed = fresh_seed() if each.seed is None else each.seed
        ids = _prompt_ids(model, f"prompts[{index}]", prompt)
        lists = vocabulary.lists(f"params[{index}]", each)
        requests.append(Request(index, prompt, ids, each, lists, seed))
    return requests


def _prompt_ids(model: Checkpoint, name: str, prompt: str | list[int]) -> list[int]:
    if isinstance(prompt, str):
        if any("\ud800" <= character <= "\udfff" for character in prompt):
            raise ValueError(f"{name}: expected text without lone surrogates, got {prompt!r}")
        ids = model.tokenizer.encode(prompt) if prompt else []
    elif isinstance(prompt, list | tuple) and all(type(token) is int for token in prompt):
        ids = list(prompt)
    else:
        raise TypeError(f"{name}: expected text or a list of token ids, got {prompt!r}")
    if not ids:
        raise ValueError(f"{name}: expected at least one token, got none")
    vocabulary, context = model.config.vocab_size, model.config.max_positions
    for token in ids:
        if not 0 <= token < vocabulary:
            raise ValueError(f"{name}: expected token ids in [0, {vocabulary}), got {token}")
    if len(ids) >= context:
        raise ValueError(f"{name}: expected fewer tokens than the context of {context}, got {len(ids)}")
    return ids
