"""The public ops: one file each, with its contract, its documentation and its eager reference in float64."""

from .filter_logits import filter_logits
from .filter_probs import filter_probs
from .kept_csr import kept_csr
from .log_softmax import log_softmax
from .sample import sample
from .softmax import softmax
from .verify import verify

__all__ = [
    "filter_logits",
    "filter_probs",
    "kept_csr",
    "log_softmax",
    "sample",
    "softmax",
    "verify",
]
