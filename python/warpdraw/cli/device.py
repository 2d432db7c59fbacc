"""The values of --device and --dtype: where tensors live, and in what their numbers are kept."""

from __future__ import annotations

from typing import Literal

import torch

from ..backends import BackendError
from ..environment import gpu

KINDS = ("cpu", "cuda")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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


def dtype(text: str) -> torch.dtype | Literal["auto"]:
    """What `load` takes for that name; raises ValueError for another name."""
    if text == "auto":
        return "auto"
    if text not in DTYPES:
        raise ValueError(f"dtype: expected one of {', '.join(DTYPES)}, auto, got {text!r}")
    return DTYPES[text]
