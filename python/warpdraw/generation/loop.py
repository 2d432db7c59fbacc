"""Text from prompts: all requests of a list through one engine, to their end or as they come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..model.weights import Checkpoint
from .engine import FIRST_TOKENS, Engine
from .params import SamplingParams
from .request import Request, request_of
from .results import Completions, Event, Throughput
from .speculation import Speculation
from .vocabulary import Vocabulary

Prompts = str | Sequence[str] | Sequence[list[int]]


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
    max_rows  the most samples in the batch at once, guided ones twice; the others wait until one ends.
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
    return Stream(model, requests_of(model, prompts, params), max_rows, explain, graphs, draft)


class Stream(Iterator[Event]):
    """The events of a run, one for each token drawn; `throughput` counts as it goes."""

    def __init__(
        self,
        model: Checkpoint,
        requests: list[Request],
        max_rows: int,
        explain: int,
        graphs: bool | None,
        draft: Speculation | Checkpoint | str | None = None,
    ) -> None:
        self.throughput = Throughput()
        self._events: Iterator[Event] = iter(())
        if requests:
            slots = min(sum(request.params.n * request.slots for request in requests), max_rows)
            lengths = [each.longest + min(each.params.max_tokens, FIRST_TOKENS) for each in requests]
            capacity = min(max(lengths), model.config.max_positions)
            engine = Engine(
                model,
                slots,
                prefill_tokens=None,
                capacity=capacity,
                explain=explain,
                graphs=graphs,
                draft=draft,
                raises=True,
            )
            self.throughput = engine.throughput
            for request in requests:
                engine.enqueue(request)
            self._events = _run(engine)

    def __next__(self) -> Event:
        return next(self._events)


def _run(engine: Engine) -> Iterator[Event]:
    while not engine.idle:
        yield from engine.step()


def requests_of(
    model: Checkpoint, prompts: Prompts, params: SamplingParams | Sequence[SamplingParams] | None
) -> list[Request]:
    """The prompts with their parameters, checked against the model."""
    several: list[str | list[int]] = [prompts] if isinstance(prompts, str) else list(prompts)
    if params is None or isinstance(params, SamplingParams):
        params = [params or SamplingParams()] * len(several)
    if len(params) != len(several):
        raise ValueError(f"params: expected one for each of {len(several)} prompts, got {len(params)}")
    vocabulary = Vocabulary(model)
    return [
        request_of(model, vocabulary, index, prompt, each, (f"prompts[{index}]", f"params[{index}]"))
        for index, (prompt, each) in enumerate(zip(several, params, strict=True))
    ]
