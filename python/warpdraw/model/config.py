"""ModelConfig: the shape and the choices of one decoder-only transformer, one record for every family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Norm = Literal["rms", "layer"]
NormPlacement = Literal["before", "after", "both"]
QkNormSpan = Literal["head", "all"]
Positions = Literal["rotary", "learned"]
Mlp = Literal["gated", "plain"]
Activation = Literal["silu", "gelu", "gelu_tanh"]

_CHOICES = {
    "norm": ("rms", "layer"),
    "norm_placement": ("before", "after", "both"),
    "qk_norm_span": ("head", "all"),
    "positions": ("rotary", "learned"),
    "mlp": ("gated", "plain"),
    "activation": ("silu", "gelu", "gelu_tanh"),
}
_SIZES = ("vocab_size", "hidden_size", "layers", "heads", "kv_heads", "head_dim", "mlp_size", "max_positions")
_POSITIVE = ("embedding_scale", "attention_scale", "attention_cap", "logit_cap", "rope_theta", "sliding_rope_theta")


class CheckpointError(ValueError):
    """A checkpoint that is missing, broken or not of a supported kind; the message names the file or entry."""


@dataclass(frozen=True)
class RopeScaling:
    """How the rotary frequencies are stretched for contexts longer than those of the first training.

    `"linear"` divides every frequency by `factor`. `"llama3"` (Llama 3.1) divides those whose wavelength is longer
    than `original_positions / low_factor`, keeps those shorter than `original_positions / high_factor`, and blends
    in between. `"yarn"` (arXiv 2309.00071) divides those that turn less than `low_factor` times in
    `original_positions`, keeps those that turn more than `high_factor` times, and blends by their index in between,
    from whole indices if `whole_indices`. `"longrope"` (arXiv 2402.13753) divides each by its own of `factors`.
    Cosines and sines are multiplied by `amplitude`.
    """

    kind: Literal["linear", "llama3", "yarn", "longrope"]
    factor: float = 1.0
    low_factor: float = 1.0
    high_factor: float = 4.0
    original_positions: int = 8192
    whole_indices: bool = True
    factors: tuple[float, ...] = ()
    amplitude: float = 1.0


@dataclass(frozen=True)
class ModelConfig:
    """The shape and the choices of one decoder-only transformer.

    The defaults are a Llama: RMSNorm before each part, rotary positions, SwiGLU (`mlp="gated"`, `activation="silu"`),
    no biases. `head_dim` 0 means `hidden_size // heads`, `kv_heads` 0 means `heads`. A token at position i sees
    positions j <= i, and with a `sliding_window` w only those with j > i - w, in every layer or in those that
    `sliding_layers` names. Raises ValueError for sizes that do not fit together.

    - Norms stand before attention and mlp, after them, or both; their weights are what is stored plus `norm_offset`.
      `qk_norm` also norms queries and keys, each head or (`qk_norm_span="all"`) all heads at once.
    - With `parallel_residual`, attention and mlp read the same x, and both are added to it.
    - Embeddings are multiplied by `embedding_scale`, products of queries and keys by `attention_scale` (None: one over
      the root of `head_dim`). A cap c makes c tanh(x / c) of those products, or of the logits.
    - The first `rotary_size` numbers of a head turn (0: all), in every layer or in those that `rotary_layers` names.
      With a `sliding_rope_theta`, sliding layers have this base and no scaling.

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
    norm_offset: float = 0.0
    norm_placement: NormPlacement = "before"
    parallel_residual: bool = False
    positions: Positions = "rotary"
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    rotary_size: int = 0
    rotary_layers: tuple[int, ...] | None = None
    sliding_rope_theta: float | None = None
    mlp: Mlp = "gated"
    activation: Activation = "silu"
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    qk_norm_span: QkNormSpan = "head"
    embedding_scale: float | None = None
    attention_scale: float | None = None
    attention_cap: float | None = None
    logit_cap: float | None = None
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
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} is {value}; it must be a positive number")
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads is {self.kv_heads}; it must divide heads {self.heads}")
        if self.norm_offset and self.norm != "rms":
            raise ValueError(f"norm_offset is {self.norm_offset}; it must be 0 where norm is {self.norm}")
        if self.parallel_residual and self.norm_placement != "before":
            raise ValueError(f"norm_placement is {self.norm_placement!r}; a parallel residual needs 'before'")
        if self.positions == "rotary":
            self._check_rotary()
        if self.sliding_window is not None and self.sliding_window < 1:
            raise ValueError(f"sliding_window is {self.sliding_window}; it must be None or at least 1")

    def _check_rotary(self) -> None:
        if not self.rotary_size:
            if self.head_dim % 2:
                raise ValueError(f"head_dim is {self.head_dim}; rotary positions need an even one")
            object.__setattr__(self, "rotary_size", self.head_dim)
        if self.rotary_size % 2 or not 0 < self.rotary_size <= self.head_dim:
            raise ValueError(f"rotary_size is {self.rotary_size}; it must be even and at most head_dim {self.head_dim}")
        scaling = self.rope_scaling
        if scaling is not None and scaling.kind == "longrope" and len(scaling.factors) != self.rotary_size // 2:
            raise ValueError(f"rope_scaling has {len(scaling.factors)} factors; it must have {self.rotary_size // 2}")

    def window(self, layer: int) -> int | None:
        """The sliding window of one layer, None where the layer sees everything."""
        if self.sliding_layers is not None and layer not in self.sliding_layers:
            return None
        return self.sliding_window

    def rotary_set(self, layer: int) -> int | None:
        """Which angles turn queries and keys of one layer: 0 the model's, 1 those of sliding layers, None no angles."""
        if self.positions != "rotary" or (self.rotary_layers is not None and layer not in self.rotary_layers):
            return None
        return 1 if self.sliding_rope_theta is not None and self.window(layer) is not None else 0
