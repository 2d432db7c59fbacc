"""How an op's kernels run: on the device of its tensors, mostly two launches a call; counted like a native kernel's."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from . import overlay
from .arguments import rows_of
from .interpreter import INTERPRETED, mended
from .rows import CHUNK, TILE, rooms_for, tiles_kernel

WARPS_OF_TILES, WARPS_OF_ROW = 4, 8
REGISTERS = 65536  # of a multiprocessor of NVIDIA


class Compilation(NamedTuple):
    """What ahead.py asks for: kernels that are compiled for a target and not run."""

    target: GPUTarget
    compiled: list[Any]


compilation: ContextVar[Compilation | None] = ContextVar("compilation", default=None)


class Kernel:
    """An op on this backend: called with what the op's signature bound, inputs and then outputs."""

    def __init__(self, run: Callable[..., None]):
        self.run = run
        self.__name__ = run.__name__
        self.__doc__ = run.__doc__
        self.launches = 0

    def __call__(self, *bound: Any) -> None:
        with _on(bound[0].device):
            self.run(*bound)
        self.launches += 1

    def prepare(self, *bound: Any) -> Callable[[], None]:
        return functools.partial(self, *bound)


@contextlib.contextmanager
def _on(device: torch.device) -> Iterator[None]:
    if compilation.get() is not None:
        yield
    elif INTERPRETED:
        with mended():
            yield
    else:
        with torch.get_device_module(device).device(device):
            yield


@functools.cache
def _target() -> GPUTarget:
    return driver.active.get_current_target()


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, warps: int = WARPS_OF_ROW, **constants: Any) -> None:
    # Every fused multiply-add is written out, so the compiler makes none.
    options = {**constants, "num_warps": warps, "enable_fp_fusion": False}
    ahead = compilation.get()
    if not INTERPRETED and (ahead.target if ahead else _target()).backend == "cuda":
        # All that a multiprocessor has: left to itself, ptxas may spill to save a few.
        options["maxnreg"] = min(REGISTERS // (32 * warps), 255)
    if ahead is None:
        kernel[grid](*arguments, **options)
    else:
        ahead.compiled.append(kernel.warmup(*arguments, grid=grid, **options))


def run_rows(kernel: Any, logits: Tensor, inputs: Any, *arguments: Any, raw: bool = False, **constants: Any) -> None:
    """Find the maxima of the tiles, programs sharing a row; then run a kernel over rows, a program for each."""
    B, V = logits.shape
    if B == 0:
        return
    rooms = rooms_for(B, V, overlay.words_for(inputs, V), logits.device)
    chunks = triton.cdiv(triton.cdiv(V, TILE.value), CHUNK.value)
    launch(tiles_kernel, (B, chunks), rows_of(logits), inputs, rooms, RAW=raw, warps=WARPS_OF_TILES)
    launch(kernel, (B,), rows_of(logits), inputs, *arguments, rooms, **constants)
