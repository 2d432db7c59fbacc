"""Who else does this job. A peer is a module with `load`, and its line in LOADERS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, TypeVar

from .eager import ARGMAX_PEER, EAGER_PEER, IDIOM_PEER, eager, eager_weights, idiom, idiom_probs, read_amax, read_dot
from .job import Absent, Job, Peer
from .speculation import BEST_SPECULATOR, USUAL_SPECULATOR, Speculator

__all__ = [
    "Absent",
    "Job",
    "Peer",
    "Speculator",
    "available",
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


USUAL = "usual eager"
TRANSFORMERS_SPECULATION = "transformers' _speculative_sampling"
FLASHINFER_CHAIN = "FlashInfer renorm and chain"


def _module(name: str, load: str = "load", **options: str) -> Callable[[], Any]:
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

# Those that verify drafts by rejection.
SPECULATORS: dict[str, Callable[[], Speculator]] = {
    USUAL: lambda: USUAL_SPECULATOR,
    EAGER: lambda: BEST_SPECULATOR,
    TRANSFORMERS_SPECULATION: _module("transformers", "load_speculation"),
    COMPILED_EAGER: _module("compiled", "load_speculation"),
}

GPU_SPECULATORS: dict[str, Callable[[], Speculator]] = {
    **{name: SPECULATORS[name] for name in (USUAL, EAGER)},
    FLASHINFER_CHAIN: _module("flashinfer", "load_speculation"),
}

# Samplers that cannot be given logits.
NOT_COMPARABLE = {
    "onnxruntime-genai": "samples only inside a loaded model",
    "ctranslate2": "samples only inside a loaded model",
}


Loaded = TypeVar("Loaded")


def load_peers(
    skip: dict[str, str], loaders: Mapping[str, Callable[[], Peer]] = LOADERS
) -> tuple[dict[str, Peer], dict[str, str]]:
    """The peers that are here, and the reason for each that is not; `skip` names those not wanted, with the reason."""
    found, absent = available(loaders, skip)
    return found, {**skip, **NOT_COMPARABLE, **absent}


def available(
    loaders: Mapping[str, Callable[[], Loaded]], skip: Mapping[str, str]
) -> tuple[dict[str, Loaded], dict[str, str]]:
    """What is here of those that `skip` does not name, and the reasons of what is not."""
    found, absent = {}, dict(skip)
    for name, load in loaders.items():
        if name not in skip:
            try:
                found[name] = load()
            except Absent as error:
                absent[name] = str(error)
    return found, absent
