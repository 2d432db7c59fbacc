"""Tiny random checkpoints of every family, written by transformers, their weights large enough to show bugs."""

from functools import cache
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers

VOCABULARY = 96

# name: (config class, arguments). Sizes are chosen so that no two of them are equal by accident.
ZOO: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-gqa": ("Llama", {"num_key_value_heads": 2}),
    "llama-mha-tied": ("Llama", {"num_key_value_heads": 4, "tie_word_embeddings": True}),
    "llama-biases": (
        "Llama",
        {"num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True, "rms_norm_eps": 1e-4},
    ),
    "llama-head-dim": ("Llama", {"num_key_value_heads": 2, "head_dim": 24}),
    "llama-linear": ("Llama", {"rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 5000.0}}),
    "llama-llama3": (
        "Llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
                "rope_theta": 500.0,
            }
        },
    ),
    "mistral-window": ("Mistral", {"num_key_value_heads": 2, "sliding_window": 7}),
    "mistral-full": ("Mistral", {"num_key_value_heads": 4, "sliding_window": None, "tie_word_embeddings": True}),
    "qwen2-gqa": ("Qwen2", {"num_key_value_heads": 2}),
    "qwen2-mha-tied": ("Qwen2", {"num_key_value_heads": 4, "tie_word_embeddings": True}),
    "qwen2-window": (
        "Qwen2",
        {"num_key_value_heads": 2, "use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1},
    ),
    "qwen3-head-dim": ("Qwen3", {"num_key_value_heads": 2, "head_dim": 24}),
    "qwen3-mha-tied": (
        "Qwen3",
        {"num_key_value_heads": 4, "head_dim": 16, "tie_word_embeddings": True, "attention_bias": True},
    ),
    "qwen2-yarn": (
        "Qwen2",
        {
            "num_key_value_heads": 2,
            "rope_parameters": {
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 64,
                "beta_fast": 2.0,
                "rope_theta": 300.0,
            },
        },
    ),
    "qwen3-yarn-mscale": (
        "Qwen3",
        {
            "num_key_value_heads": 2,
            "head_dim": 24,
            "rope_parameters": {
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 20,
                "mscale": 0.7,
                "mscale_all_dim": 1.3,
                "truncate": False,
                "rope_theta": 10000.0,
            },
        },
    ),
    "gemma2": (
        "Gemma2",
        {
            **{"num_key_value_heads": 2, "head_dim": 24, "query_pre_attn_scalar": 20, "sliding_window": 7},
            **{"attn_logit_softcapping": 4.0, "final_logit_softcapping": 6.0},
        },
    ),
    "gemma2-uncapped": (
        "Gemma2",
        {
            **{"num_key_value_heads": 4, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 9},
            **{"attn_logit_softcapping": None, "final_logit_softcapping": None, "attention_bias": True},
            **{"layer_types": ["full_attention", "full_attention", "sliding_attention"], "tie_word_embeddings": False},
        },
    ),
    "gemma3": (
        "Gemma3Text",
        {
            **{"num_key_value_heads": 1, "head_dim": 24, "query_pre_attn_scalar": 20, "sliding_window": 7},
            **{"num_hidden_layers": 4, "sliding_window_pattern": 3, "final_logit_softcapping": 8.0},
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 4000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
            },
        },
    ),
    "phi3": ("Phi3", {"num_key_value_heads": 2, "sliding_window": 30}),
    "phi3-partial": ("Phi3", {"partial_rotary_factor": 0.75, "tie_word_embeddings": True}),
    "phi3-longrope": (
        "Phi3",
        {
            **{"max_position_embeddings": 160, "original_max_position_embeddings": 80},
            "rope_parameters": {
                "rope_type": "longrope",
                "short_factor": [1.0, 1.1, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0],
                "long_factor": [4.0] * 8,
                "rope_theta": 300.0,
            },
        },
    ),
    "olmo2": ("Olmo2", {"num_key_value_heads": 2}),
    "olmo2-biases": ("Olmo2", {"attention_bias": True, "tie_word_embeddings": True}),
    "smollm3": (
        "SmolLM3",
        {"num_key_value_heads": 2, "no_rope_layer_interval": 2, "rope_parameters": {"rope_theta": 90.0}},
    ),
    "smollm3-window": (
        "SmolLM3",
        {
            **{"num_key_value_heads": 1, "no_rope_layers": [0, 1, 0], "use_sliding_window": True, "sliding_window": 7},
            **{"tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True},
        },
    ),
    "neox": ("GPTNeoX", {"rope_parameters": {"partial_rotary_factor": 0.25, "rope_theta": 20.0}}),
    "neox-in-turn": (
        "GPTNeoX",
        {
            **{"use_parallel_residual": False, "attention_bias": False, "tie_word_embeddings": True},
            **{"hidden_act": "gelu_fast", "rope_parameters": {"partial_rotary_factor": 1.0, "rope_theta": 20.0}},
        },
    ),
    "gpt2-tied": ("GPT2", {}),
    "gpt2-untied": (
        "GPT2",
        {"tie_word_embeddings": False, "n_inner": 72, "activation_function": "gelu", "layer_norm_epsilon": 1e-3},
    ),
}


def build(name: str, **changes: Any) -> Any:
    """A transformers model with eager attention: weights of standard deviation 0.25, norms and biases random too."""
    family, arguments = ZOO[name]
    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0}
    if family == "GPT2":
        sizes |= {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 80}
    else:
        sizes |= {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
        sizes |= {"intermediate_size": 104, "max_position_embeddings": 80}
    config = getattr(transformers, f"{family}Config")(**sizes | arguments | changes, attn_implementation="eager")
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.25 * noise if parameter.ndim == 2 else parameter + 0.3 * noise)
    return model


@cache
def byte_tokenizer() -> tokenizers.Tokenizer:
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())[:VOCABULARY]
    return tokenizers.Tokenizer(tokenizers.models.BPE({letter: index for index, letter in enumerate(letters)}, []))


def write(name: str, folder: Path, max_shard_size: str = "1GB", **changes: Any) -> Any:
    """Save the model, with changes to its config, as a checkpoint folder, and return it."""
    model = build(name, **changes)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    return model
