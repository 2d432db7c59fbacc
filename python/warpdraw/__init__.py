"""warpdraw draws the next token: exact, reproducible bit for bit, one read of the logits."""

from .backends import Backend, backends, launches, use
from .ops import filter_logits, filter_probs, log_softmax, sample, softmax

__version__ = "0.1.0"

__all__ = [
    "Backend",
    "backends",
    "filter_logits",
    "filter_probs",
    "launches",
    "log_softmax",
    "sample",
    "softmax",
    "use",
]
