"""Shapes of models whose decode steps are measured, and such a model with random weights and a filled cache."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..model.cache import KVCache
from ..model.config import ModelConfig
from ..model.transformer import Transformer

# What the cache of each row holds before and after a step.
CONTEXT, QUICK_CONTEXT = 512, 64
# Logits are about N(0, LOGITS_STD), and other activations about N(0, 1) times the root of the number of layers.
LOGITS_STD = 3.0

SHAPES: dict[str, ModelConfig] = {
    "0.5B": ModelConfig(151936, 896, 24, 14, 4864, 2048, kv_heads=2, rope_theta=1e6, qkv_bias=True, tied=True),
    "8B": ModelConfig(128256, 4096, 32, 32, 14336, 2048, kv_heads=8, rope_theta=5e5),
    "1.5B": ModelConfig(151936, 1536, 28, 12, 8960, 2048, kv_heads=2, rope_theta=1e6, qkv_bias=True, tied=True),
}
QUICK_SHAPES = {
    name: ModelConfig(vocab, 64, 2, 4, 128, 256, kv_heads=2, tied=config.tied, qkv_bias=config.qkv_bias)
    for (name, config), vocab in zip(SHAPES.items(), (1000, 900, 1100), strict=True)
}
# Who drafts for whom.
DRAFTERS: dict[str, tuple[str, ModelConfig]] = {
    "8B": ("1B", ModelConfig(128256, 2048, 16, 32, 8192, 2048, kv_heads=8, rope_theta=5e5, tied=True)),
    "1.5B": ("0.5B", SHAPES["0.5B"]),
}
QUICK_DRAFTERS = {name: (drafter, replace(QUICK_SHAPES[name], layers=1)) for name, (drafter, _) in DRAFTERS.items()}


def random_model(config: ModelConfig, device: torch.device, dtype: torch.dtype = torch.bfloat16) -> Transformer:
    """A model whose weights are made where they stay, in their own dtype: nothing else takes memory."""
    with torch.device("meta"):
        model = Transformer(config)
    generator = torch.Generator(device).manual_seed(2024)
    state = {}
    head = "embedding.weight" if config.tied else "head.weight"
    for name, parameter in model.named_parameters():
        made = torch.empty(parameter.shape, dtype=dtype, device=device)
        if parameter.ndim == 1:
            made.fill_(0.0 if name.endswith("bias") else 1.0)
        else:
            scale = LOGITS_STD if name == head else 1.0
            made.normal_(0, scale * parameter.shape[1] ** -0.5, generator=generator)
        state[name] = made
    model.load_state_dict(state, assign=True)
    return model.to(device, dtype).eval().requires_grad_(False)


def filled_cache(config: ModelConfig, slots: int, places: int, device: torch.device) -> KVCache:
    """A cache of random keys and values."""
    cache = KVCache(config, slots, places, torch.bfloat16, device)
    generator = torch.Generator(device).manual_seed(2025)
    for layer in range(config.layers):
        cache.keys(layer).normal_(generator=generator)
        cache.values(layer).normal_(generator=generator)
    return cache
