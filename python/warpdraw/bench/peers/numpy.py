"""NumPy: the candidates by argpartition, a sort of those only, and one uniform number a row."""

from __future__ import annotations

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from .job import Job, Peer

_generator = numpy.random.default_rng(7)


def _weights(row: NDArray[numpy.float32], job: Job) -> tuple[NDArray[numpy.float32], NDArray[numpy.intp]]:
    """Weights of the kept tokens and their ids, best first."""
    ids = numpy.argpartition(row, -job.top_k)[-job.top_k :] if 0 < job.top_k < len(row) else numpy.arange(len(row))
    ids = ids[numpy.argsort(-row[ids], kind="stable")]
    values = row[ids]
    weights = numpy.exp((values - values[0]) / job.temperature)
    kept = len(weights)
    if job.top_p < 1:
        mass = numpy.cumsum(weights)
        kept = int(numpy.searchsorted(mass, job.top_p * mass[-1])) + 1
    if job.min_p:
        kept = min(kept, int(numpy.count_nonzero(weights >= job.min_p)))
    return weights[:kept], ids[:kept]


def probs(logits: Tensor, job: Job) -> Tensor:
    """f32 [B, V]."""
    made = numpy.zeros(logits.shape, numpy.float32)
    for out, row in zip(made, logits.float().numpy(), strict=True):
        weights, ids = _weights(row, job)
        out[ids] = weights
    return torch.from_numpy(made)


def draw(logits: Tensor, job: Job) -> Tensor:
    """Tokens i64 [B]."""
    tokens = []
    for row in logits.float().numpy():
        weights, ids = _weights(row, job)
        mass = numpy.cumsum(weights)
        tokens.append(ids[min(int(numpy.searchsorted(mass, _generator.random() * mass[-1], "right")), len(ids) - 1)])
    return torch.from_numpy(numpy.array(tokens))


def load() -> Peer:
    return Peer("argpartition, then all on the k values, row by row", probs, draw)
