"""How the config.json of each family becomes a ModelConfig."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .config import ModelConfig
from .json_fields import Fields
from .rope_entries import read_gemma3_rope, read_neox_rope, read_phi3_rope, read_rope

_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}


def llama(fields: Fields) -> ModelConfig:
    return ModelConfig(**_shape(fields), **_biases(fields), **read_rope(fields))


def mistral(fields: Fields) -> ModelConfig:
    # Absent means 4096 and null means none: the first Mistral configs relied on the one, later ones write the other.
    absent = "sliding_window" not in fields.content
    window = 4096 if absent else fields.get("sliding_window") and fields.size("sliding_window")
    return ModelConfig(**_shape(fields), **_biases(fields), **read_rope(fields), sliding_window=window)


def qwen2(fields: Fields) -> ModelConfig:
    return ModelConfig(**_shape(fields), **read_rope(fields), **_qwen_window(fields), qkv_bias=True)


def qwen3(fields: Fields) -> ModelConfig:
    return ModelConfig(
        **_shape(fields, head_dim=128), **_biases(fields), **read_rope(fields), **_qwen_window(fields), qk_norm=True
    )


def phi3(fields: Fields) -> ModelConfig:
    for entry in ("attention_bias", "mlp_bias", "lm_head_bias"):
        fields.only(entry, False)
    for entry in ("full_attn_mod", "interpolate_factor"):
        fields.only(entry, 1)
    shape = _shape(fields, norm_eps=1e-5)
    head_dim = shape["head_dim"] or shape["hidden_size"] // shape["heads"]
    window = fields.size("sliding_window") if fields.get("sliding_window") else None
    return ModelConfig(**shape | read_phi3_rope(fields, head_dim), sliding_window=window)


def olmo2(fields: Fields) -> ModelConfig:
    shape = _shape(fields, norm_eps=1e-5)
    choices: dict[str, Any] = {"norm_placement": "after", "qk_norm": True, "qk_norm_span": "all"}
    return ModelConfig(**shape, **_biases(fields), **read_rope(fields), **choices)


def smollm3(fields: Fields) -> ModelConfig:
    """`no_rope_layers` has a 1 for each layer that does turn; without it every fourth layer does not."""
    shape = _shape(fields, tied=True)
    layers = shape["layers"]
    interval = fields.size("no_rope_layer_interval", 4)
    turns = fields.get("no_rope_layers", [int((layer + 1) % interval != 0) for layer in range(layers)])
    if not isinstance(turns, list) or len(turns) != layers or not set(turns) <= {0, 1}:
        raise fields.error("no_rope_layers", f"a list of {layers}, each 0 or 1")
    still = [layer for layer, turn in enumerate(turns) if not turn]
    rotary = tuple(layer for layer, turn in enumerate(turns) if turn) if still else None
    fields.get("max_window_layers")
    window = _window_if_used(fields, still)
    return ModelConfig(**shape, **_biases(fields), **read_rope(fields, 2e6), **window, rotary_layers=rotary)


def gemma2(fields: Fields) -> ModelConfig:
    shape = _gemma_shape(fields)
    sliding = _sliding_layers(fields, range(0, shape["layers"], 2))
    return ModelConfig(
        **shape,
        **read_rope(fields),
        sliding_layers=sliding,
        attention_cap=fields.number_or_null("attn_logit_softcapping", 50.0),
        logit_cap=fields.number_or_null("final_logit_softcapping", 30.0),
    )


def gemma3(fields: Fields) -> ModelConfig:
    # transformers reads this entry, but does not use it.
    fields.only("attn_logit_softcapping", None)
    shape = _gemma_shape(fields)
    pattern = fields.size("sliding_window_pattern", 6)
    sliding = _sliding_layers(fields, [layer for layer in range(shape["layers"]) if (layer + 1) % pattern])
    return ModelConfig(
        **shape,
        **read_gemma3_rope(fields),
        qk_norm=True,
        sliding_layers=sliding,
        logit_cap=fields.number_or_null("final_logit_softcapping", None),
    )


def gpt2(fields: Fields) -> ModelConfig:
    fields.only("scale_attn_weights", True)
    fields.only("scale_attn_by_inverse_layer_idx", False)
    fields.only("add_cross_attention", False)
    hidden_size = fields.size("n_embd")
    return ModelConfig(
        vocab_size=fields.size("vocab_size"),
        hidden_size=hidden_size,
        layers=fields.size("n_layer"),
        heads=fields.size("n_head"),
        mlp_size=fields.size("n_inner", 4 * hidden_size),
        max_positions=fields.size("n_positions"),
        norm="layer",
        norm_eps=fields.number("layer_norm_epsilon", 1e-5),
        positions="learned",
        mlp="plain",
        activation=fields.choice("activation_function", "gelu_new", _ACTIVATIONS),
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
        tied=fields.flag("tie_word_embeddings", True),
    )


def gpt_neox(fields: Fields) -> ModelConfig:
    hidden_size, heads = fields.size("hidden_size"), fields.size("num_attention_heads")
    bias = fields.flag("attention_bias", True)
    return ModelConfig(
        vocab_size=fields.size("vocab_size"),
        hidden_size=hidden_size,
        layers=fields.size("num_hidden_layers"),
        heads=heads,
        mlp_size=fields.size("intermediate_size"),
        max_positions=fields.size("max_position_embeddings"),
        norm="layer",
        norm_eps=fields.number("layer_norm_eps", 1e-5),
        parallel_residual=fields.flag("use_parallel_residual", True),
        **read_neox_rope(fields, hidden_size // heads),
        mlp="plain",
        activation=fields.choice("hidden_act", "gelu", _ACTIVATIONS),
        qkv_bias=bias,
        output_bias=bias,
        mlp_bias=True,
        tied=fields.flag("tie_word_embeddings", False),
    )


def _shape(
    fields: Fields, activation: str = "hidden_act", head_dim: int = 0, norm_eps: float = 1e-6, tied: bool = False
) -> dict[str, Any]:
    """What all descendants of Llama name alike; `head_dim`, `norm_eps` and `tied` are what absent ones are."""
    heads = fields.size("num_attention_heads")
    return {
        "vocab_size": fields.size("vocab_size"),
        "hidden_size": fields.size("hidden_size"),
        "layers": fields.size("num_hidden_layers"),
        "heads": heads,
        "kv_heads": fields.size("num_key_value_heads", heads),
        "head_dim": fields.size("head_dim") if fields.get("head_dim") else head_dim,
        "mlp_size": fields.size("intermediate_size"),
        "max_positions": fields.size("max_position_embeddings"),
        "norm_eps": fields.number("rms_norm_eps", norm_eps),
        "activation": fields.choice(activation, "silu", _ACTIVATIONS),
        "tied": fields.flag("tie_word_embeddings", tied),
    }


def _biases(fields: Fields) -> dict[str, Any]:
    bias = fields.flag("attention_bias", False)
    return {"qkv_bias": bias, "output_bias": bias, "mlp_bias": fields.flag("mlp_bias", False)}


def _gemma_shape(fields: Fields) -> dict[str, Any]:
    fields.get("hidden_act")  # what is meant stands in hidden_activation
    fields.only("use_bidirectional_attention", False)
    bias = fields.flag("attention_bias", False)
    shape = _shape(fields, head_dim=256, tied=True)
    return shape | {
        "activation": fields.choice("hidden_activation", "gelu_pytorch_tanh", _ACTIVATIONS),
        "qkv_bias": bias,
        "output_bias": bias,
        "norm_offset": 1.0,
        "norm_placement": "both",
        "embedding_scale": shape["hidden_size"] ** 0.5,
        "attention_scale": fields.number("query_pre_attn_scalar", 256.0) ** -0.5,
        "sliding_window": fields.size("sliding_window", 4096),
    }


def _qwen_window(fields: Fields) -> dict[str, Any]:
    first = fields.get("max_window_layers", 28)
    return _window_if_used(fields, range(first, fields.size("num_hidden_layers")))


def _window_if_used(fields: Fields, default: Sequence[int]) -> dict[str, Any]:
    """The window where `use_sliding_window` is set, in the layers that `layer_types` says or else in `default`."""
    layers = fields.size("num_hidden_layers")
    types = fields.get("layer_types")
    fields.get("sliding_window")
    if not fields.flag("use_sliding_window", False):
        if types not in (None, ["full_attention"] * layers):
            raise fields.error("layer_types", "all full_attention where use_sliding_window is not true")
        return {}
    return {"sliding_window": fields.size("sliding_window", 4096), "sliding_layers": _sliding_layers(fields, default)}


def _sliding_layers(fields: Fields, default: Sequence[int]) -> tuple[int, ...]:
    """The sliding layers that `layer_types` names, or else `default`."""
    layers = fields.size("num_hidden_layers")
    types = fields.get("layer_types")
    if types is None:
        return tuple(default)
    if len(types) != layers or not set(types) <= {"full_attention", "sliding_attention"}:
        raise fields.error("layer_types", f"a list of {layers}, each full_attention or sliding_attention")
    return tuple(layer for layer, kind in enumerate(types) if kind == "sliding_attention")
