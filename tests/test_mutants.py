"""Mutants: planted bugs in the real C++ sources, each of which the checks of this suite must reject.

Every bug goes into a copy of csrc/. What includes the changed file is compiled again and linked behind a small C
interface, and the checks judge the result in a process of its own. `python tests/test_mutants.py` prints a table.
"""

from __future__ import annotations

import concurrent.futures
import ctypes
import functools
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import checks
import pytest
import torch
from mutants import MUTANTS, Mutant

import warpdraw
from warpdraw.backends import _BACKENDS, Backend
from warpdraw.op import OPS

CSRC = Path(__file__).parent.parent / "csrc"
COMPILER = shutil.which(os.environ.get("CXX", "c++"))
FLAGS = [
    "-std=gnu++20",
    "-O1",
    "-fPIC",
    "-fopenmp",
    "-ffp-contract=off",
    "-fvisibility=hidden",
    "-fno-gnu-unique",
    "-w",
]
VECTOR_FLAGS = {
    "avx512": ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mavx2", "-mfma", "-mf16c"],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "portable": [],
}
VECTOR = next(backend.name for backend in warpdraw.backends() if backend.name in VECTOR_FLAGS and backend.available)
PATIENCE = 60  # seconds that the checks of one mutant may take before it counts as hanging

# --------------------------------------------------------------------------------------------------------------------
# A build that needs neither Python nor pybind11.

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
    return {.present = a.present != 0, .data = a.data, .dtype = DType(a.dtype), .ndim = a.ndim, .shape = a.shape, .stride = a.stride};
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
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int32, torch.int64, torch.bool)  # as DType of tensor.h


def compile_one(source: Path, target: Path, isa: str) -> None:
    command = [COMPILER, *FLAGS, *VECTOR_FLAGS.get(isa, []), f"-DWARPDRAW_ISA={isa}"]
    root = next(folder for folder in (source.parent, source.parent.parent) if (folder / "ops.h").exists())
    done = subprocess.run(
        [*command, "-I", root, "-c", source, "-o", target], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise AssertionError(f"does not compile: {done.stderr[:1500]}")


def sources_of(root: Path, isa: str) -> list[Path]:
    return sorted((root / ("scalar" if isa == "scalar" else "cpu")).glob("*.cpp"))


def includes_of(source: Path, root: Path) -> set[Path]:
    """The files under csrc/ that a source includes, itself too."""
    done = subprocess.run(
        [COMPILER, "-std=gnu++20", "-MM", "-I", root, "-DWARPDRAW_ISA=portable", source],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    words = done.stdout.replace("\\\n", " ").split()[1:]
    return {
        Path(word).resolve().relative_to(root.resolve())
        for word in words
        if Path(word).resolve().is_relative_to(root.resolve())
    }


class Workshop:
    """Objects of the unchanged sources, and libraries made from them and from changed ones."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.root = folder / "csrc"
        shutil.copytree(CSRC, self.root)
        (self.root / "interface.cpp").write_text(INTERFACE + "".join(f"OP({name})\n" for name in OPS))
        self.includes = {s: includes_of(s, self.root) for isa in ("scalar", VECTOR) for s in sources_of(self.root, isa)}

    @functools.cache  # noqa: B019: one workshop a run
    def unchanged(self, isa: str) -> dict[Path, Path]:
        """The object of each source of a backend, and of the C interface."""
        objects = {}
        for source in [*sources_of(self.root, isa), self.root / "interface.cpp"]:
            objects[source] = self.folder / f"{isa}_{source.stem}.o"
            compile_one(source, objects[source], isa)
        return objects

    def library(self, name: str, isa: str, changed: dict[Path, Path]) -> Path:
        """Links a backend; changed objects stand first, so that their inline functions win over unchanged ones."""
        objects = [*changed.values(), *(made for source, made in self.unchanged(isa).items() if source not in changed)]
        target = self.folder / f"{name}.so"
        done = subprocess.run(
            [COMPILER, "-shared", "-fopenmp", "-o", target, *objects], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[:1500]
        return target

    def plant(self, mutant: Mutant) -> tuple[Path, str]:
        """The library of a mutant, and which backend it is."""
        holders = [path for path in sorted(CSRC.glob(mutant.files)) if mutant.old in path.read_text()]
        count = sum(path.read_text().count(mutant.old) for path in holders)
        if count != 1:
            raise AssertionError(
                f"{mutant.old!r} occurs {count} times in csrc/{mutant.files}: bring tests/mutants.py up to date"
            )
        number = MUTANTS.index(mutant)
        root = self.folder / f"mutant{number}"
        shutil.copytree(self.root, root)
        path = holders[0].relative_to(CSRC)
        (root / path).write_text((CSRC / path).read_text().replace(mutant.old, mutant.new))
        isa = VECTOR if path.parts[0] == "cpu" else "scalar"
        changed = {}
        for source in sources_of(self.root, isa):
            if path in self.includes[source]:
                changed[source] = root / f"{source.stem}.o"
                compile_one(root / source.relative_to(self.root), changed[source], isa)
        return self.library(f"mutant{number}", isa, changed), isa


# --------------------------------------------------------------------------------------------------------------------
# The judgement, in a process of its own.


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
    number = 0 if value is None else value
    return Argument(None, None, None, int(number), float(number), 0, 0, 0)


def load(library: Path) -> SimpleNamespace:
    """The ops of a library, callable as those of the native module."""
    native = ctypes.CDLL(str(library))

    def op(name):
        function = getattr(native, f"run_{name}")

        def run(*bound):
            function((Argument * len(bound))(*map(argument, bound)))

        return run

    return SimpleNamespace(**{name: op(name) for name in OPS})


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


def known_answers() -> None:
    import test_known_answers

    assert checks.known_draws() == test_known_answers.DRAWS


def judgements(isa: str) -> dict[str, functools.partial[None]]:
    """The checks, all of meaning but the last."""
    made = {
        "semantics": functools.partial(semantics),
        "definitions": functools.partial(checks.check_against_reference, (1, 2, 65, 300, 1000), 1),
        "halves": functools.partial(checks.check_against_reference, (130,), 1, torch.bfloat16),
        "distribution": functools.partial(checks.check_distributions, 20_000),
        "independence": functools.partial(checks.check_independence, 10_000),
        "tails": functools.partial(checks.check_tails),
        "equal keys": functools.partial(checks.check_level_keys),
        "rows alone": functools.partial(checks.check_rows_are_independent),
    }
    if isa != "scalar":
        sizes, dtypes = (1, 31, 64, 130, 1000, 5003), (torch.float32, torch.bfloat16)
        made["parity"] = functools.partial(checks.check_same, "scalar", sizes, dtypes)
    return {**made, "known answers": functools.partial(known_answers)}


def judge(library: Path, isa: str, pipe) -> None:
    """Sends (check, complaint or None, seconds) for each check."""
    torch.set_num_threads(1)
    _BACKENDS["planted"] = Backend("planted", True, "a planted bug", module=load(library))
    for name, check in judgements(isa).items():
        start = time.perf_counter()
        complaint = None
        with warpdraw.use("planted"):
            try:
                check()
            except AssertionError as error:
                complaint = str(error).strip() or "assertion"
        pipe.send((name, complaint, time.perf_counter() - start))
    pipe.close()


def verdict_on(library: Path, isa: str) -> dict[str, str]:
    """The checks that reject a library, with their complaints; a crash or a hang is a rejection too."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "warpdraw"])
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=judge, args=(library, isa, send))
    process.start()
    send.close()
    found, waiting, end = {}, list(judgements(isa)), time.monotonic() + PATIENCE
    while waiting:
        try:
            if not receive.poll(max(0.0, end - time.monotonic())):
                found[waiting[0]] = "hangs"
                break
            name, complaint, _ = receive.recv()
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


# --------------------------------------------------------------------------------------------------------------------
# Tests.

pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="no C++ compiler"),
    pytest.mark.skipif(not CSRC.exists(), reason="no C++ sources beside the tests"),
]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("mutants"))


@pytest.fixture(scope="module")
def verdicts(request, workshop):
    """Futures of the verdicts on the mutants that this run asks for, two at a time."""
    for isa in ("scalar", VECTOR):
        workshop.unchanged(isa)
    wanted = [item.callspec.params["mutant"] for item in request.session.items if item.originalname == "test_mutant"]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        yield {mutant: pool.submit(lambda m=mutant: verdict_on(*workshop.plant(m))) for mutant in wanted}


@pytest.mark.parametrize("isa", ["scalar", VECTOR])
def test_control(workshop, isa):
    """The same build without a bug passes every check."""
    assert verdict_on(workshop.library(f"control_{isa}", isa, {}), isa) == {}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant(verdicts, mutant):
    found = verdicts[mutant].result()
    assert found, "no check rejects it"
    meaning = set(found) - {"known answers"}
    assert bool(meaning) != bool(mutant.only_known_answers), f"rejected by {', '.join(found)}"


def test_there_are_enough_mutants_and_names_are_unique():
    assert len(MUTANTS) >= 24
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert sum(bool(mutant.only_known_answers) for mutant in MUTANTS) <= 2


def main() -> None:
    chosen = [mutant for mutant in MUTANTS if not sys.argv[1:] or any(word in mutant.name for word in sys.argv[1:])]
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(2) as pool:
        workshop = Workshop(Path(folder))
        for isa in ("scalar", VECTOR):
            print(
                f"| no bug, {isa} | {verdict_on(workshop.library(f'control_{isa}', isa, {}), isa) or 'passes'} |",
                flush=True,
            )

        def line(mutant):
            start = time.perf_counter()
            try:
                found = verdict_on(*workshop.plant(mutant))
            except AssertionError as error:
                return f"| {mutant.name} | {mutant.files} | ERROR {error} |"
            return f"| {mutant.name} | {mutant.files} | {', '.join(found)} | {time.perf_counter() - start:.1f} s"

        for text in pool.map(line, chosen):
            print(text, flush=True)


if __name__ == "__main__":
    main()
