"""Who else does this job. A peer is a module with `load`, and its line in LOADERS."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from .eager import ARGMAX_PEER, EAGER_PEER, IDIOM_PEER, eager, eager_weights, idiom, idiom_probs, read_amax, read_dot
from .job import Absent, Job, Peer

__all__ = [
    "Absent",
    "Job",
    "Peer",
    "eager",
    "eager_weights",
    "idiom",
    "idiom_probs",
    "load_peers",
    "read_amax",
    "read_dot",
]

IDIOM, EAGER, ARGMAX = "mask and multinomial", "best eager", "torch.argmax"
TRANSFORMERS, COMPILED, LLAMA, NUMPY = "transformers warpers", "torch.compile", "llama.cpp chain", "numpy argpartition"


def _module(name: str) -> Callable[[], Peer]:
    return lambda: import_module(f".{name}", __name__).load()


LOADERS: dict[str, Callable[[], Peer]] = {
    IDIOM: lambda: IDIOM_PEER,
    EAGER: lambda: EAGER_PEER,
    ARGMAX: lambda: ARGMAX_PEER,
    TRANSFORMERS: _module("transformers"),
    COMPILED: _module("compiled"),
    LLAMA: _module("llama_cpp"),
    NUMPY: _module("numpy"),
}

# Samplers that cannot be given logits.
NOT_COMPARABLE = {
    "onnxruntime-genai": "samples only inside a loaded model",
    "ctranslate2": "samples only inside a loaded model",
}


def load_peers(skip: dict[str, str]) -> tuple[dict[str, Peer], dict[str, str]]:
    """The peers that are here, and the reason for each that is not; `skip` names those not wanted, with the reason."""
    found, absent = {}, {**skip, **NOT_COMPARABLE}
    for name, load in LOADERS.items():
        if name not in skip:
            try:
                found[name] = load()
            except Absent as error:
                absent[name] = str(error)
    return found, absent
