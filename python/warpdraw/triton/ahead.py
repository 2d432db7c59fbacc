"""Compiles the kernels of a call for a GPU that need not be there, from the same host code that launches them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from . import launch


class _Driver:
    """What a launch asks of a driver before it compiles."""

    def __init__(self, target: GPUTarget):
        self.target = target

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> str:
        return f"{self.target.backend} {self.target.arch}"  # compiled kernels are kept by device

    def get_current_stream(self, device: str) -> int:
        return 0


@contextlib.contextmanager
def compiling_for(target: GPUTarget) -> Iterator[list[Any]]:
    """While it lives, calls of this backend's kernels compile and do not run; what they compiled, in the list given.

    The tensors of a call may be on any device; nothing is written to them.
    """
    compiled: list[Any] = []
    active = driver._active  # reset_active() would look for a GPU
    driver.set_active(_Driver(target))
    asked = launch.compilation.set(launch.Compilation(target, compiled))
    try:
        yield compiled
    finally:
        launch.compilation.reset(asked)
        driver._active = active
