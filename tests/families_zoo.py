"""Tiny random checkpoints of the five families, written by transformers, their weights large enough to show bugs."""

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
    "gpt2-tied": ("GPT2", {}),
    "gpt2-untied": (
        "GPT2",
        {"tie_word_embeddings": False, "n_inner": 72, "activation_function": "gelu", "layer_norm_epsilon": 1e-3},
    ),
}


def build(name: str) -> Any:
    """A transformers model with eager attention: weights of standard deviation 0.25, norms and biases random too."""
    family, arguments = ZOO[name]
    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0}
    if family == "GPT2":
        sizes |= {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 80}
    else:
        sizes |= {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
        sizes |= {"intermediate_size": 104, "max_position_embeddings": 80}
    config = getattr(transformers, f"{family}Config")(**sizes, **arguments, attn_implementation="eager")
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


def write(name: str, folder: Path, **options: Any) -> Any:
    """Save the model as a checkpoint folder, and return it."""
    model = build(name)
    model.save_pretrained(folder, **options)
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    return model
