"""The optimizer: AdamW, with weight decay on matrices only, and its learning rate for each step."""

from __future__ import annotations

import math

import torch
from torch import nn

from .config import TrainingConfig

BETAS = (0.9, 0.95)
# The share of the largest learning rate that is left at the end.
LAST = 0.1


def learning_rate(config: TrainingConfig, step: int) -> float:
    """The learning rate of step 0, 1, ..., steps - 1: a linear warm-up, then half a cosine down to a tenth of it.

    >>> config = TrainingConfig(steps=100, warmup=10, learning_rate=1.0)
    >>> learning_rate(config, 0), learning_rate(config, 9), learning_rate(config, 10)
    (0.1, 1.0, 1.0)
    >>> round(learning_rate(config, 55), 3), learning_rate(config, 99) < 0.101
    (0.55, True)
    """
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    # rate = largest (last + (1 - last) (1 + cos(pi x)) / 2), where x goes from 0 to 1 after the warm-up
    part = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.learning_rate * (LAST + (1 - LAST) * (1 + math.cos(math.pi * part)) / 2)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """The matrices, which decay, and the vectors (norms and biases), which do not.

    >>> [len(group["params"]) for group in parameter_groups(nn.Linear(2, 2), 0.1)]
    [1, 1]
    """
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups: list[dict[str, object]] = [{"params": matrices, "weight_decay": weight_decay}]
    return [*groups, {"params": vectors, "weight_decay": 0.0}] if vectors else groups


def optimizer_of(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW over the two groups of a model. Loshchilov and Hutter, arXiv 1711.05101."""
    return torch.optim.AdamW(
        parameter_groups(model, config.weight_decay), lr=config.learning_rate, betas=BETAS, fused=True
    )
