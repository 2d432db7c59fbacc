"""ModelConfig: the shape and the choices of one decoder-only transformer, one record for every family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Norm = Literal["rms", "layer"]
Positions = Literal["rotary", "learned"]
Mlp = Literal["gated", "plain"]
Activation = Literal["silu", "gelu", "gelu_tanh"]

_CHOICES = {
    "norm": ("rms", "layer"),
    "positions": ("rotary", "learned"),
    "mlp": ("gated", "plain"),
    "activation": ("silu", "gelu", "gelu_tanh"),
}
_SIZES = ("vocab_size", "hidden_size", "layers", "heads", "kv_heads", "head_dim", "mlp_size", "max_positions")


class CheckpointError(ValueError):
    """A checkpoint that is missing, broken or not of a supported kind; the message names the file or entry."""


@dataclass(frozen=True)
class RopeScaling:
    """How the rotary frequencies are stretched for contexts longer than those of the first training.

    `"linear"` divides every frequency by `factor`. `"llama3"` (Llama 3.1) divides those whose wavelength is longer
    than `original_positions / low_factor`, keeps those shorter than `original_positions / high_factor`, and blends
    in between.
    """

    kind: Literal["linear", "llama3"]
    factor: float
    low_factor: float = 1.0
    high_factor: float = 4.0
    original_positions: int = 8192


@dataclass(frozen=True)
class ModelConfig:
    """The shape and the choices of one decoder-only transformer.

    The defaults are a Llama: RMSNorm, rotary positions, SwiGLU (`mlp="gated"`, `activation="silu"`), no biases.
    `head_dim` 0 means `hidden_size // heads`, `kv_heads` 0 means `heads`. A token at position i sees positions j <= i,
    and with a `sliding_window` w only those with j > i - w, in every layer or in those that `sliding_layers` names.
    Raises ValueError for sizes that do not fit together.

    >>> config = ModelConfig(
    ...     vocab_size=512, hidden_size=64, layers=2, heads=4, mlp_size=176, max_positions=128
    ... )
    >>> config.head_dim, config.kv_heads
    (16, 4)
    """

    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    mlp_size: int
    max_positions: int
    kv_heads: int = 0
    head_dim: int = 0
    norm: Norm = "rms"
    norm_eps: float = 1e-6
    positions: Positions = "rotary"
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    mlp: Mlp = "gated"
    activation: Activation = "silu"
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    sliding_window: int | None = None
    sliding_layers: tuple[int, ...] | None = None
    tied: bool = False

    def __post_init__(self) -> None:
        if not self.kv_heads:
            object.__setattr__(self, "kv_heads", self.heads)
        for name in _SIZES:
            if name == "head_dim" and not self.head_dim:
                if self.hidden_size % self.heads:
                    raise ValueError(f"heads is {self.heads}; it must divide hidden_size {self.hidden_size}")
                object.__setattr__(self, "head_dim", self.hidden_size // self.heads)
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} is {value!r}; it must be a positive integer")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(allowed)}")
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads is {self.kv_heads}; it must divide heads {self.heads}")
        if self.positions == "rotary" and self.head_dim % 2:
            raise ValueError(f"head_dim is {self.head_dim}; rotary positions need an even one")
        if self.sliding_window is not None and self.sliding_window < 1:
            raise ValueError(f"sliding_window is {self.sliding_window}; it must be None or at least 1")

    def window(self, layer: int) -> int | None:
        """The sliding window of one layer, None where the layer sees everything."""
        if self.sliding_layers is not None and layer not in self.sliding_layers:
            return None
        return self.sliding_window
