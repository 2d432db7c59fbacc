"""Backends: each is listed with a reason, forced by name without falling back, and counted when it runs (the last for
every op in test_every_backend.py).
"""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from cases import least
from conftest import BACKENDS, SIMULATED, VECTOR, runnable

import warpdraw
from warpdraw import _C
from warpdraw.backends import DEFAULTS, BackendError, _triton, backend_for, native_kernel, native_kernels
from warpdraw.op import OPS

GPU = ("cuda", "cuda_cluster", "cuda_split")
LOGITS = torch.randn(2, 100, generator=torch.Generator().manual_seed(1))


def python(code, **environment):
    """Run code in a new interpreter."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )


def test_every_backend_is_listed_with_a_reason():
    names = [backend.name for backend in warpdraw.backends()]
    assert names[0] == "cpu"
    assert {"cpu", "scalar", *VECTOR, *SIMULATED, *GPU, "triton", "reference"} <= set(names)
    assert len(names) == len(set(names))
    for backend in warpdraw.backends():
        assert backend.reason
        assert isinstance(backend.available, bool)
    for name in ("cpu", "scalar", "portable", "reference"):
        assert BACKENDS[name].available


def test_the_default_is_the_best_that_runs():
    wanted = os.environ.get("WARPDRAW_ISA")
    best = wanted or next(name for name in ("avx512", "avx2", "portable") if BACKENDS[name].available)
    assert best in BACKENDS["cpu"].reason
    before = warpdraw.launches()
    warpdraw.softmax(LOGITS)
    after = warpdraw.launches()
    assert {name: n - before[name] for name, n in after.items() if n != before[name]} == {f"{best}.softmax": 1}


def test_unavailable_and_unknown_backends_are_refused():
    for backend in warpdraw.backends():
        if not backend.available:
            with pytest.raises(RuntimeError) as caught, warpdraw.use(backend.name):
                pass
            assert backend.name in str(caught.value)
            assert backend.reason in str(caught.value)
    with (
        pytest.raises(ValueError, match=r"backend: expected one of cpu, .*reference.*, got 'gpu'"),
        warpdraw.use("gpu"),
    ):
        pass


@pytest.mark.parametrize("name", GPU)
def test_a_gpu_backend_that_cannot_run_says_what_is_missing(name):
    backend = BACKENDS[name]
    if not hasattr(_C, name):
        assert backend.reason == "not built: install with WARPDRAW_CUDA=on and nvcc"
    elif torch.version.cuda is None:
        assert backend.reason == "this torch was built without CUDA"
    elif not torch.cuda.is_available():
        assert backend.reason == "no CUDA device was found"
    else:
        major, minor = torch.cuda.get_device_capability()
        assert backend.available == (major >= (9 if name == "cuda_cluster" else 8))
        assert f"sm_{major}{minor}" in backend.reason
    assert backend.device == "cuda"


def test_a_simulated_gpu_is_there_in_test_builds_only_and_never_by_itself():
    for name in SIMULATED:
        built = hasattr(_C, name)
        assert BACKENDS[name].available == built
        assert BACKENDS[name].reason == ("a simulated GPU, for tests" if built else "not built: a test build has it")
        assert BACKENDS[name].device == "cpu"
        assert all(name not in names for names in DEFAULTS.values())


@pytest.mark.parametrize("name", GPU)
def test_a_kernel_of_a_gpu_refuses_tensors_of_the_cpu(name):
    module = getattr(_C, name, None)
    if module is None:
        pytest.skip(f"{name}: {BACKENDS[name].reason}")
    for op in OPS.values():
        with pytest.raises(ValueError, match=f"{op.name}: was given a tensor on another device than its own"):
            getattr(module, op.name)(*op._bind((), least(op, LOGITS)))


@pytest.mark.gpu
@pytest.mark.parametrize("name", GPU)
def test_a_call_on_a_gpu_counts_for_the_path_that_it_took(name):
    runnable(name)
    logits = LOGITS.cuda()
    paths = {name} if name != "cuda" else {"cuda_cluster", "cuda_split"}
    with warpdraw.use(name):
        for call in (lambda: warpdraw.sample(logits), OPS["sample"].prepare(logits)):
            before = warpdraw.launches()
            call()
            after = warpdraw.launches()
            changed = {key: n - before[key] for key, n in after.items() if n != before[key]}
            assert changed in [{f"{path}.sample": 1} for path in paths]


# --------------------------------------------------------------------------------------------------------------------
# Triton.


def with_gpu(monkeypatch, capability=(9, 0), **version):
    """What torch says where there is a GPU."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setattr(torch.version, "hip", version.get("hip"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda ordinal=0: capability)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda ordinal=0: SimpleNamespace(gcnArchName="gfx942"))


def without_gpu(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.xpu, "is_available", lambda: False)


def test_without_triton_the_reason_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    assert not _triton().available
    assert _triton().reason == "Triton is not installed"


@pytest.mark.parametrize("version", ["2.3.1", "3.5.1", "3.5.9+git1234"])
@pytest.mark.parametrize("interpreted", ["0", "1"])
def test_a_triton_that_is_too_old_is_refused(monkeypatch, version, interpreted):
    triton = pytest.importorskip("triton")
    with_gpu(monkeypatch)
    monkeypatch.setenv("TRITON_INTERPRET", interpreted)
    monkeypatch.setattr(triton, "__version__", version)
    assert not _triton().available
    assert _triton().reason == f"expected Triton 3.6 or later, got {version}"


@pytest.mark.parametrize("version", ["3.6.0", "3.10.0+git1234", "4.0"])
def test_a_triton_that_is_new_enough_runs_on_what_is_there(monkeypatch, version):
    triton = pytest.importorskip("triton")
    monkeypatch.setattr(triton, "__version__", version)
    without_gpu(monkeypatch)
    assert (_triton().available, _triton().reason) == (False, "no GPU was found")
    with_gpu(monkeypatch, (7, 5))
    assert (_triton().available, _triton().reason) == (False, "expected a GPU of sm_80 or later, got sm_75")
    with_gpu(monkeypatch, (8, 0))
    assert (_triton().available, _triton().reason) == (True, "compiled by Triton for sm_80")
    with_gpu(monkeypatch, (7, 0), hip="6.4")
    assert (_triton().available, _triton().reason) == (True, "compiled by Triton for gfx942")
    assert _triton().device == "cuda"
    without_gpu(monkeypatch)
    monkeypatch.setattr(torch.xpu, "is_available", lambda: True)
    monkeypatch.setattr(torch.xpu, "get_device_name", lambda: "an Intel GPU")
    assert (_triton().available, _triton().reason) == (True, "compiled by Triton for an Intel GPU")
    assert _triton().device == "xpu"
    assert DEFAULTS["xpu"] == ("triton",)


def test_the_interpreter_of_triton_is_never_picked_by_itself(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    found = _triton()
    assert (found.available, found.device) == (True, "cpu")
    assert found.reason == "Triton's interpreter, on the CPU: for tests"
    assert backend_for(torch.device("cpu")).name == "cpu"
    for device in ("cuda", "xpu"):  # where its own tensors are not
        if not BACKENDS["cuda"].available and BACKENDS["triton"].device == "cpu":
            with pytest.raises(
                BackendError, match=f"no backend runs tensors on {device}.*triton: Triton's interpreter"
            ):
                backend_for(torch.device(device))


def test_triton_takes_tensors_of_its_own_device_only():
    with warpdraw.use(runnable("triton")):
        own = BACKENDS["triton"].device
        other = "cuda" if own == "cpu" else "cpu"
        with pytest.raises(BackendError, match=f"backend triton: expected tensors on {own}, got {other}"):
            backend_for(torch.device(other))
        if own != "cpu":
            for op in OPS.values():
                with pytest.raises(BackendError, match=f"backend triton: expected tensors on {own}, got cpu"):
                    op(LOGITS)


def test_only_native_kernels_take_the_short_way():
    for name in OPS:
        with warpdraw.use("scalar"):
            assert native_kernel(name) is getattr(_C.scalar, name)
            assert native_kernels(name) == (getattr(_C.scalar, name), None)
        with warpdraw.use("reference"):
            assert native_kernel(name) is None
        if BACKENDS["triton"].available:
            with warpdraw.use("triton"):
                assert native_kernel(name) is None
                assert native_kernels(name) == (None, None)


# --------------------------------------------------------------------------------------------------------------------


def test_importing_and_calling_does_not_import_triton():
    code = (
        "import sys, torch, warpdraw\n"
        "warpdraw.sample(torch.zeros(1, 9))\n"
        "with warpdraw.use('scalar'): warpdraw.sample(torch.zeros(1, 9))\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'triton' or 'warpdraw.triton' in name])"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


def test_importing_and_calling_does_not_initialise_cuda():
    """Else no process that forks afterwards could use the GPU."""
    code = (
        "import torch\n"
        "def asked(*_): raise AssertionError('asked for GPUs')\n"
        "for name in ('is_available', 'device_count', 'init', '_lazy_init'): setattr(torch.cuda, name, asked)\n"
        "import warpdraw; warpdraw.sample(torch.zeros(1, 9))\n"
        "with warpdraw.use('scalar'): warpdraw.sample(torch.zeros(1, 9))"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_blocks_nest_and_end_even_after_an_error():
    def ran(before):
        after = warpdraw.launches()
        return {key.split(".")[0] for key, n in after.items() if n != before.get(key, 0)}

    with warpdraw.use("scalar"):
        with warpdraw.use("portable"):
            before = warpdraw.launches()
            warpdraw.softmax(LOGITS)
            assert ran(before) == {"portable"}
        before = warpdraw.launches()
        warpdraw.softmax(LOGITS)
        assert ran(before) == {"scalar"}
    with pytest.raises(KeyError), warpdraw.use("scalar"):
        raise KeyError
    before = warpdraw.launches()
    warpdraw.softmax(LOGITS)
    assert ran(before) == {BACKENDS["cpu"].reason.split(",")[0]}


def test_tensors_on_a_device_without_a_backend():
    with pytest.raises((RuntimeError, ValueError)):
        warpdraw.softmax(LOGITS.to("meta"))


@pytest.mark.parametrize("name", VECTOR)
def test_the_environment_forces_an_instruction_set(name):
    runnable(name)
    code = (
        "import torch, warpdraw; warpdraw.sample(torch.zeros(1, 9)); "
        "print([k for k, n in warpdraw.launches().items() if n], warpdraw.backends()[0].reason)"
    )
    done = python(code, WARPDRAW_ISA=name)
    assert done.returncode == 0, done.stderr
    assert f"['{name}.sample']" in done.stdout
    assert f"{name}, as WARPDRAW_ISA says" in done.stdout


@pytest.mark.parametrize("name", ["sse9", "AVX2", "", "reference"])
def test_the_environment_cannot_ask_for_an_unknown_instruction_set(name):
    code = "import torch, warpdraw; print(warpdraw.backends()[0]); warpdraw.sample(torch.zeros(1, 9))"
    done = python(code, WARPDRAW_ISA=name)
    assert done.returncode != 0
    assert "name='cpu', available=False" in done.stdout
    assert "WARPDRAW_ISA: expected one of " in done.stderr
    assert f"got {name!r}" in done.stderr


def test_the_package_imports_without_triton():
    code = "import sys; sys.modules['triton'] = None; import warpdraw; print(warpdraw.backends())"
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert "triton" in done.stdout


def test_importing_the_package_first_loads_one_openmp_runtime():
    """Two would mean two thread pools, and threads that torch.set_num_threads does not govern."""
    code = (
        "import warpdraw, torch\n"
        "warpdraw.sample(torch.zeros(64, 4000)); torch.randn(500, 500) @ torch.randn(500, 500)\n"
        "import os, re\n"
        "maps = open('/proc/self/maps').read()\n"
        "print(sorted({os.path.realpath(p) for p in re.findall(r'\\S*/lib(?:gomp|omp|iomp5)[\\w.-]*so\\S*', maps)}))"
    )
    if not os.path.exists("/proc/self/maps"):
        pytest.skip("no /proc/self/maps here")
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(".so") == 1, done.stdout


def test_torch_governs_the_number_of_threads():
    code = (
        "import warpdraw, torch, os\n"
        "torch.set_num_threads(1)\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "warpdraw.sample(torch.zeros(64, 10000))\n"
        "print(len(os.listdir('/proc/self/task')) - before)"
    )
    if not os.path.exists("/proc/self/task"):
        pytest.skip("no /proc/self/task here")
    done = python(code, OMP_NUM_THREADS="2")
    assert done.stdout.strip() == "0", done.stdout + done.stderr
