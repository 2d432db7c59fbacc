"""Repetition, frequency and presence penalties in eager PyTorch: counts over the vocabulary, and only what occurred."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Penalties:
    """Repetition over the whole history, frequency and presence over what follows the prompt."""

    repetition: float
    frequency: float
    presence: float


def counts_over_vocabulary(logits: Tensor, history: Tensor, prompt: int, penalties: Penalties) -> Tensor:
    """Count each id of i64 [B, H] into [B, V], then work on all logits, as vLLM does: penalised logits [B, V]."""
    in_prompt, in_output = (_counts(ids, logits.shape[-1]) for ids in (history[:, :prompt], history[:, prompt:]))
    seen = (in_prompt > 0) | (in_output > 0)
    factor = torch.where(seen, penalties.repetition, 1.0)
    penalised = torch.where(logits > 0, logits / factor, logits * factor)
    penalised -= penalties.frequency * in_output
    penalised -= penalties.presence * (in_output > 0)
    return penalised


def _counts(ids: Tensor, vocab: int) -> Tensor:
    counts = torch.zeros(ids.shape[0], vocab, dtype=torch.int64, device=ids.device)
    return counts.scatter_add_(1, ids, torch.ones_like(ids))


def at_the_history(logits: Tensor, history: Tensor, prompt: int, penalties: Penalties) -> Tensor:
    """Copy the logits, then gather, change and scatter at the ids of i64 [B, H] alone: penalised logits [B, V]."""
    picked = logits.gather(1, history)
    picked = torch.where(picked > 0, picked / penalties.repetition, picked * penalties.repetition)
    output = history[:, prompt:].sort(-1).values
    first = torch.ones_like(output, dtype=torch.bool)
    first[:, 1:] = output[:, 1:] != output[:, :-1]
    minus = penalties.frequency + penalties.presence * first
    return logits.scatter(1, history, picked).scatter_add_(1, output, -minus)
