"""Triton: kernels compile ahead of time for GPUs that are not here, and parity in the interpreter rejects planted bugs.

`python tests/test_triton.py [WORD...]` prints what rejects which bug.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import math
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import checks
import cuda_checks
import numpy as np
import pytest
import torch
from cases import INF, NAN, inputs_on
from certificates import same_bits
from conftest import BACKENDS, runnable
from test_every_backend import oracle, oracle_of, oracle_of_breakers
from test_parity import DTYPES, EDITS

import warpdraw
from warpdraw.backends import _BACKENDS, Backend
from warpdraw.op import OPS

REPOSITORY = Path(__file__).parents[1]
REPORT = REPOSITORY / ".ci" / "triton_report"
interpreted = pytest.mark.skipif(BACKENDS["triton"].device != "cpu", reason="Triton's interpreter is off")
pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")

# --------------------------------------------------------------------------------------------------------------------
# Compilation.

COMPILED = ("softmax", "filter_logits, k and p", "sample, k, p, min-p of each row")


@pytest.mark.skipif(not REPORT.exists(), reason="no report beside the tests")
@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
def test_kernels_compile_without_a_gpu(target):
    """A few calls; .ci/run compiles many, for more GPUs, and looks at what they take."""
    chosen = [argument for name in COMPILED for argument in ("--call", name)]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, REPORT, target, "--may-spill", *chosen],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if f" {target} " in line]
    for name, kernel in zip(COMPILED, ("softmax_kernel", "filter_kernel", "sample_kernel"), strict=True):
        found = [line.removeprefix(name).split()[0] for line in lines if line.startswith(f"{name} ")]
        assert found == ["tiles_kernel", kernel], done.stdout


# --------------------------------------------------------------------------------------------------------------------
# The interpreter's fused multiply-add.


def rounded(exact: Fraction, dtype) -> float:
    """The number of the type that is nearest, the even one of two."""
    if exact == 0:
        return 0.0
    digits, lowest = (24, -149) if dtype == np.float32 else (53, -1074)
    exponent = math.frexp(abs(exact.numerator) / abs(exact.denominator))[1]
    unit = Fraction(2) ** max(exponent - digits, lowest)
    return float(round(exact / unit) * unit)


@interpreted
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fma_rounds_once(dtype):
    from warpdraw.triton.interpreter import fma

    g = np.random.default_rng(1)
    x, y, z = (g.standard_normal(3000).astype(dtype) for _ in range(3))
    x[1000:2000] *= dtype(1e-20)
    y[1000:2000] *= dtype(1e-19)
    z[1000:2000] *= dtype(1e-39)  # subnormal in float32
    z[2000:] = -(x[2000:] * y[2000:]) * (1 + g.integers(-2, 3, 1000) * np.finfo(dtype).eps).astype(dtype)
    exact = [Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c)) for a, b, c in zip(x, y, z, strict=True)]
    want = np.array([rounded(value, dtype) for value in exact], dtype)
    assert np.array_equal(fma(x, y, z), want)
    assert not np.array_equal(x * y + z, want)


@interpreted
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fma_of_what_is_not_finite(dtype):
    from warpdraw.triton.interpreter import fma

    largest = np.finfo(dtype).max
    rows = [
        (INF, 1, 1, INF), (INF, 0, 1, NAN), (INF, 1, -INF, NAN), (1, 1, -INF, -INF), (NAN, 1, 1, NAN), (1, 1, NAN, NAN),
        (largest, 2, 0, INF), (largest, -2, 1, -INF), (largest, 2, -largest, largest), (0, 1, 0, 0), (1, 1, -1, 0),
    ]  # fmt: skip
    x, y, z, want = (np.array(column, dtype) for column in zip(*rows, strict=True))
    assert np.array_equal(fma(x, y, z), want, equal_nan=True)


def arithmetic_is_right():
    exponents = -torch.arange(0, 0x43000000, 250_007, dtype=torch.int32).view(torch.float32)[:4096]
    words = torch.randint(-(2**31), 2**31, exponents.shape, generator=torch.Generator().manual_seed(1)).int()
    found = []
    for name in ("triton", "scalar"):
        found.append([torch.zeros_like(exponents) for _ in range(2)])
        BACKENDS[name].module.numerics(exponents, words, *found[-1])
    return all(same_bits(got, want).all() for got, want in zip(*found, strict=True))


@interpreted
def test_an_fma_that_rounds_twice_would_show(monkeypatch):
    from warpdraw.triton import interpreter

    assert arithmetic_is_right()
    monkeypatch.setattr(interpreter, "fma", lambda x, y, z: x * y + z)
    assert not arithmetic_is_right()


@interpreted
def test_the_interpreter_is_left_as_it_was():
    from triton.runtime import interpreter

    from warpdraw.triton.interpreter import mended

    def what_is_replaced():
        builder = interpreter.InterpreterBuilder
        return builder.create_fma, builder.get_all_ones_value, interpreter._patch_lang

    before = what_is_replaced()
    with mended():
        inside = what_is_replaced()
        assert all(ours is not theirs for ours, theirs in zip(inside, before, strict=True))
        with mended():
            assert what_is_replaced() == inside
        with pytest.raises(KeyError), mended():
            raise KeyError
        assert what_is_replaced() == inside
    assert what_is_replaced() == before


# --------------------------------------------------------------------------------------------------------------------
# Planted bugs.


@dataclass(frozen=True)
class Mutant:
    """`seen_by` names a case or a parameter of EDITS for a bug that the usual cases do not see."""

    name: str
    file: str
    old: str
    new: str
    seen_by: str = ""


MUTANTS = (
    Mutant("weights below 2^-24 vanish", "arithmetic.py", "counts = t >= -126.0", "counts = t >= -24.0"),
    Mutant("noise of neighbours repeats", "arithmetic.py", "word = index % 4", "word = index % 2"),
    Mutant("the lower id loses a tie", "rows.py", "((x == cut_x) & (id <= cut_id))", "((x == cut_x) & (id >= cut_id))"),
    Mutant("tiles at the boundary are not read", "rows.py", "tile, m >= least)", "tile, m > least)"),
    Mutant("+inf is a logit like others", "rows.py", "marks = x_max > n.LARGEST", "marks = x_max < -n.LARGEST"),
    Mutant("bound of the race is too tight", "race.py", "key * 64.0 >= least", "key * 1.0 >= least", "filters"),
    Mutant("a target is reached a token late", "select.py", ">= tl.maximum(target, 1)", "> tl.maximum(target, 1)"),
    Mutant("lists that overflow count as complete", "select.py", "  if count <= LIST:\n", "  if count >= 0:\n"),
    Mutant("a token counts its own entry", "overlay.py", "below = ~(tl.full([], -1,", "below = ~(tl.full([], -2,"),
    Mutant("biases of one token add up once", "build.py", "    while waits:\n", "    if waits:\n", "edits"),
    Mutant("a breaker stops nothing", "build.py", "limit -= tl.max(last, 0)", "limit -= 0", "breakers"),
    Mutant("the end of a report is not filled", "report.py", "mask = (place >= begin)", "mask = (place > begin)"),
)

USUAL = (*((V, case) for V in (200, 700) for case in range(4)), *((5003, case) for case in range(4)))
PATIENCE = 120  # seconds that the cases may take


def planted_copy(folder: Path, mutant: Mutant | None) -> Path:
    """The Triton sources with a bug, or as they are."""
    copy = folder / "planted"
    shutil.copytree(Path(warpdraw.__file__).parent / "triton", copy, ignore=shutil.ignore_patterns("__pycache__"))
    if mutant:
        source = (copy / mutant.file).read_text()
        assert mutant.old in source, f"{mutant.file} has no {mutant.old!r}"
        (copy / mutant.file).write_text(source.replace(mutant.old, mutant.new))
    return copy


def cases_for(mutant: Mutant | None):
    """Each an op, its inputs and what the oracle makes of them."""
    name = mutant.seen_by if mutant else ""
    if name in EDITS:
        for V, case in itertools.product((65, 700), range(8)):
            yield OPS["sample"], *oracle_of((name, *EDITS[name]), V, case)
    elif name == "breakers":
        yield OPS["sample"], *oracle_of_breakers()
    elif name:
        yield from cuda_checks.oracle(name)
    else:
        for V, case in USUAL:
            yield OPS["sample"], *oracle("sample", V, DTYPES[(case + V) % 3], case)


def judge(copy: Path, mutant: Mutant | None, pipe) -> None:
    """Sends the first complaint about a copy of the package, nothing if all is right."""
    place = (copy / "__init__.py", [str(copy)])
    spec = importlib.util.spec_from_file_location("warpdraw.planted", place[0], submodule_search_locations=place[1])
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    _BACKENDS["planted"] = Backend("planted", True, "a planted bug", module=module)
    complaint = ""
    for number, (op, inputs, want) in enumerate(cases_for(mutant)):
        with warpdraw.use("planted"):
            try:
                checks.assert_same(checks.run(op, inputs_on("cpu", inputs)), want, f"case {number}")
            except Exception as error:
                complaint = f"{type(error).__name__} {error}"
        if complaint or (mutant is None and number == 3):
            break
    pipe.send(complaint)
    pipe.close()


@functools.cache
def server():
    """Processes that have read all modules once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "warpdraw", "test_triton"])
    return context


def first_complaint(mutant: Mutant | None) -> str:
    with tempfile.TemporaryDirectory() as folder:
        receive, send = server().Pipe(duplex=False)
        process = server().Process(target=judge, args=(planted_copy(Path(folder), mutant), mutant, send))
        process.start()
        send.close()
        try:
            return receive.recv() if receive.poll(PATIENCE) else "hangs"
        except EOFError:
            process.join()
            return f"crashes ({process.exitcode})"
        finally:
            process.kill()
            process.join()


@interpreted
def test_a_copy_without_a_bug_is_right():
    runnable("triton")
    assert first_complaint(None) == ""


@interpreted
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_bug_is_rejected(mutant):
    runnable("triton")
    assert first_complaint(mutant), "no case rejects it"


def main() -> None:
    for mutant in MUTANTS:
        if not sys.argv[1:] or any(word in mutant.name for word in sys.argv[1:]):
            start = time.perf_counter()
            found = first_complaint(mutant)
            print(f"| {mutant.name} | {found[:120] or 'NONE'} | {time.perf_counter() - start:.1f} s |", flush=True)


if __name__ == "__main__":
    main()
