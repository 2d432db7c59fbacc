"""Request: one prompt and how to draw from it, checked against the model before anything runs."""

from __future__ import annotations

from dataclasses import dataclass

from ..model.weights import Checkpoint
from .params import SamplingParams, fresh_seed
from .rules import RulesOf
from .vocabulary import TokenLists, Vocabulary

Prompt = str | list[int]


@dataclass(frozen=True)
class Request:
    """One prompt, as text or ids and as the ids that the model reads, and how to draw from it.

    `name` is what messages call its parameters, `negative` are the ids that its text is guided away from.
    """

    index: int
    prompt: Prompt
    ids: list[int]
    params: SamplingParams
    lists: TokenLists
    seed: int
    name: str
    negative: list[int] | None = None

    @property
    def slots(self) -> int:
        """How many slots of a cache each of its samples takes."""
        return 1 if self.negative is None else 2

    @property
    def longest(self) -> int:
        """How many tokens its slots hold before the first one is drawn."""
        return max(len(self.ids), len(self.negative or ()))


def request_of(
    model: Checkpoint,
    vocabulary: Vocabulary,
    index: int,
    prompt: Prompt,
    params: SamplingParams,
    names: tuple[str, str] = ("prompt", "params"),
) -> Request:
    """A request; ValueError or TypeError, by the names of prompt and parameters, for what the model cannot read."""
    if not isinstance(params, SamplingParams):
        raise TypeError(f"{names[1]}: expected a SamplingParams, got {params!r}")
    seed = fresh_seed() if params.seed is None else params.seed
    ids = _prompt_ids(model, names[0], prompt)
    RulesOf(model).check(names[1], params)
    lists = vocabulary.lists(names[1], params)
    return Request(index, prompt, ids, params, lists, seed, names[1], _negative_ids(model, names[1], ids, params))


def _negative_ids(model: Checkpoint, name: str, ids: list[int], params: SamplingParams) -> list[int] | None:
    if params.guidance == 1:
        return None
    if params.negative_prompt is None:
        return ids[-1:]
    return _prompt_ids(model, f"{name}.negative_prompt", params.negative_prompt)


def _prompt_ids(model: Checkpoint, name: str, prompt: Prompt) -> list[int]:
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
