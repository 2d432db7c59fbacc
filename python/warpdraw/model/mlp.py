"""Mlp: the part of a block that looks at each position alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from .config import ModelConfig

if TYPE_CHECKING:
    from .transformer import Step

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
}


class Mlp(nn.Module):
    """down(act(gate(x)) * up(x)), or down(act(up(x))) where the mlp is plain."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gated = config.mlp == "gated"
        self.activation = _ACTIVATIONS[config.activation]
        self.up = nn.Linear(config.hidden_size, config.mlp_size * (2 if self.gated else 1), bias=config.mlp_bias)
        self.down = nn.Linear(config.mlp_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        x = step.linear(x, self.up)
        if self.gated:
            gate, up = x.chunk(2, dim=-1)
            return step.linear(step.activate(self.activation, gate) * up, self.down)
        return step.linear(step.activate(self.activation, x), self.down)
