"""Continuous batching against requests one by one, and against transformers' generate, one by one and as one batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from statistics import median
from typing import Any

import torch

from ..generation.engine import Engine
from ..generation.loop import generate
from ..model.locate import locate
from ..model.weights import Checkpoint
from .generation_jobs import DRAWN_WITH, Figure, Options, Requests, Unusable, in_turn, mixed, part_of, ratio, uniform

OURS, ONE_BY_ONE = "continuous batching", "one by one"
THEIRS, STATIC = "transformers, one by one", "transformers, a static batch"
TARGETS = {ONE_BY_ONE: 4.0, THEIRS: 3.0, STATIC: 1.2}
# Rounded differently, because they multiply other shapes.
LOGITS_TOLERANCE = 1e-3


def continuous(model: Checkpoint, requests: Requests) -> list[list[int]]:
    """The tokens of each request, all in one running batch with a slot for each."""
    engine = Engine(model, len(requests.prompts))
    for prompt, params in zip(requests.prompts, requests.params(), strict=True):
        engine.add(prompt, params)
    tokens: list[list[int]] = [[] for _ in requests.prompts]
    while not engine.idle:
        for event in engine.step():
            tokens[event.index] += event.token_ids
    return tokens


def one_by_one(model: Checkpoint, requests: Requests) -> list[list[int]]:
    """The same, each request in a run of its own."""
    each = zip(requests.prompts, requests.params(), strict=True)
    return [generate(model, [prompt], params)[0].token_ids for prompt, params in each]


class Transformers:
    """The same checkpoint in transformers, with the same temperature and filter; raises ImportError without it."""

    def __init__(self, name: str) -> None:
        transformers: Any = import_module("transformers")
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self.model: Any = transformers.AutoModelForCausalLM.from_pretrained(str(locate(name)), dtype=torch.float32)
        self.model.generation_config.eos_token_id = None
        self.model.generation_config.pad_token_id = 0

    def check(self, model: Checkpoint, requests: Requests) -> None:
        """The same logits after a prompt, and a left-padded batch draws what a row alone draws."""
        ids = torch.tensor([requests.prompts[0]])
        with torch.inference_mode():
            if not torch.allclose(self.model(ids).logits, model.model(ids), atol=LOGITS_TOLERANCE):
                raise Unusable("transformers has other logits than the package's own model")
        both = self._generate(requests.prompts[:2], 3, do_sample=False)
        alone = [self._generate([prompt], 3, do_sample=False)[0] for prompt in requests.prompts[:2]]
        if both != alone:
            raise Unusable("transformers draws other greedy tokens in a padded batch")

    def static(self, requests: Requests) -> list[list[int]]:
        """All requests as one batch, padded at the left, as long as the longest text; what is too much is cut off."""
        drawn = self._generate(requests.prompts, max(requests.lengths), do_sample=True)
        return [tokens[:length] for tokens, length in zip(drawn, requests.lengths, strict=True)]

    def one_by_one(self, requests: Requests) -> list[list[int]]:
        """Each request in a call of its own, as long as it is to be."""
        each = zip(requests.prompts, requests.lengths, strict=True)
        return [self._generate([prompt], length, do_sample=True)[0] for prompt, length in each]

    def _generate(self, prompts: list[list[int]], count: int, do_sample: bool) -> list[list[int]]:
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        drawing = {"do_sample": True, **DRAWN_WITH} if do_sample else {"do_sample": False}
        out = self.model.generate(ids, attention_mask=mask, max_new_tokens=count, **drawing)
        tokens: list[list[int]] = out[:, longest:].tolist()
        return tokens


def batching(model: Checkpoint, options: Options, tell: Callable[[float], None]) -> tuple[list[Figure], dict[str, Any]]:
    """Both jobs, by all methods that are there."""
    figures: list[Figure] = []
    detail: dict[str, Any] = {}
    jobs = [make(model, options.requests, options.quick) for make in (uniform, mixed)]
    peer: Transformers | None = None
    try:
        peer = Transformers(options.model)
    except ImportError as error:
        detail["absent"] = {"transformers": str(error)}
    for number, requests in enumerate(jobs):
        if peer is not None:
            peer.check(model, requests)
        methods: dict[str, Callable[[], list[list[int]]]] = {
            OURS: partial(continuous, model, requests),
            ONE_BY_ONE: partial(one_by_one, model, requests),
        }
        if peer is not None:
            methods[STATIC] = partial(peer.static, requests)
            methods[THEIRS] = partial(peer.one_by_one, requests)
        _verify(methods, requests)
        seconds = in_turn(dict(methods), options.rounds, part_of(tell, number, len(jobs)))
        name = f"{options.requests} requests, {requests.name}"
        figures += [
            Figure(name, f"faster than {other}", ratio(seconds[other], seconds[OURS]), "x", TARGETS[other])
            for other in methods
            if other != OURS
        ]
        figures.append(Figure(name, "tokens a second", requests.tokens / median(seconds[OURS]), ""))
        detail[requests.name] = {
            "prompt_tokens": [len(prompt) for prompt in requests.prompts],
            "tokens": requests.lengths,
            "seconds": {other: [round(each, 4) for each in taken] for other, taken in seconds.items()},
        }
    return figures, detail


def _verify(methods: dict[str, Callable[[], list[list[int]]]], requests: Requests) -> None:
    """Every method draws as many tokens as are asked for, and ours draws the same in any company."""
    drawn = {name: method() for name, method in methods.items()}
    for name, tokens in drawn.items():
        if [len(each) for each in tokens] != requests.lengths:
            raise Unusable(f"{name} does not draw as many tokens as are asked for")
    if drawn[OURS] != drawn[ONE_BY_ONE]:
        raise Unusable(f"{OURS} draws other tokens than {ONE_BY_ONE}")
