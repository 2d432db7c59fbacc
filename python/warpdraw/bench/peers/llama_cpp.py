"""llama.cpp's sampler chain, through the low-level bindings of llama-cpp-python."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy
import torch
from torch import Tensor

from ..quietly import quietly
from .job import Absent, Job, Peer

SEED = 7
NEEDED = ("llama_sampler_chain_init", "llama_sampler_apply", "llama_token_data_array", "llama_sampler_init_min_p")


def _library() -> Any:
    try:
        with quietly():
            library: Any = import_module("llama_cpp.llama_cpp")
    except (ImportError, OSError, RuntimeError) as error:
        raise Absent(f"llama-cpp-python is not installed ({error})") from None
    missing = [name for name in NEEDED if not hasattr(library, name)]
    if missing:
        raise Absent(f"this llama-cpp-python has no {', '.join(missing)}")
    return library


class Candidates:
    """The array of (id, logit, p) that a chain works on, which every call makes anew from the logits."""

    def __init__(self, vocab: int):
        self.library = _library()
        names = [name for name, *_ in self.library.llama_token_data._fields_]
        if names != ["id", "logit", "p"]:
            raise Absent(f"llama-cpp-python: expected token data of (id, logit, p), got {names}")
        self.ids = numpy.arange(vocab, dtype=numpy.int32)
        self.data = numpy.zeros(vocab, [("id", numpy.int32), ("logit", numpy.float32), ("p", numpy.float32)])
        self.pointer = ctypes.cast(self.data.ctypes.data, ctypes.POINTER(self.library.llama_token_data))
        self.array = self.library.llama_token_data_array()

    def build(self, row: Any) -> None:
        """Write ids and logits (12 bytes a token; the chain itself writes every p that it reads)."""
        self.data["id"] = self.ids
        self.data["logit"] = row
        array = self.array
        array.data, array.size, array.selected, array.sorted = self.pointer, len(self.data), -1, False

    def apply(self, chain: Any) -> int:
        """The token that the chain selects."""
        self.library.llama_sampler_apply(chain, ctypes.byref(self.array))
        return int(self.array.data[self.array.selected].id)


@lru_cache
def _candidates(vocab: int) -> Candidates:
    return Candidates(vocab)


@lru_cache
def _chain(job: Job) -> Any:
    library = _library()
    parameters = library.llama_sampler_chain_default_params()
    parameters.no_perf = True
    chain = library.llama_sampler_chain_init(parameters)
    links = []
    if job.top_k:
        links.append(library.llama_sampler_init_top_k(job.top_k))
    if job.top_p < 1:
        links.append(library.llama_sampler_init_top_p(job.top_p, 1))
    if job.min_p:
        links.append(library.llama_sampler_init_min_p(job.min_p, 1))
    if job.temperature != 1:
        links.append(library.llama_sampler_init_temp(job.temperature))
    for link in [*links, library.llama_sampler_init_dist(SEED)]:
        library.llama_sampler_chain_add(chain, link)
    return chain


def _rows(logits: Tensor) -> Any:
    return logits.float().numpy()


def build(logits: Tensor) -> Candidates:
    """The array of candidates of one row, and nothing else: the part of `draw` that is not the chain."""
    candidates = _candidates(logits.shape[-1])
    for row in _rows(logits):
        candidates.build(row)
    return candidates


def draw(logits: Tensor, job: Job) -> Tensor:
    """Tokens i64 [B]."""
    candidates, chain, tokens = _candidates(logits.shape[-1]), _chain(job), []
    for row in _rows(logits):
        candidates.build(row)
        tokens.append(candidates.apply(chain))
    return torch.tensor(tokens)


def probs(logits: Tensor, job: Job) -> Tensor:
    """The p that the last link of the chain drew by, f32 [B, V]."""
    candidates, chain = _candidates(logits.shape[-1]), _chain(job)
    made = torch.zeros(logits.shape)
    for out, row in zip(made, _rows(logits), strict=True):
        candidates.build(row)
        candidates.apply(chain)
        # The chain may have moved to an array of its own.
        size, address = candidates.array.size, ctypes.addressof(candidates.array.data.contents)
        buffer = (ctypes.c_char * (size * candidates.data.itemsize)).from_address(address)
        kept = numpy.frombuffer(buffer, candidates.data.dtype)
        out[torch.from_numpy(kept["id"].astype(numpy.int64))] = torch.from_numpy(kept["p"].copy())
    return made


def load() -> Peer:
    _library()
    return Peer("the array of candidates made from the logits (NumPy), then the chain", probs, draw)
