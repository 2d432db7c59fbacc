"""Triton's interpreter, which runs kernels on the CPU: whether it is on, and mends that make its bits a GPU's."""

from __future__ import annotations

import contextlib
import functools
import math
import threading
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import triton
import triton.language as tl

INTERPRETED = bool(triton.knobs.runtime.interpret)  # what the environment says while kernels are decorated

_lock = threading.Lock()
_users = 0
_own: dict[tuple[Any, str], Any] = {}  # what Triton has where ours is put


@contextlib.contextmanager
def mended() -> Iterator[None]:
    """While it lives, `tl.fma` rounds once in the interpreter, as on a GPU; before Triton 3.9 it rounds twice.

    It also lets older versions work with NumPy 2.4, keeps NumPy from warning of what floats may do, and is quick where
    one function calls another. Whoever is inside may enter again, and so may other threads.
    """
    global _users
    with _lock:
        if _users == 0:
            for (owner, name), ours in _replacements().items():
                _own[owner, name] = getattr(owner, name)
                setattr(owner, name, ours)
        _users += 1
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                for (owner, name), theirs in _own.items():
                    setattr(owner, name, theirs)


def _replacements() -> dict[tuple[Any, str], Any]:
    from triton.runtime import interpreter

    def create_fma(builder: Any, x: Any, y: Any, z: Any) -> Any:
        return interpreter.TensorHandle(fma(x.data, y.data, z.data), z.dtype.scalar)

    def all_ones(builder: Any, dtype: Any) -> Any:  # NumPy 2 takes no -1 for an unsigned number
        return interpreter.TensorHandle(np.full(1, -1).astype(interpreter._get_np_dtype(dtype)), dtype.scalar)

    def patch_lang(function: Any) -> Any:
        # Unless it is done already: looking all operations up again whenever one function calls another takes half of
        # the time.
        if not any(tl.core.is_builtin(language.load) for language in _languages(function)):
            return None
        scope = _own[interpreter, "_patch_lang"](function)
        tl.tensor.__index__ = lambda self: int(self.handle.data.item())  # NumPy 2.4 takes no array of one for a number
        return scope

    return {
        (interpreter.InterpreterBuilder, "create_fma"): create_fma,
        (interpreter.InterpreterBuilder, "get_all_ones_value"): all_ones,
        (interpreter, "_patch_lang"): patch_lang,
    }


@functools.cache
def _languages(function: Any) -> list[Any]:
    """The modules by whose names a function may call operations."""
    names = function.__globals__.values()
    return [module for module in (tl, tl.core) if any(value is module for value in names)]


def fma(x: Any, y: Any, z: Any) -> Any:
    """x y + z, rounded once to the type of z."""
    if z.dtype == np.float64:
        return _fma_of_doubles(x, y, z)
    # The product is exact in float64. Its sum with z is rounded to odd, whose last bit says that something was cut off,
    # so that the second rounding, to fewer bits, gives what a single one would.
    product, addend = np.multiply(x, y, dtype=np.float64), np.float64(z)
    total = np.asarray(product + addend)
    back = total - product
    error = (product - (total - back)) + (addend - back)
    bits = total.view(np.int64)
    inexact = (error != 0) & np.isfinite(total) & (bits & 1 == 0)
    toward = np.where((error > 0) == (total > 0), 1, -1)
    return (bits + np.where(inexact, toward, 0)).view(np.float64).astype(z.dtype)


def _fma_of_double(x: float, y: float, z: float) -> float:
    if not (math.isfinite(x) and math.isfinite(y) and math.isfinite(z)):
        return x * y + z
    exact = Fraction(x) * Fraction(y) + Fraction(z)
    if exact == 0:
        return x * y + z  # which has the sign of the zero
    try:
        return float(exact)
    except OverflowError:
        return math.inf if exact > 0 else -math.inf


_fma_of_doubles = np.vectorize(_fma_of_double, otypes=[np.float64])
