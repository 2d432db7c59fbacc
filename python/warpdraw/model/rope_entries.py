"""What a config.json says about rotary positions, in its newer spelling (`rope_parameters`) and its older ones."""

from __future__ import annotations

import math
import warnings
from typing import Any

from .config import CheckpointError, RopeScaling
from .json_fields import Fields

_KINDS = {"default": "default", "linear": "linear", "llama3": "llama3", "yarn": "yarn"}
_PHI3_KINDS = {"default": "default", "longrope": "longrope", "su": "longrope"}


def read_rope(fields: Fields, theta: float = 10000.0) -> dict[str, Any]:
    """The base and the scaling where whole heads turn; `theta` is what an absent base is."""
    rope = _rope_object(fields)
    fields.only("partial_rotary_factor", 1.0)
    rope.only("partial_rotary_factor", 1.0)
    return _read(fields, rope, "rope_theta", theta, _KINDS)


def read_neox_rope(fields: Fields, head_dim: int) -> dict[str, Any]:
    """GPT-NeoX turns a part of each head: a quarter, if nothing is said."""
    rope = _rope_object(fields)
    share = _agreed(fields, rope, "rotary_pct", "partial_rotary_factor", 0.25)
    return _read(fields, rope, "rotary_emb_base", 10000.0, _KINDS) | {"rotary_size": int(head_dim * share)}


def read_phi3_rope(fields: Fields, head_dim: int) -> dict[str, Any]:
    """Phi-3 may turn a part of each head, and stretch each frequency by a factor of its own.

    Longrope has other factors for contexts beyond the original length, which would turn every cached key anew when a
    text comes to be so long. The model that is read has the original length and the factors for it.
    """
    rope = _rope_object(fields)
    share = _agreed(fields, rope, "partial_rotary_factor", "partial_rotary_factor", 1.0)
    inner = rope.get("original_max_position_embeddings")
    original = fields.size("original_max_position_embeddings", inner or 4096)
    return _read(fields, rope, "rope_theta", 10000.0, _PHI3_KINDS, original) | {"rotary_size": int(head_dim * share)}


def read_gemma3_rope(fields: Fields) -> dict[str, Any]:
    """Gemma 3 has angles for its full layers, which may be stretched, and others for its sliding layers."""
    sliding = Fields(fields.where, {})
    if fields.get("rope_parameters"):
        both = _rope_object(fields)
        full, sliding = both.fields("full_attention"), both.fields("sliding_attention")
        _refuse_unread(both, "for gemma3_text")
    else:
        full = _rope_object(fields)
    local = _agreed(fields, sliding, "rope_local_base_freq", "rope_theta", 10000.0)
    sliding.only("rope_type", "default")
    _refuse_unread(sliding, "for sliding layers")
    return _read(fields, full, "rope_theta", 1e6, _KINDS) | {"sliding_rope_theta": local}


def _rope_object(fields: Fields) -> Fields:
    if fields.get("rope_parameters") and fields.get("rope_scaling"):
        raise fields.error("rope_scaling", "absent where rope_parameters is present")
    return fields.fields("rope_parameters" if fields.get("rope_parameters") else "rope_scaling")


def _agreed(fields: Fields, rope: Fields, outer_name: str, name: str, default: float) -> float:
    """A number that may stand in the config, in its object about rope, or alike in both."""
    outer = fields.number(outer_name, rope.number(name, default))
    inner = rope.number(name, outer)
    if inner != outer:
        raise fields.error(outer_name, f"{inner}, as in {rope.where}")
    return inner


def _read(
    fields: Fields, rope: Fields, theta_name: str, theta: float, kinds: dict[str, str], original: int = 0
) -> dict[str, Any]:
    entries: dict[str, Any] = {"rope_theta": _agreed(fields, rope, theta_name, "rope_theta", theta)}
    old_kind = rope.get("type", "default")
    kind = rope.choice("rope_type" if rope.get("rope_type") else "type", old_kind, kinds)
    longest = fields.size("max_position_embeddings")
    if kind == "linear":
        entries["rope_scaling"] = RopeScaling("linear", rope.number("factor"))
    elif kind == "llama3":
        entries["rope_scaling"] = RopeScaling(
            "llama3",
            rope.number("factor"),
            rope.number("low_freq_factor"),
            rope.number("high_freq_factor"),
            rope.size("original_max_position_embeddings", longest),
        )
    elif kind == "yarn":
        entries["rope_scaling"] = _yarn(rope, longest)
    elif kind == "longrope":
        entries |= {"rope_scaling": _longrope(rope, longest, original), "max_positions": min(longest, original)}
        if longest > original:
            warnings.warn(
                f"{fields.where}: max_position_embeddings is {longest}; rope_type longrope is supported for contexts "
                f"of up to original_max_position_embeddings = {original} tokens, and longer ones are refused",
                stacklevel=6,
            )
    _refuse_unread(rope, f"for rope_type {kind}")
    return entries


def _yarn(rope: Fields, longest: int) -> RopeScaling:
    factor = rope.number("factor")

    def amplitude(share: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * share * math.log(factor) + 1.0

    inferred = amplitude(1.0)
    if rope.get("mscale") and rope.get("mscale_all_dim"):
        inferred = amplitude(rope.number("mscale")) / amplitude(rope.number("mscale_all_dim"))
    return RopeScaling(
        "yarn",
        factor,
        rope.number("beta_slow", 1.0),
        rope.number("beta_fast", 32.0),
        rope.size("original_max_position_embeddings", longest),
        whole_indices=rope.flag("truncate", True),
        amplitude=rope.number("attention_factor", inferred),
    )


def _longrope(rope: Fields, longest: int, original: int) -> RopeScaling:
    factor = rope.number("factor", longest / original)
    inferred = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    rope.numbers("long_factor")
    return RopeScaling(
        "longrope",
        original_positions=original,
        factors=rope.numbers("short_factor"),
        amplitude=rope.number("attention_factor", inferred),
    )


def _refuse_unread(rope: Fields, where: str) -> None:
    if unread := rope.unread():
        raise CheckpointError(f"{rope.where}: {', '.join(unread)} not supported {where}")
