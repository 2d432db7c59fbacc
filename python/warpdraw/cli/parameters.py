"""The parameters of a request: the options that every command that draws texts has, and what they make."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from ..generation.params import SamplingParams, fresh_seed
from ..generation.repetition import Repetition
from . import options

# In the order of the help; those of one command alone stand in its own signature.
_DRAWING = (
    *("temperature", "top_k", "top_p", "min_p", "order", "top_n_sigma", "typical_p", "epsilon", "eta"),
    *("xtc_probability", "xtc_threshold", "dynatemp_range", "dynatemp_exponent", "repetition_penalty"),
    *("frequency_penalty", "presence_penalty", "dry_multiplier", "dry_base", "dry_allowed_length", "dry_breaker"),
    *("no_repeat_ngram", "bias", "ban", "allow", "min_tokens", "stop", "stop_id", "ignore_eos"),
    *("ban_phrase", "ban_case"),
)
# Options that may be repeated, where their name is not that of the field.
_LISTS = {
    "dry_breaker": "dry_breakers",
    "bias": "logit_bias",
    "ban": "banned_ids",
    "allow": "allowed_ids",
    "stop_id": "stop_ids",
    "ban_phrase": "ban_phrases",
}
_FIELDS = {field.name for field in fields(SamplingParams)}
_DEFAULT = SamplingParams()


def with_drawing_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command, before its --seed, the options that stand for its ``**drawing``."""
    signature = inspect.signature(command, eval_str=True)
    own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    at = [each.name for each in own].index("seed")
    shared = [
        inspect.Parameter(
            name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            # Lists have no default: without the option, what a request has by itself stands.
            default=None if name in _LISTS or name == "stop" else getattr(_DEFAULT, name),
            annotation=getattr(options, name.title().replace("_", "")),
        )
        for name in _DRAWING
    ]
    command.__signature__ = signature.replace(parameters=own[:at] + shared + own[at:])  # type: ignore[attr-defined]
    return command


def parameters_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of SamplingParams from the options `given`; lists that are None are left out, and a seed is drawn."""
    chosen: dict[str, Any] = {}
    for option, value in given.items():
        name = _LISTS.get(option, option)
        if name not in _FIELDS or (value is None and (option in _LISTS or option in ("stop", "prefix"))):
            continue
        chosen[name] = tuple(value) if isinstance(value, list) else value
    if chosen.get("seed") is None:
        chosen["seed"] = fresh_seed()
    count = chosen.get("stop_on_repeat")
    if count is not None:
        chosen["stop_on_repeat"] = Repetition(count)
    return chosen
