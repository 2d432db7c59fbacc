"""Which implementations exist, why some cannot run, which one a tensor's device picks, and how often each ran."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch

from . import _C

if TYPE_CHECKING:
    from .op import Op

INSTRUCTION_SETS = ("avx512", "avx2", "portable")  # best first
OLDEST_GPU, OLDEST_WITH_CLUSTERS = (8, 0), (9, 0)
OLDEST_TRITON = (3, 6)
# What the CUDA kernels of each backend do.
GPU_PATHS = {
    "cuda": "whichever path serves the call",
    "cuda_cluster": "a cluster of blocks keeps each row on chip: the logits are read once",
    "cuda_split": "each row is split over blocks",
}


class BackendError(RuntimeError):
    """A backend that was asked for, or that tensors need, cannot run; the message says why."""


@dataclass(frozen=True)
class Backend:
    """One implementation of the ops.

    ``available`` says whether it can run here, ``reason`` why not, or what it is.
    """

    name: str
    available: bool
    reason: str
    device: str = "cpu"
    module: ModuleType | None = field(default=None, repr=False)
    calls: Counter[str] = field(default_factory=Counter, repr=False, compare=False)

    def run(self, op: Op, bound: tuple[Any, ...]) -> None:
        """Run an op on its bound arguments: inputs, then outputs."""
        if self.module is None:
            self.calls[op.name] += 1
            op.run_reference(bound)
        elif kernel := getattr(self.module, op.name, None):
            kernel(*bound)
        else:
            raise BackendError(f"backend {self.name}: it has no {op.name}")

    def launches(self) -> dict[str, int]:
        native = vars(self.module).items() if self.module else ()
        return {**self.calls, **{name: kernel.launches for name, kernel in native if hasattr(kernel, "launches")}}


def _native() -> list[Backend]:
    found = []
    for name in (*INSTRUCTION_SETS, "scalar"):
        module = getattr(_C, name, None)
        runs = module is not None and getattr(_C, f"runs_{name}", True)
        if module is None:
            reason = "not built for this processor family"
        elif not runs:
            reason = f"this processor has no {name.upper()}"
        elif name == "scalar":
            reason = "the oracle that the others must equal: slow, one token at a time"
        else:
            reason = f"the CPU kernels compiled for {name}"
        found.append(Backend(name, runs, reason, module=module))
    return found


def _simulated() -> list[Backend]:
    """The CUDA kernels on a GPU that is simulated on the host."""
    found = []
    for name in ("cuda_host_cluster", "cuda_host_split"):
        module = getattr(_C, name, None)
        reason = "a simulated GPU, for tests" if module else "not built: a test build has it"
        found.append(Backend(name, module is not None, reason, module=module))
    return found


@functools.cache
def _gpu() -> dict[str, Backend]:
    """The backends of a GPU, once somebody asks: what a process forks after it initialised the driver cannot use it."""
    best = (0, 0)
    if not hasattr(_C, "cuda"):
        problem = "not built: install with WARPDRAW_CUDA=on and nvcc"
    elif torch.version.cuda is None:
        problem = "this torch was built without CUDA"
    elif not torch.cuda.is_available():
        problem = "no CUDA device was found"
    else:
        problem = ""
        best = _best_capability()
    found = []
    for name, path in GPU_PATHS.items():
        oldest = OLDEST_WITH_CLUSTERS if name == "cuda_cluster" else OLDEST_GPU
        reason = problem
        if not problem and best < oldest:
            reason = f"expected a GPU of {_architecture(oldest)} or later, got {_architecture(best)}"
        module = getattr(_C, name, None)
        found.append(Backend(name, not reason, reason or f"{path}, {_architecture(best)}", "cuda", module))
    for shape in _C.shapes:
        if module := getattr(_C, f"cuda_{shape}", None):
            reason = problem or f"kernels of the shape {shape}, for tuning, {_architecture(best)}"
            found.append(Backend(f"cuda_{shape}", not problem, reason, "cuda", module))
    found.append(_triton())
    return {backend.name: backend for backend in found}


def _triton() -> Backend:
    """The Triton kernels, which are imported where they can run, in Triton's interpreter if the environment says so."""
    try:
        import triton
    except ImportError:
        return Backend("triton", False, "Triton is not installed", "cuda")
    version = tuple(map(int, re.findall(r"\d+", triton.__version__)[:2]))
    if version < OLDEST_TRITON:
        floor = ".".join(map(str, OLDEST_TRITON))
        return Backend("triton", False, f"expected Triton {floor} or later, got {triton.__version__}", "cuda")
    if triton.knobs.runtime.interpret:
        device, found, problem = "cpu", "Triton's interpreter, on the CPU: for tests", ""
    else:
        device, found, problem = _gpu_of_triton()
    if problem:
        return Backend("triton", False, problem, device)
    return Backend("triton", True, found, device, importlib.import_module(".triton", __package__))


def _gpu_of_triton() -> tuple[str, str, str]:
    """The device type of the GPU that is there, what it is, and why the kernels cannot run on it."""
    if torch.cuda.is_available():
        if torch.version.hip is not None:
            return "cuda", f"compiled by Triton for {torch.cuda.get_device_properties(0).gcnArchName}", ""
        best = _best_capability()
        if best < OLDEST_GPU:
            return "cuda", "", f"expected a GPU of {_architecture(OLDEST_GPU)} or later, got {_architecture(best)}"
        return "cuda", f"compiled by Triton for {_architecture(best)}", ""
    if torch.xpu.is_available():
        return "xpu", f"compiled by Triton for {torch.xpu.get_device_name()}", ""
    return "cuda", "", "no GPU was found"


def _best_capability() -> tuple[int, int]:
    return max(torch.cuda.get_device_capability(ordinal) for ordinal in range(torch.cuda.device_count()))


def _architecture(capability: tuple[int, int]) -> str:
    return f"sm_{capability[0]}{capability[1]}"


def _cpu(native: list[Backend]) -> Backend:
    runnable = {backend.name: backend for backend in native if backend.available}
    wanted = os.environ.get("WARPDRAW_ISA")
    if wanted is not None and wanted not in runnable:
        reason = f"WARPDRAW_ISA: expected one of {', '.join(runnable)} on this machine, got {wanted!r}"
        return Backend("cpu", False, reason)
    chosen = runnable[wanted or next(name for name in INSTRUCTION_SETS if name in runnable)]
    why = "as WARPDRAW_ISA says" if wanted else "the best that this processor runs"
    return Backend("cpu", True, f"{chosen.name}, {why}", module=chosen.module)


def _registry() -> dict[str, Backend]:
    native = _native()
    all_backends = [
        _cpu(native),
        *native,
        *_simulated(),
        Backend("reference", True, "eager PyTorch in float64, on any device", device="any"),
    ]
    return {backend.name: backend for backend in all_backends}


# The backends that a device picks by itself, the preferred one first.
DEFAULTS = {"cpu": ("cpu",), "cuda": ("cuda", "triton"), "xpu": ("triton",)}

_BACKENDS = _registry()  # those that need no GPU
_forced: ContextVar[Backend | None] = ContextVar("forced", default=None)


def backends() -> list[Backend]:
    """List every backend: name, whether it is available here, and the reason if it is not.

    >>> import warpdraw
    >>> [backend.name for backend in warpdraw.backends() if backend.name in ("cpu", "reference")]
    ['cpu', 'reference']
    """
    return [*_BACKENDS.values(), *_gpu().values()]


def launches() -> dict[str, int]:
    """Count the calls of each op on each backend since the process started, as ``{"avx512.sample": 3}``.

    A call of ``cuda`` counts for the path that it took, if the op has several.

    >>> import torch, warpdraw
    >>> before = warpdraw.launches()["scalar.softmax"]
    >>> with warpdraw.use("scalar"):
    ...     _ = warpdraw.softmax(torch.zeros(1, 4))
    >>> warpdraw.launches()["scalar.softmax"] - before
    1
    """
    counted = [backend for backend in backends() if backend.name != "cpu"]  # cpu is one of the others
    return {f"{backend.name}.{name}": n for backend in counted for name, n in backend.launches().items()}


@contextlib.contextmanager
def use(name: str) -> Iterator[None]:
    """Run every op of this thread inside the block on the named backend; raise if it cannot run; nothing falls back.

    >>> import torch, warpdraw
    >>> with warpdraw.use("reference"):
    ...     warpdraw.softmax(torch.zeros(1, 4))
    tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """
    backend = _BACKENDS.get(name) or _gpu().get(name)
    if backend is None:
        raise ValueError(f"backend: expected one of {', '.join([*_BACKENDS, *_gpu()])}, got {name!r}")
    if not backend.available:
        raise BackendError(f"backend {name}: {backend.reason}")
    previous = _forced.set(backend)
    try:
        yield
    finally:
        _forced.reset(previous)


def native_kernel(name: str) -> _C.Kernel | None:
    """The kernel of this name on the CPU, or on whatever backend is forced, if that is a native one."""
    return _kernel_of((_forced.get() or _BACKENDS["cpu"]).module, name)


def native_kernels(name: str) -> tuple[_C.Kernel | None, _C.Kernel | None]:
    """The kernels that an op runs on tensors of the CPU and of a GPU, where native ones do."""
    forced = _forced.get()
    if forced is None:
        return _DEFAULT_KERNELS.get(name, (None, None))
    kernel = _kernel_of(forced.module, name)
    return (None, kernel) if forced.device == "cuda" else (kernel, None)


def _kernel_of(module: ModuleType | None, name: str) -> _C.Kernel | None:
    kernel = getattr(module, name, None)
    return kernel if isinstance(kernel, _C.Kernel) else None


# A kernel refuses a GPU that is too old for it, so that these need not ask which there are.
_DEFAULT_KERNELS = {
    name: (_kernel_of(_BACKENDS["cpu"].module, name), _kernel_of(getattr(_C, "cuda", None), name))
    for name in vars(_C.scalar)
}


def backend_for(device: torch.device) -> Backend:
    """The backend that runs tensors of a device: the forced one, else the first available for it."""
    forced = _forced.get()
    if forced is not None:
        if forced.device not in ("any", device.type):
            raise BackendError(f"backend {forced.name}: expected tensors on {forced.device}, got {device}")
        return forced
    defaults = [_BACKENDS.get(name) or _gpu()[name] for name in DEFAULTS.get(device.type, ())]
    for backend in defaults:
        if backend.available and backend.device == device.type:  # Triton's interpreter is not
            return backend
    reasons = "; ".join(f"{backend.name}: {backend.reason}" for backend in defaults)
    raise BackendError(f"no backend runs tensors on {device}" + (f" ({reasons})" if reasons else ""))
