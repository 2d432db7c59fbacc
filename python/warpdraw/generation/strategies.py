"""What strategies share: which parameters of a request they read, and a refusal of all others."""

from __future__ import annotations

from dataclasses import fields

from .params import SamplingParams

# Searches change the model's distribution by these, choose their own way, and end texts as drawn ones end.
EDITS = (
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "dry_multiplier",
    "dry_base",
    "dry_allowed_length",
    "dry_breakers",
    "no_repeat_ngram",
    "logit_bias",
    "allowed_ids",
    "banned_ids",
    "bitmask",
)
ENDS = ("max_tokens", "min_tokens", "stop", "stop_ids", "ignore_eos")
SEARCH_READS = frozenset((*EDITS, *ENDS))


def unread(params: SamplingParams, reads: frozenset[str]) -> str | None:
    """The first field that has a value of its own, but is not among `reads`.

    >>> unread(SamplingParams(top_p=0.9, max_tokens=3), SEARCH_READS)
    'top_p'
    """
    for field in fields(params):
        if field.name not in reads and getattr(params, field.name) != field.default:
            return field.name
    return None


def refuse_unread(name: str, params: SamplingParams, strategy: str, reads: frozenset[str] = SEARCH_READS) -> None:
    """ValueError for a parameter of request `name` that the strategy does not read."""
    field = unread(params, reads)
    if field is not None:
        default, value = getattr(SamplingParams(), field), getattr(params, field)
        raise ValueError(f"{name}.{field}: expected {default!r} with {strategy}, which does not read it, got {value!r}")


def refuse_with_drafts(name: str, params: SamplingParams) -> None:
    """ValueError for what changes with every token, and so cannot be known where a draft is verified."""
    for field in ("mirostat", "guidance"):
        default, value = getattr(SamplingParams(), field), getattr(params, field)
        if value != default:
            raise ValueError(f"{name}.{field}: expected {default!r} together with drafts, got {value!r}")
