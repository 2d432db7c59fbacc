"""The Triton kernels: the portable path, for GPUs without our CUDA kernels. One file per op."""

from .filter import filter_logits, filter_probs
from .known_answers import numerics
from .sample import sample
from .softmax import log_softmax, softmax
from .verify import verify

__all__ = ["filter_logits", "filter_probs", "log_softmax", "numerics", "sample", "softmax", "verify"]
