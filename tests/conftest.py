"""What all tests share: the backends that can run here, Triton's interpreter where there is no GPU, deterministic
hypothesis runs.
"""

import os

import pytest
import torch
from hypothesis import settings

# Triton reads it while it decorates the first kernel.
if not (torch.cuda.is_available() or torch.xpu.is_available()):
    os.environ.setdefault("TRITON_INTERPRET", "1")

import warpdraw

VECTOR = ("portable", "avx2", "avx512")  # one source, compiled once for each
NATIVE = ("scalar", *VECTOR)
SIMULATED = ("cuda_host_cluster", "cuda_host_split")  # the CUDA kernels on the host, in test builds
BACKENDS = {backend.name: backend for backend in warpdraw.backends()}

# Small tensors on two threads of a busy machine wait for each other longer than they compute; a test that is about
# threads asks for them.
torch.set_num_threads(1)

settings.register_profile("warpdraw", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("warpdraw")


def runnable(name: str) -> str:
    """The name of a backend that can run here; skips the test with the reason if it cannot."""
    if not BACKENDS[name].available:
        pytest.skip(f"{name}: {BACKENDS[name].reason}")
    return name


@pytest.fixture(params=["reference", *NATIVE, "cpu"])
def backend(request):
    """Every backend in turn, forced for the test."""
    with warpdraw.use(runnable(request.param)):
        yield request.param


@pytest.fixture(params=NATIVE)
def native(request):
    """Every compiled backend in turn, forced for the test."""
    with warpdraw.use(runnable(request.param)):
        yield request.param


@pytest.fixture(params=VECTOR)
def vector(request):
    """The name of every instruction set in turn."""
    return runnable(request.param)


@pytest.fixture(params=SIMULATED)
def simulated(request):
    """Both paths of the CUDA kernels in turn, on a simulated GPU, forced for the test."""
    with warpdraw.use(runnable(request.param)):
        yield request.param


@pytest.fixture
def threads():
    """A function that sets the number of threads; the number is back at 1 after the test."""
    yield torch.set_num_threads
    torch.set_num_threads(1)


@pytest.fixture
def run(capsys):
    """Runs the program in this process; returns exit code, standard output and standard error."""
    from warpdraw.cli.main import main

    def call(*arguments):
        code = main(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    yield call
    torch.set_num_threads(1)
