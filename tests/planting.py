"""Plants a bug into a copy of the C++ sources, builds it behind a small C interface, and lets the checks judge it."""

from __future__ import annotations

import ctypes
import functools
import multiprocessing
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import checks
import cuda_checks
import feature_checks
import test_features
import test_known_answers
import test_semantics
import torch
import verify_checks
from conftest import BACKENDS
from mutants import Mutant

import warpdraw
from warpdraw.backends import _BACKENDS, Backend
from warpdraw.op import OPS

TESTS = Path(__file__).parent
CSRC = TESTS.parent / "csrc"
COMPILER = shutil.which(os.environ.get("CXX", "c++"))
# Compiling takes most of the time, so nothing is optimised.
FLAGS = ["-std=gnu++20", "-O0", "-fPIC", "-fopenmp", "-ffp-contract=off", "-fvisibility=hidden", "-w"]
VECTOR_FLAGS = {
    "avx512": ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mavx2", "-mfma", "-mf16c"],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "portable": [],
}
VECTOR = next(backend.name for backend in warpdraw.backends() if backend.name in VECTOR_FLAGS and backend.available)
ISAS = ("scalar", VECTOR)
SOURCES = (".h", ".cpp", ".cuh", ".cu")
SIMULATED = "cuda_host"  # the CUDA kernels, on simulated threads
ENVIRONMENT = os.environ.copy()
PATIENCE = 120  # seconds that the checks of one mutant may take before it counts as hanging

# --------------------------------------------------------------------------------------------------------------------
# A build that needs neither Python's headers nor pybind11.

NATIVE_OPS = (*OPS, "numerics")
FLOORS = ("read_floor", "exp_floor")  # of the vector backends
INTERFACE = """
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <vector>
#include "core/float_environment.h"
#include "invoke.h"

// Device memory for one call, full of what no kernel has written.
struct Room {
  std::vector<std::unique_ptr<char[]>> blocks;

  static void* take(void* room, std::size_t bytes) {
    auto& block = static_cast<Room*>(room)->blocks.emplace_back(new char[bytes]);
    return std::memset(block.get(), 0xa5, bytes);
  }
};

// Runs an op on a path of Queue, and returns its complaint.
template <typename Op> const char* run(Op* op, const warpdraw::Argument* arguments, int path) {
  static thread_local std::string complaint;
  complaint.clear();
  try {
    const warpdraw::FloatEnvironment environment;
    Room room;
    warpdraw::invoke(op, {nullptr, 0, warpdraw::Path(path), nullptr, Room::take, &room}, arguments);
  } catch (const std::exception& error) {
    complaint = error.what();
  }
  return complaint.c_str();
}
#define OP(name) \\
  extern "C" __attribute__((visibility("default"))) \\
  const char* run_##name(const warpdraw::Argument* arguments, int path) { \\
    return run(&warpdraw::WARPDRAW_ISA::name, arguments, path); \\
  }
"""


# No check calls the floors, and the interface only passes arguments on.
UNJUDGED = ("floors", "interface")


def ops_of(isa: str) -> tuple[str, ...]:
    return (*NATIVE_OPS, *FLOORS) if isa == VECTOR else NATIVE_OPS


def command(*words: object) -> str:
    """Runs the compiler; what it prints, or an AssertionError with its complaint."""
    assert COMPILER
    # With an environment of its own: pytest changes that of the process meanwhile, and an exec that reads it may fail.
    done = subprocess.run([COMPILER, *map(str, words)], capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert done.returncode == 0, f"{words[-1]}: {done.stderr[:1500]}"
    return done.stdout


class Workshop:
    """Objects of the unchanged sources, and libraries made from them and from changed ones."""

    def __init__(self, folder: Path, isas: tuple[str, ...] = ISAS):
        server()  # before there are other threads: it changes the environment for a moment
        self.folder, self.root = folder, folder / "csrc"
        shutil.copytree(CSRC, self.root)
        self.part_cuda()
        for isa in isas:
            (self.root / self.folder_of(isa) / "interface.cpp").write_text(
                INTERFACE + "".join(f"OP({name})\n" for name in ops_of(isa))
            )
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(self.precompile, isas))
            sources = [(isa, source) for isa in isas for source in self.sources_of(isa)]
            made = pool.map(lambda each: self.compiled(self.root, each[1], each[0]), sources)
            included = pool.map(lambda each: self.includes_of(each[1]), sources)
            self.includes = {source: paths for (_, source), paths in zip(sources, included, strict=True)}
            self.unchanged: dict[str, dict[Path, Path]] = {isa: {} for isa in isas}
            for (isa, source), target in zip(sources, made, strict=True):
                self.unchanged[isa][source] = target

    @staticmethod
    def folder_of(isa: str) -> str:
        return "cpu" if isa == VECTOR else isa

    def part_cuda(self) -> None:
        """A source for each op of the simulated GPU, as the other backends have them."""
        folder = self.root / SIMULATED
        for whole in ("ops.cpp", "ring.cpp"):
            (folder / whole).unlink()
        for kernels in sorted((self.root / "cuda").glob("*.cu")):
            with open(folder / f"{kernels.stem.split('_')[0]}.cpp", "a") as source:
                source.write(f'#include "cuda/{kernels.name}"\n')

    def precompile(self, isa: str) -> None:
        """The system headers that any source asks for, read once."""
        texts = [path.read_text() for path in self.root.rglob("*") if path.suffix in (".h", ".cpp")]
        names = sorted({name for text in texts for name in re.findall(r"#include <(\w+(?:\.h)?)>", text)})
        header = self.root / f"{isa}_system.h"
        header.write_text("".join(f"#if __has_include(<{name}>)\n#include <{name}>\n#endif\n" for name in names))
        command(*self.flags(isa), "-x", "c++-header", header, "-o", f"{header}.gch")

    @staticmethod
    def flags(isa: str) -> list[str]:
        return [*FLAGS, *VECTOR_FLAGS.get(isa, [])]

    def sources_of(self, isa: str) -> list[Path]:
        """The sources of a backend, under the root."""
        return sorted(path.relative_to(self.root) for path in (self.root / self.folder_of(isa)).glob("*.cpp"))

    def includes_of(self, source: Path) -> set[Path]:
        """The files under the root that a source is made of."""
        rule = command("-std=gnu++20", "-MM", "-I", self.root, "-DWARPDRAW_ISA=portable", self.root / source)
        paths = [Path(word).resolve() for word in rule.replace("\\\n", " ").split()[1:]]
        root = self.root.resolve()
        return {path.relative_to(root) for path in paths if path.is_relative_to(root)}

    def compiled(self, root: Path, source: Path, isa: str) -> Path:
        """The object of a source that stands under a root, or among the unchanged ones; so does what it includes."""
        target = (root / source).with_suffix(".o")
        target.parent.mkdir(parents=True, exist_ok=True)
        text = root / source if (root / source).exists() else self.root / source
        header = self.root / f"{isa}_system.h"
        places = ["-I", root, "-I", self.root, f"-DWARPDRAW_ISA={isa}"]
        command(*self.flags(isa), "-include", header, *places, "-c", text, "-o", target)
        return target

    def library(self, name: str, isa: str, changed: dict[Path, Path]) -> Path:
        """Links a backend; changed objects stand first, so that their inline functions win over unchanged ones."""
        unchanged = [made for source, made in self.unchanged[isa].items() if source not in changed]
        target = self.folder / f"{name}.so"
        command("-shared", "-fopenmp", "-o", target, *changed.values(), *unchanged)
        return target

    def find(self, mutant: Mutant) -> Path:
        """The one file under the root that holds what the mutant replaces."""
        holders = [
            path for path in sorted(self.root.glob(mutant.files)) if path.suffix in (".h", ".cpp", ".cuh", ".cu")
        ]
        texts = {path.relative_to(self.root): path.read_text() for path in holders}
        count = sum(text.count(mutant.old) for text in texts.values())
        assert count == 1, f"{mutant.old!r} occurs {count} times in csrc/{mutant.files}: bring mutants.py up to date"
        return next(path for path, text in texts.items() if mutant.old in text)

    def plant(self, mutant: Mutant) -> Iterator[tuple[Path, str, bool]]:
        """Libraries with the bug, which backend they are and whether all that includes the changed file has it.

        The first has it in one op alone. Nearly every bug shows there, so most mutants cost a single compilation.
        """
        path = self.find(mutant)
        root = self.folder / re.sub(r"\W+", "_", mutant.name)
        (root / path).parent.mkdir(parents=True)
        for header in self.root.glob("*.h"):  # a header is looked for beside the one that includes it
            shutil.copy(header, root)
        (root / path).write_text((self.root / path).read_text().replace(mutant.old, mutant.new))
        isa = isa_of(mutant, path)
        concerned = [source for source in self.sources_of(isa) if path in self.includes[source]]
        concerned = [source for source in concerned if source == path or source.stem not in UNJUDGED]
        concerned.sort(key=lambda source: source.stem != mutant.op)
        changed: dict[Path, Path] = {}
        for source in concerned:
            changed[source] = self.compiled(root, source, isa)
            complete = len(changed) == len(concerned)
            if complete or source.stem == mutant.op:
                yield self.library(f"{root.name}_{len(changed)}", isa, changed), isa, complete


def isa_of(mutant: Mutant, path: Path) -> str:
    """The backend that is judged."""
    if path.parts[0] == "cuda":
        return SIMULATED
    return VECTOR if path.parts[0] == "cpu" or mutant.in_vector_kernels else "scalar"


# --------------------------------------------------------------------------------------------------------------------
# The library behind the ops.

PLANTED = "planted"
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int32, torch.int64, torch.bool)  # as DType of tensor.h


class NativeTensor(ctypes.Structure):
    """Tensor of tensor.h."""

    _fields_ = (
        ("present", ctypes.c_bool),
        ("data", ctypes.c_void_p),
        ("dtype", ctypes.c_int),
        ("device", ctypes.c_int),
        ("device_index", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("stride", ctypes.POINTER(ctypes.c_int64)),
    )


class Argument(ctypes.Structure):
    """Argument of invoke.h."""

    _fields_ = (("tensor", NativeTensor), ("integer", ctypes.c_int64), ("number", ctypes.c_double))


def argument(value: object) -> Argument:
    """A tensor, a number or the index of a choice; None is an absent tensor."""
    if isinstance(value, torch.Tensor):
        sizes = ctypes.c_int64 * value.dim()
        layout = sizes(*value.shape), sizes(*value.stride())
        return Argument(NativeTensor(True, value.data_ptr(), DTYPES.index(value.dtype), 0, 0, value.dim(), *layout))
    number = value if isinstance(value, (int, float)) else 0
    return Argument(NativeTensor(), int(number), float(number))


def load(library: Path, isa: str) -> SimpleNamespace:
    """The ops of a library, callable as those of the native module."""
    native = ctypes.CDLL(str(library))
    set_threads = native.omp_set_num_threads if isa == VECTOR else lambda count: None
    set_threads(1)
    kernels = SimpleNamespace(set_threads=set_threads, path=0)

    def op(name: str) -> Callable[..., None]:
        function = getattr(native, f"run_{name}")
        function.restype = ctypes.c_char_p

        def run(*bound: object) -> None:
            if complaint := function((Argument * len(bound))(*map(argument, bound)), kernels.path):
                raise RuntimeError(complaint.decode())

        return run

    vars(kernels).update({name: op(name) for name in ops_of(isa)})
    return kernels


@dataclass(frozen=True)
class Planted(Backend):
    """A backend whose kernels are no objects of the native module, so that no call takes the short way to them."""

    kernels: Any = None

    def run(self, op: Any, bound: tuple[Any, ...]) -> None:
        getattr(self.kernels, op.name)(*bound)


# --------------------------------------------------------------------------------------------------------------------
# The judgement, in a process of its own.


def truth_tables(module: Any) -> None:
    """The tests of a file that run on the backend in force, up to the first that fails."""
    for name, test in vars(module).items():
        if name.startswith("test_"):
            try:
                test()
            except AssertionError as error:
                raise AssertionError(name) from error


def arithmetic() -> None:
    test_known_answers.test_exponentials_are_accurate_and_never_fall(PLANTED)
    test_known_answers.test_weights_are_accurate_and_monotone_over_every_fraction(PLANTED)


def coin() -> None:
    test_known_answers.test_the_coin_of_xtc_is_word_0_of_stream_2(PLANTED)


def known_answers() -> None:
    test_known_answers.test_draws_are_frozen(PLANTED)
    test_known_answers.test_exponentials_are_frozen(PLANTED)
    test_known_answers.test_weights_are_frozen(PLANTED)
    test_known_answers.test_weights_below_a_unit_of_mass_count_for_nothing(PLANTED)


def threads() -> None:
    feature_checks.check_threads(BACKENDS[PLANTED].module.set_threads)


def judgements(isa: str) -> dict[str, Callable[[], object]]:
    """The checks, the quick ones first; all but the last are about meaning."""
    if isa == SIMULATED:
        return cuda_checks.judgements(lambda: BACKENDS[PLANTED].module)
    parity, both = checks.check_same, (torch.float32, torch.bfloat16)
    against = checks.check_against_reference
    made: dict[str, Callable[[], object]] = {
        "features": functools.partial(truth_tables, test_features),
        "semantics": functools.partial(truth_tables, test_semantics),
        "equal keys": checks.check_level_keys,
        "tails": checks.check_tails,
        "coin": coin,
        "bad bias": feature_checks.check_bad_bias,
        "histories": feature_checks.check_histories,
        "filters alone": feature_checks.check_filters_alone,
        "reports alone": feature_checks.check_reports_alone,
        "rows alone": checks.check_rows_are_independent,
        "small parity": functools.partial(parity, "scalar", (31, 130, 1000), both[:1]),
        "large rows": feature_checks.check_large_rows,
        "steep rows": feature_checks.check_steep_rows,
        "threads": threads,
        "many tiles": verify_checks.check_many_tiles,
        "verification": verify_checks.check_rules,
        "halves": functools.partial(against, (130,), 1, torch.bfloat16),
        "parity": functools.partial(parity, "scalar", (1, 64, 5003), both),
        "independence": functools.partial(checks.check_independence, 10_000),
        "definitions": functools.partial(against, (1, 2, 65, 300, 1000), 1),
        "arithmetic": arithmetic,
        "distribution": functools.partial(checks.check_distributions, 2_000 if isa == "scalar" else 5_000),
        "known answers": known_answers,
    }
    if isa == "scalar":  # the oracle is one side of these
        for name in ("small parity", "large rows", "steep rows", "threads", "parity", "many tiles"):
            del made[name]
    return made


FIRST_SLOW = "verification"
VERIFYING = ("small parity", "many tiles", "verification")


def judge(library: Path, isa: str, names: list[str], pipe: Connection) -> None:
    """Sends the complaint or nothing for each of these checks."""
    torch.set_num_threads(1)
    kernels = load(library, isa)
    BACKENDS[PLANTED] = SimpleNamespace(name=PLANTED, available=True, module=kernels)
    _BACKENDS[PLANTED] = Planted(PLANTED, True, "a planted bug", kernels=kernels)
    for name in names:
        complaint = ""
        with warpdraw.use(PLANTED):
            try:
                judgements(isa)[name]()
            except Exception as error:
                complaint = f"{type(error).__name__} {error}".strip()
        pipe.send(complaint)
    pipe.close()


@functools.cache
def server() -> Any:
    """Processes that have read all modules once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "warpdraw", "planting"])
    paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    # Where the server looks for modules; and on one thread, because what it forks has none of its other threads.
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(paths), OMP_NUM_THREADS="1"):
        forkserver.ensure_running()
    return context


def verdict_on(library: Path, isa: str, names: list[str] | None = None, all_of_them: bool = True) -> dict[str, str]:
    """Those checks that reject a library, with their complaints; a crash or a hang is a rejection too."""
    waiting = list(judgements(isa)) if names is None else names
    receive, send = server().Pipe(duplex=False)
    process = server().Process(target=judge, args=(library, isa, waiting, send))
    process.start()
    send.close()
    found: dict[str, str] = {}
    end = time.monotonic() + PATIENCE
    for name in waiting:
        try:
            if not receive.poll(max(0.0, end - time.monotonic())):
                found[name] = "hangs"
                break
            complaint = receive.recv()
        except EOFError:
            process.join()
            found[name] = f"crashes ({process.exitcode})"
            break
        if complaint:
            found[name] = complaint
            if not all_of_them:
                break
    process.kill()
    process.join()
    return found


def first_rejection(workshop: Workshop, mutant: Mutant) -> dict[str, str]:
    """The first check that rejects a mutant; of one that only known answers can see, these.

    Before the complete build, only quick checks are worth their time.
    """
    found: dict[str, str] = {}
    for library, isa, complete in workshop.plant(mutant):
        names = list(judgements(isa))
        if mutant.only_known_answers:
            names = ["known answers"]
        elif mutant.op == "verify":
            names = sorted(names, key=lambda name: name not in VERIFYING)
        elif not complete and FIRST_SLOW in names:
            names = names[: names.index(FIRST_SLOW)]
        found = verdict_on(library, isa, names, all_of_them=False)
        if found:
            break
    return found


def all_rejections(workshop: Workshop, mutant: Mutant) -> dict[str, str]:
    """Every check that rejects a mutant once all that includes the changed file has it."""
    library, isa, _ = list(workshop.plant(mutant))[-1]
    return verdict_on(library, isa)
