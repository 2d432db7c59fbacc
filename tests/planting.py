"""Plants a bug into a copy of the C++ sources, builds it behind a small C interface, and lets the checks judge it."""

from __future__ import annotations

import ctypes
import functools
import multiprocessing
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

import checks
import torch
from conftest import BACKENDS
from mutants import MUTANTS, Mutant

import warpdraw
from warpdraw.backends import _BACKENDS, Backend
from warpdraw.op import OPS

CSRC = Path(__file__).parent.parent / "csrc"
COMPILER = shutil.which(os.environ.get("CXX", "c++"))
FLAGS = ["-std=gnu++20", "-O1", "-fPIC", "-fopenmp", "-ffp-contract=off", "-fvisibility=hidden", "-w"]
VECTOR_FLAGS = {
    "avx512": ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mavx2", "-mfma", "-mf16c"],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "portable": [],
}
VECTOR = next(backend.name for backend in warpdraw.backends() if backend.name in VECTOR_FLAGS and backend.available)
ISAS = ("scalar", VECTOR)
PATIENCE = 120  # seconds that the checks of one mutant may take before it counts as hanging

# --------------------------------------------------------------------------------------------------------------------
# A build that needs neither Python's headers nor pybind11.

NATIVE_OPS = (*OPS, "numerics")
INTERFACE = """
#include <utility>
#include "ops.h"
using namespace warpdraw;
struct Argument {
  void* data;
  const std::int64_t *shape, *stride;
  std::int64_t integer;
  double number;
  std::int32_t present, dtype, ndim;
};
template <typename T> struct Read;
template <> struct Read<Tensor> {
  static Tensor from(const Argument& a) {
    Tensor t;
    t.present = a.present, t.data = a.data, t.dtype = DType(a.dtype), t.ndim = a.ndim, t.shape = a.shape;
    t.stride = a.stride;
    return t;
  }
};
template <typename T> struct Read<PerRow<T>> {
  static PerRow<T> from(const Argument& a) {
    PerRow<T> value;
    if (a.present) value.tensor = View<const T, 1>(Read<Tensor>::from(a));
    value.value = std::is_integral_v<T> ? T(a.integer) : T(a.number);
    return value;
  }
};
template <> struct Read<Order> {
  static Order from(const Argument& a) { return Order(a.integer); }
};
template <typename... A, std::size_t... I>
void call(void (*op)(Queue, A...), const Argument* arguments, std::index_sequence<I...>) {
  op(nullptr, Read<A>::from(arguments[I])...);
}
template <typename... A> void call(void (*op)(Queue, A...), const Argument* arguments) {
  call(op, arguments, std::index_sequence_for<A...>{});
}
#define OP(name) \\
  extern "C" __attribute__((visibility("default"))) void run_##name(const Argument* a) { call(&WARPDRAW_ISA::name, a); }
"""


def command(*words: object) -> str:
    """Runs the compiler; what it prints, or an AssertionError with its complaint."""
    assert COMPILER
    done = subprocess.run([COMPILER, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words[-1]}: {done.stderr[:1500]}"
    return done.stdout


class Workshop:
    """Objects of the unchanged sources, and libraries made from them and from changed ones."""

    def __init__(self, folder: Path):
        self.folder, self.root = folder, folder / "csrc"
        shutil.copytree(CSRC, self.root)
        for isa in ISAS:
            (self.root / self.folder_of(isa) / "interface.cpp").write_text(
                INTERFACE + "".join(f"OP({name})\n" for name in NATIVE_OPS)
            )
        self.includes = {source: self.includes_of(source) for isa in ISAS for source in self.sources_of(isa)}
        self.unchanged = {
            isa: {source: self.compiled(self.root, source, isa) for source in self.sources_of(isa)} for isa in ISAS
        }

    @staticmethod
    def folder_of(isa: str) -> str:
        return "scalar" if isa == "scalar" else "cpu"

    def sources_of(self, isa: str) -> list[Path]:
        """The sources of a backend, under the root."""
        return sorted(path.relative_to(self.root) for path in (self.root / self.folder_of(isa)).glob("*.cpp"))

    def includes_of(self, source: Path) -> set[Path]:
        """The files under the root that a source is made of."""
        rule = command("-std=gnu++20", "-MM", "-I", self.root, "-DWARPDRAW_ISA=portable", self.root / source)
        paths = [Path(word).resolve() for word in rule.replace("\\\n", " ").split()[1:]]
        root = self.root.resolve()
        return {path.relative_to(root) for path in paths if path.is_relative_to(root)}

    @staticmethod
    def compiled(root: Path, source: Path, isa: str) -> Path:
        target = (root / source).with_suffix(".o")
        flags = [*FLAGS, *VECTOR_FLAGS.get(isa, []), f"-DWARPDRAW_ISA={isa}", "-I", root]
        command(*flags, "-c", root / source, "-o", target)
        return target

    def library(self, name: str, isa: str, changed: dict[Path, Path]) -> Path:
        """Links a backend; changed objects stand first, so that their inline functions win over unchanged ones."""
        unchanged = [made for source, made in self.unchanged[isa].items() if source not in changed]
        target = self.folder / f"{name}.so"
        command("-shared", "-fopenmp", "-o", target, *changed.values(), *unchanged)
        return target

    def plant(self, mutant: Mutant) -> tuple[Path, str]:
        """The library of a mutant, and which backend it is."""
        holders = [path for path in sorted(self.root.glob(mutant.files)) if path.suffix in (".h", ".cpp")]
        texts = {path.relative_to(self.root): path.read_text() for path in holders}
        count = sum(text.count(mutant.old) for text in texts.values())
        assert count == 1, f"{mutant.old!r} occurs {count} times in csrc/{mutant.files}: bring mutants.py up to date"
        path = next(path for path, text in texts.items() if mutant.old in text)
        root = self.folder / f"mutant{MUTANTS.index(mutant)}"
        shutil.copytree(self.root, root, ignore=shutil.ignore_patterns("*.o"))
        (root / path).write_text(texts[path].replace(mutant.old, mutant.new))
        isa = VECTOR if path.parts[0] == "cpu" else "scalar"
        concerned = [source for source in self.sources_of(isa) if path in self.includes[source]]
        return self.library(root.name, isa, {source: self.compiled(root, source, isa) for source in concerned}), isa


# --------------------------------------------------------------------------------------------------------------------
# The judgement, in a process of its own.

PLANTED = "planted"
PARITY_SIZES = (1, 31, 64, 130, 1000, 5003)
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int32, torch.int64, torch.bool)  # as DType of tensor.h


class Argument(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("stride", ctypes.POINTER(ctypes.c_int64)),
        ("integer", ctypes.c_int64),
        ("number", ctypes.c_double),
        ("present", ctypes.c_int32),
        ("dtype", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
    )


def argument(value: object) -> Argument:
    if isinstance(value, torch.Tensor):
        sizes = ctypes.c_int64 * value.dim()
        shape, stride = sizes(*value.shape), sizes(*value.stride())
        return Argument(value.data_ptr(), shape, stride, 0, 0.0, 1, DTYPES.index(value.dtype), value.dim())
    number = value if isinstance(value, (int, float)) else 0
    return Argument(None, None, None, int(number), float(number), 0, 0, 0)


def load(library: Path) -> SimpleNamespace:
    """The ops of a library, callable as those of the native module."""
    native = ctypes.CDLL(str(library))

    def op(name):
        function = getattr(native, f"run_{name}")

        def run(*bound):
            function((Argument * len(bound))(*map(argument, bound)))

        return run

    return SimpleNamespace(**{name: op(name) for name in NATIVE_OPS})


def semantics() -> None:
    import test_semantics

    failed = []
    for name, test in vars(test_semantics).items():
        if name.startswith("test_"):
            try:
                test()
            except AssertionError:
                failed.append(name)
    assert not failed, ", ".join(failed)


def arithmetic() -> None:
    import test_known_answers as known

    known.test_exponentials_are_accurate_and_never_fall(PLANTED)
    known.test_weights_are_accurate_and_monotone_over_every_fraction(PLANTED)


def known_answers() -> None:
    import test_known_answers as known

    known.test_draws_are_frozen(PLANTED)
    known.test_exponentials_are_frozen(PLANTED)
    known.test_weights_are_frozen(PLANTED)
    known.test_weights_below_a_unit_of_mass_count_for_nothing(PLANTED)


def judgements(isa: str) -> dict[str, Callable[[], object]]:
    """The checks, the quick ones first; all but the last are about meaning."""
    made: dict[str, Callable[[], object]] = {
        "semantics": semantics,
        "equal keys": checks.check_level_keys,
        "tails": checks.check_tails,
        "rows alone": checks.check_rows_are_independent,
        "halves": functools.partial(checks.check_against_reference, (130,), 1, torch.bfloat16),
        "definitions": functools.partial(checks.check_against_reference, (1, 2, 65, 300, 1000), 1),
        "parity": functools.partial(checks.check_same, "scalar", PARITY_SIZES, (torch.float32, torch.bfloat16)),
        "independence": functools.partial(checks.check_independence, 10_000),
        "arithmetic": arithmetic,
        "distribution": functools.partial(checks.check_distributions, 20_000),
        "known answers": known_answers,
    }
    if isa == "scalar":
        del made["parity"]  # the oracle is one side of it
    return made


def judge(library: Path, isa: str, pipe: Connection) -> None:
    """Sends (check, complaint or nothing) for each check."""
    torch.set_num_threads(1)
    BACKENDS[PLANTED] = _BACKENDS[PLANTED] = Backend(PLANTED, True, "a planted bug", module=load(library))
    for name, check in judgements(isa).items():
        complaint = ""
        with warpdraw.use(PLANTED):
            try:
                check()
            except Exception as error:
                complaint = f"{type(error).__name__} {error}".strip()
        pipe.send((name, complaint))
    pipe.close()


def verdict_on(library: Path, isa: str, all_checks: bool = True) -> dict[str, str]:
    """The checks that reject a library, with their complaints; a crash or a hang is a rejection too.

    Unless all checks are wanted, the first that rejects ends the judgement.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "warpdraw"])
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=judge, args=(library, isa, send))
    process.start()
    send.close()
    found: dict[str, str] = {}
    waiting, end = list(judgements(isa)), time.monotonic() + PATIENCE
    while waiting and (all_checks or not found):
        try:
            if not receive.poll(max(0.0, end - time.monotonic())):
                found[waiting[0]] = "hangs"
                break
            name, complaint = receive.recv()
        except EOFError:
            process.join()
            found[waiting[0]] = f"crashes ({process.exitcode})"
            break
        waiting.remove(name)
        if complaint:
            found[name] = complaint
    process.kill()
    process.join()
    return found
