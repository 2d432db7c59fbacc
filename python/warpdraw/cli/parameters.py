"""The parameters of a request, from the options that a command has for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ..generation.params import SamplingParams, fresh_seed
from ..generation.repetition import Repetition

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
