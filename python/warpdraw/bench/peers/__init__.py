"""Who else does this job. A peer is a module with `load`, and its line in LOADERS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
COMPILED_EAGER = "torch.compile of best eager"
FLASHINFER, FLASHINFER_FLOAT, SONIC = "FlashInfer", "FlashInfer on float32", "sonic-sampler"


def _module(name: str, load: str = "load", **options: str) -> Callable[[], Peer]:
    return lambda: getattr(import_module(f".{name}", __name__), load)(**options)


LOADERS: dict[str, Callable[[], Peer]] = {
    IDIOM: lambda: IDIOM_PEER,
    EAGER: lambda: EAGER_PEER,
    ARGMAX: lambda: ARGMAX_PEER,
    TRANSFORMERS: _module("transformers"),
    COMPILED: _module("compiled"),
    LLAMA: _module("llama_cpp"),
    NUMPY: _module("numpy"),
}

GPU_LOADERS: dict[str, Callable[[], Peer]] = {
    **{name: LOADERS[name] for name in (IDIOM, EAGER, ARGMAX, TRANSFORMERS)},
    COMPILED: _module("compiled", device="cuda"),
    COMPILED_EAGER: _module("compiled", "load_best", device="cuda"),
    FLASHINFER: _module("flashinfer"),
    FLASHINFER_FLOAT: _module("flashinfer", "load_float"),
    SONIC: _module("sonic_sampler"),
}

# Samplers that cannot be given logits.
NOT_COMPARABLE = {
    "onnxruntime-genai": "samples only inside a loaded model",
    "ctranslate2": "samples only inside a loaded model",
}


def load_peers(
    skip: dict[str, str], loaders: Mapping[str, Callable[[], Peer]] = LOADERS
) -> tuple[dict[str, Peer], dict[str, str]]:
    """The peers that are here, and the reason for each that is not; `skip` names those not wanted, with the reason."""
    found, absent = {}, {**skip, **NOT_COMPARABLE}
    for name, load in loaders.items():
        if name not in skip:
            try:
                found[name] = load()
            except Absent as error:
                absent[name] = str(error)
    return found, absent
