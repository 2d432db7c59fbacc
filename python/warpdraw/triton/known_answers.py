"""numerics: the shared arithmetic one value at a time, for known-answer tests."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from . import arithmetic as n
from .launch import Kernel, launch

TOGETHER = tl.constexpr(1024)


@triton.jit
def numerics_kernel(exponents, bits, weights, exponentials, size):
    i = tl.program_id(0) * TOGETHER + tl.arange(0, TOGETHER)
    t = tl.load(exponents + i, mask=i < size, other=0.0)
    r = tl.load(bits + i, mask=i < size, other=0).to(tl.uint32, bitcast=True)
    tl.store(weights + i, n.weight(t), mask=i < size)
    tl.store(exponentials + i, n.exponential(r), mask=i < size)


@Kernel
def numerics(exponents: Tensor, bits: Tensor, weights: Tensor, exponentials: Tensor) -> None:
    grid = (triton.cdiv(len(exponents), TOGETHER.value),)
    launch(numerics_kernel, grid, exponents, bits, weights, exponentials, len(exponents))
