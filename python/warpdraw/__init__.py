"""warpdraw draws the next token: exact, reproducible bit for bit, one read of the logits."""

from . import guards, guides
from .backends import Backend, BackendError, backends, launches, use
from .generation import (
    Completion,
    Completions,
    Engine,
    EngineFull,
    Event,
    GuardAction,
    Repetition,
    SamplingParams,
    Speculation,
    beam_search,
    best_of,
    contrastive_search,
    generate,
    stream,
)
from .history import TokenHistory
from .model import Checkpoint, CheckpointError, load
from .ops import filter_logits, filter_probs, kept_csr, log_softmax, sample, softmax, verify
from .sampler import Sampler
from .tracing import Trace, trace

__version__ = "0.1.0"

__all__ = [
    "Backend",
    "BackendError",
    "Checkpoint",
    "CheckpointError",
    "Completion",
    "Completions",
    "Engine",
    "EngineFull",
    "Event",
    "GuardAction",
    "Repetition",
    "Sampler",
    "SamplingParams",
    "Speculation",
    "TokenHistory",
    "Trace",
    "backends",
    "beam_search",
    "best_of",
    "contrastive_search",
    "filter_logits",
    "filter_probs",
    "generate",
    "guards",
    "guides",
    "kept_csr",
    "launches",
    "load",
    "log_softmax",
    "sample",
    "softmax",
    "stream",
    "trace",
    "use",
    "verify",
]
