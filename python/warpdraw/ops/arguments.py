"""The arguments that sample, filter_logits and filter_probs share: their contract, and which rows they leave valid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..contract import Contract, TensorSpec

_BITMASK = "bitmask: i32[B vocab_size/32]?"
PARAMETERS = (
    "temperature: f32[B] = 1.0 in [0, inf), top_k: i32[B] = 0 in [0, 2147483647], "
    "top_p: f32[B] = 1.0 in [0, 1], min_p: f32[B] = 0.0 in [0, 1], seed: i64[B] = 0, position: i64[B] = 0, "
    "dynatemp_range: f32[B] = 0.0 in [0, inf), dynatemp_exponent: f32[B] = 1.0 in [0, inf), "
    "top_n_sigma: f32[B] = 0.0 in [0, inf), typical_p: f32[B] = 1.0 in [0, 1], "
    "epsilon: f32[B] = 0.0 in [0, 1], eta: f32[B] = 0.0 in [0, 1], "
    "xtc_probability: f32[B] = 0.0 in [0, 1], xtc_threshold: f32[B] = 0.1 in [0, 1], "
    f"vocab_size: i32[B] = 0 in [0, V], {_BITMASK}, "
    "allowed_ids: i32[B A]?, banned_ids: i32[B D]?, stop_ids: i32[B S]?, min_tokens: i32[B] = 0 in [0, 2147483647], "
    "bias_ids: i32[B C]? with bias, bias: f32[B C]? with bias_ids, "
    "history: i32[B H]?, history_length: i32[B]? with history, "
    "prompt_length: i32[B] with history = 0 in [0, 2147483647], "
    "repetition_penalty: f32[B] = 1.0 in (0, inf), "
    "frequency_penalty: f32[B] = 0.0 in (-inf, inf), presence_penalty: f32[B] = 0.0 in (-inf, inf), "
    "dry_multiplier: f32[B] = 0.0 in [0, inf), dry_base: f32[B] = 1.75 in [1, inf), "
    "dry_allowed_length: i32[B] = 2 in [1, 2147483647], dry_breakers: i32[B E]?, "
    "no_repeat_ngram: i32[B] = 0 in [0, 2147483647]"
)
INPUTS = f"logits: float[B V], {PARAMETERS}"
# The same for each of the K+1 rows of a request, which differ in the tokens that are allowed.
PARAMETERS_OF_DRAFTS = PARAMETERS.replace(_BITMASK, "bitmask: i32[B K+1 vocab_size/32]|[N vocab_size/32]? with offsets")


def names_in(inputs: str) -> tuple[str, ...]:
    """The names of a part of a contract."""
    return tuple(spec.name for spec in Contract.parse(f"{inputs} -> out: f32[B]").inputs)


ORDER = "order: vllm|hf|flashinfer-joint|llama.cpp = vllm"

PerRow = Tensor | float | int

_SPECS = Contract.parse(f"{INPUTS}, {ORDER} -> out: f32[B]").inputs
_PARAMETERS = [spec for spec in _SPECS if isinstance(spec, TensorSpec) and spec.default is not None]
_LISTS = ("allowed_ids", "banned_ids", "stop_ids", "bias_ids")


def per_row(value: PerRow, logits: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """A parameter as [B], rounded to the dtype that kernels read."""
    tensor = torch.as_tensor(value, dtype=dtype, device=logits.device)
    return tensor.expand(logits.shape[0])


@dataclass
class Arguments:
    """One call: the parameters as tensors [B] of the dtype that kernels read, the other tensors as given or None."""

    logits: Tensor
    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    seed: Tensor
    position: Tensor
    dynatemp_range: Tensor
    dynatemp_exponent: Tensor
    top_n_sigma: Tensor
    typical_p: Tensor
    epsilon: Tensor
    eta: Tensor
    xtc_probability: Tensor
    xtc_threshold: Tensor
    vocab_size: Tensor
    bitmask: Tensor | None
    allowed_ids: Tensor | None
    banned_ids: Tensor | None
    stop_ids: Tensor | None
    min_tokens: Tensor
    bias_ids: Tensor | None
    bias: Tensor | None
    history: Tensor | None
    history_length: Tensor | None
    prompt_length: Tensor
    repetition_penalty: Tensor
    frequency_penalty: Tensor
    presence_penalty: Tensor
    dry_multiplier: Tensor
    dry_base: Tensor
    dry_allowed_length: Tensor
    dry_breakers: Tensor | None
    no_repeat_ngram: Tensor
    order: str = "vllm"

    @staticmethod
    def of(logits: Tensor, *values: Any, **named: Any) -> Arguments:
        """In the order of the contract or by name; what is not given has its default."""
        given = {
            "logits": logits,
            **dict(zip((spec.name for spec in _SPECS[1:]), values, strict=False)),
            **named,
        }
        made: dict[str, Any] = {}
        for spec in _SPECS:
            value = given.pop(spec.name, spec.default)
            if isinstance(spec, TensorSpec) and spec.default is not None:
                value = per_row(value, logits, spec.dtypes[0])
            made[spec.name] = value
        assert not given, f"unknown arguments {list(given)}"
        return Arguments(**made)

    def row(self, index: int) -> Arguments:
        """One row as a call of its own."""
        values: dict[str, Any] = {
            name: value[index : index + 1] if isinstance(value, Tensor) else value for name, value in vars(self).items()
        }
        return Arguments(**values)

    def lengths(self) -> Tensor:
        """How many tokens of each row's history count, [B]."""
        if self.history is None:
            return torch.zeros_like(self.prompt_length)
        if self.history_length is None:
            return torch.full_like(self.prompt_length, self.history.shape[1])
        return self.history_length

    def reads_history(self) -> Tensor:
        """The rows with a penalty that reads the history, [B]."""
        return (
            (self.repetition_penalty != 1)
            | (self.frequency_penalty != 0)
            | (self.presence_penalty != 0)
            | (self.dry_multiplier != 0)
            | (self.no_repeat_ngram != 0)
        )

    def valid(self) -> Tensor:
        """The rows whose parameters, ids and lengths all lie inside their ranges, [B]."""
        B, V = self.logits.shape
        valid = torch.ones(B, dtype=torch.bool, device=self.logits.device)
        for spec in _PARAMETERS:
            value = getattr(self, spec.name)
            # An int64 has no entry outside its range; float64 holds all other ends exactly.
            if value.dtype != torch.int64:
                valid &= (value.double() >= spec.low) & (value.double() <= spec.high)
        valid &= self.vocab_size <= V
        if self.bitmask is not None:
            covered = 32 * self.bitmask.shape[1]
            valid &= torch.where(self.vocab_size == 0, V, self.vocab_size) <= covered
        for name in _LISTS:
            valid &= self._ids_in_range(name)
        valid &= self._ids_in_range("dry_breakers") | (self.dry_multiplier == 0)
        if self.bias_ids is not None and self.bias is not None:
            valid &= ~(self.bias.isnan() & (self.bias_ids >= 0)).any(-1)
        length = self.lengths()
        valid &= (length >= 0) & (self.prompt_length <= length)
        if self.history is not None:
            H = self.history.shape[1]
            valid &= length <= H
            counted = torch.arange(H, device=length.device) < length[:, None]
            wild = counted & ((self.history < 0) | (self.history >= V))
            valid &= ~wild.any(-1) | ~self.reads_history()
        return valid

    def _ids_in_range(self, name: str) -> Tensor:
        ids: Tensor | None = getattr(self, name)
        if ids is None:
            return torch.ones_like(self.vocab_size, dtype=torch.bool)
        return ((ids >= -1) & (ids < self.logits.shape[1])).all(-1)
