"""The supported families: how the config.json of each becomes a ModelConfig, and what its tensors are called."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

from . import family_configs
from .config import CheckpointError, ModelConfig
from .json_fields import Fields
from .tensor_names import Part, gpt2_parts, gpt_neox_parts, llama_parts, phi3_parts

# Entries of a config.json that say nothing about the logits, in any family.
_NEUTRAL = frozenset(
    {
        *("_attn_implementation_autoset", "_name_or_path", "transformers_version", "dtype", "torch_dtype", "n_ctx"),
        *("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "initializer_range", "use_cache"),
        *("attention_dropout", "attn_pdrop", "embd_pdrop", "resid_pdrop", "gradient_checkpointing"),
        *("output_attentions", "output_hidden_states", "return_dict", "pretraining_tp", "reorder_and_upcast_attn"),
        *("summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type"),
        *("summary_use_proj", "task_specific_params", "id2label", "label2id", "auto_map", "cache_implementation"),
        *("attention_probs_dropout_prob", "hidden_dropout", "hidden_dropout_prob", "classifier_dropout"),
        *("_sliding_window_pattern", "attention_softmax_in_fp32", "is_decoder", "tokenizer_class"),
    }
)

# Entries that make another model of a checkpoint, whatever its family.
_ABSENT = ("quantization_config", "vision_config", "audio_config", "num_experts", "num_local_experts")


@dataclass(frozen=True)
class Family:
    """One `model_type`: the class that its checkpoints name, and how its config and its tensors are read.

    Tensors may lack `prefix` where the checkpoint was written without the head around it. Tensors whose name ends in
    one of `constants` are what older checkpoints carry beside the weights: values that follow from the config. The
    tensor `head` may also be called lm_head.weight.
    """

    architecture: str
    config: Callable[[Fields], ModelConfig]
    parts: Callable[[ModelConfig], list[Part]]
    prefix: str = ""
    constants: tuple[str, ...] = ()
    head: str = "lm_head.weight"


def read_config(fields: Fields) -> tuple[ModelConfig, Family]:
    """The ModelConfig that a config.json describes, and the family it belongs to.

    Optional entries that are absent have the values that transformers gives them, but `num_key_value_heads` always that
    of `num_attention_heads`. Raises CheckpointError for an unknown `model_type` and for entries that are wrong or not
    supported; warns about entries that it does not know.
    """
    for entry in _ABSENT:
        fields.only(entry, None)
    family: Family = fields.choice("model_type", None, FAMILIES)
    fields.only("architectures", [family.architecture])
    try:
        config = family.config(fields)
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{fields.where}: {error}") from None
    if unread := fields.unread(_NEUTRAL):
        warnings.warn(f"{fields.where}: unknown entries, not used: {', '.join(unread)}", stacklevel=3)
    return config, family


_ROTARY = (".rotary_emb.inv_freq",)
_MASKS = (".attn.bias", ".attn.masked_bias")
_NEOX_MASKS = (".attention.bias", ".attention.masked_bias")
FAMILIES = {
    "llama": Family("LlamaForCausalLM", family_configs.llama, llama_parts, constants=_ROTARY),
    "mistral": Family("MistralForCausalLM", family_configs.mistral, llama_parts, constants=_ROTARY),
    "qwen2": Family("Qwen2ForCausalLM", family_configs.qwen2, llama_parts, constants=_ROTARY),
    "qwen3": Family("Qwen3ForCausalLM", family_configs.qwen3, llama_parts, constants=_ROTARY),
    "gemma2": Family("Gemma2ForCausalLM", family_configs.gemma2, llama_parts, constants=_ROTARY),
    "gemma3_text": Family("Gemma3ForCausalLM", family_configs.gemma3, llama_parts, constants=_ROTARY),
    "phi3": Family("Phi3ForCausalLM", family_configs.phi3, phi3_parts, constants=_ROTARY),
    "olmo2": Family("Olmo2ForCausalLM", family_configs.olmo2, llama_parts, constants=_ROTARY),
    "smollm3": Family("SmolLM3ForCausalLM", family_configs.smollm3, llama_parts, constants=_ROTARY),
    "gpt2": Family("GPT2LMHeadModel", family_configs.gpt2, gpt2_parts, "transformer.", _MASKS),
    "gpt_neox": Family(
        "GPTNeoXForCausalLM", family_configs.gpt_neox, gpt_neox_parts, "gpt_neox.", _NEOX_MASKS + _ROTARY,
        head="embed_out.weight",
    ),
}  # fmt: skip
