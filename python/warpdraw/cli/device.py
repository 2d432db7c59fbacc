"""The value of --device: where tensors live."""

from __future__ import annotations

import torch

from ..backends import BackendError
from ..environment import gpu

KINDS = ("cpu", "cuda")


def device(text: str) -> torch.device:
    """The device of that name; raises ValueError for another name, BackendError for a GPU that is not here."""
    try:
        found = torch.device(text)
    except RuntimeError:
        found = None
    if found is None or found.type not in KINDS:
        raise ValueError(f"device: expected cpu, cuda or cuda:N, got {text!r}")
    if found.type == "cuda":
        if not torch.cuda.is_available():
            raise BackendError(f"device {text}: {gpu()['reason']}")
        if (found.index or 0) >= torch.cuda.device_count():
            raise BackendError(f"device {text}: there are {torch.cuda.device_count()} CUDA devices")
    return found
