"""The supported families: how the config.json of each becomes a ModelConfig, and what its tensors are called."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .config import CheckpointError, ModelConfig, RopeScaling
from .json_fields import Fields
from .tensor_names import Part, gpt2_parts, llama_parts

# Entries of a config.json that say nothing about the logits, in any family.
_NEUTRAL = frozenset(
    {
        *("_attn_implementation_autoset", "_name_or_path", "transformers_version", "dtype", "torch_dtype", "n_ctx"),
        *("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "initializer_range", "use_cache"),
        *("attention_dropout", "attn_pdrop", "embd_pdrop", "resid_pdrop", "gradient_checkpointing"),
        *("output_attentions", "output_hidden_states", "return_dict", "pretraining_tp", "reorder_and_upcast_attn"),
        *("summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type"),
        *("summary_use_proj", "task_specific_params", "id2label", "label2id"),
    }
)

_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}


@dataclass(frozen=True)
class Family:
    """One `model_type`: the class that its checkpoints name, and how its config and its tensors are read.

    Tensors may lack `prefix` where the checkpoint was written without the head around it. Tensors whose name ends in
    one of `constants` are what older checkpoints carry beside the weights: values that follow from the config.
    """

    architecture: str
    config: Callable[[Fields], ModelConfig]
    parts: Callable[[ModelConfig], list[Part]]
    prefix: str = ""
    constants: tuple[str, ...] = ()


def read_config(fields: Fields) -> tuple[ModelConfig, Family]:
    """The ModelConfig that a config.json describes, and the family it belongs to.

    Optional entries that are absent have the values that transformers gives them, but `num_key_value_heads` always that
    of `num_attention_heads`. Raises CheckpointError for an unknown `model_type` and for entries that are wrong or not
    supported; warns about entries that it does not know.
    """
    family: Family = fields.choice("model_type", None, FAMILIES)
    fields.only("architectures", [family.architecture])
    fields.only("quantization_config", None)
    try:
        config = family.config(fields)
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{fields.where}: {error}") from None
    if unread := fields.unread(_NEUTRAL):
        warnings.warn(f"{fields.where}: unknown entries, not used: {', '.join(unread)}", stacklevel=3)
    return config, family


def _llama_shape(fields: Fields) -> dict[str, Any]:
    theta, scaling = _rope(fields)
    heads = fields.size("num_attention_heads")
    return {
        "vocab_size": fields.size("vocab_size"),
        "hidden_size": fields.size("hidden_size"),
        "layers": fields.size("num_hidden_layers"),
        "heads": heads,
        "kv_heads": fields.size("num_key_value_heads", heads),
        "head_dim": fields.size("head_dim") if fields.get("head_dim") else 0,
        "mlp_size": fields.size("intermediate_size"),
        "max_positions": fields.size("max_position_embeddings"),
        "norm_eps": fields.number("rms_norm_eps", 1e-6),
        "activation": fields.choice("hidden_act", "silu", _ACTIVATIONS),
        "rope_theta": theta,
        "rope_scaling": scaling,
        "tied": fields.flag("tie_word_embeddings", False),
    }


def _rope(fields: Fields) -> tuple[float, RopeScaling | None]:
    """The base and the scaling, from `rope_parameters` or from the older `rope_theta` and `rope_scaling`."""
    if fields.get("rope_parameters") and fields.get("rope_scaling"):
        raise fields.error("rope_scaling", "absent where rope_parameters is present")
    rope = fields.fields("rope_parameters" if fields.get("rope_parameters") else "rope_scaling")
    outer = fields.number("rope_theta", rope.number("rope_theta", 10000.0))
    theta = rope.number("rope_theta", outer)
    if theta != outer:
        raise fields.error("rope_theta", f"{theta}, as in {rope.where}")
    fields.only("partial_rotary_factor", 1.0)
    rope.only("partial_rotary_factor", 1.0)
    kinds: dict[str, Any] = {"default": None, "linear": "linear", "llama3": "llama3"}
    old_kind = rope.get("type", "default")
    kind = rope.choice("rope_type" if rope.get("rope_type") else "type", old_kind, kinds)
    scaling = None
    if kind == "linear":
        scaling = RopeScaling("linear", rope.number("factor"))
    elif kind == "llama3":
        scaling = RopeScaling(
            "llama3",
            rope.number("factor"),
            rope.number("low_freq_factor"),
            rope.number("high_freq_factor"),
            rope.size("original_max_position_embeddings", fields.size("max_position_embeddings")),
        )
    if unread := rope.unread():
        raise CheckpointError(f"{rope.where}: {', '.join(unread)} not supported for rope_type {kind or 'default'}")
    return theta, scaling


def _llama(fields: Fields) -> ModelConfig:
    bias = fields.flag("attention_bias", False)
    mlp_bias = fields.flag("mlp_bias", False)
    return ModelConfig(**_llama_shape(fields), qkv_bias=bias, output_bias=bias, mlp_bias=mlp_bias)


def _mistral(fields: Fields) -> ModelConfig:
    # Absent means 4096 and null means none: the first Mistral configs relied on the one, later ones write the other.
    absent = "sliding_window" not in fields.content
    window = 4096 if absent else fields.get("sliding_window") and fields.size("sliding_window")
    return ModelConfig(**_llama_shape(fields), sliding_window=window)


def _qwen2(fields: Fields) -> ModelConfig:
    return ModelConfig(**_llama_shape(fields), **_qwen_window(fields), qkv_bias=True)


def _qwen3(fields: Fields) -> ModelConfig:
    bias = fields.flag("attention_bias", False)
    shape = _llama_shape(fields) | {"head_dim": fields.size("head_dim", 128)}
    return ModelConfig(**shape, **_qwen_window(fields), qkv_bias=bias, output_bias=bias, qk_norm=True)


def _qwen_window(fields: Fields) -> dict[str, Any]:
    """Qwen slides where `use_sliding_window` is set, in the layers that `layer_types` or `max_window_layers` says."""
    layers = fields.size("num_hidden_layers")
    first = fields.get("max_window_layers", 28)
    types = fields.get("layer_types")
    fields.get("sliding_window")
    if not fields.flag("use_sliding_window", False):
        if types not in (None, ["full_attention"] * layers):
            raise fields.error("layer_types", "all full_attention where use_sliding_window is not true")
        return {}
    if types is None:
        sliding = tuple(range(first, layers))
    elif len(types) == layers and set(types) <= {"full_attention", "sliding_attention"}:
        sliding = tuple(layer for layer, kind in enumerate(types) if kind == "sliding_attention")
    else:
        raise fields.error("layer_types", f"a list of {layers}, each full_attention or sliding_attention")
    return {"sliding_window": fields.size("sliding_window", 4096), "sliding_layers": sliding}


def _gpt2(fields: Fields) -> ModelConfig:
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


_ROTARY_CONSTANTS = (".rotary_emb.inv_freq",)
FAMILIES = {
    "llama": Family("LlamaForCausalLM", _llama, llama_parts, constants=_ROTARY_CONSTANTS),
    "mistral": Family("MistralForCausalLM", _mistral, llama_parts, constants=_ROTARY_CONSTANTS),
    "qwen2": Family("Qwen2ForCausalLM", _qwen2, llama_parts, constants=_ROTARY_CONSTANTS),
    "qwen3": Family("Qwen3ForCausalLM", _qwen3, llama_parts, constants=_ROTARY_CONSTANTS),
    "gpt2": Family("GPT2LMHeadModel", _gpt2, gpt2_parts, "transformer.", (".attn.bias", ".attn.masked_bias")),
}
