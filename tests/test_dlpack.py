"""Arrays of other libraries: whatever exports its memory by DLPack's protocol is taken as a tensor of torch is."""

import doctest
import gc
import re
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import inputs_of, least, rows_of, slice_like
from certificates import same_bits
from conftest import BACKENDS, runnable

import warpdraw
from warpdraw.contract import TensorSpec, size_of
from warpdraw.op import OPS

LOGITS = rows_of(("random", "tied", "masked"), 130, seed=1)
TENSORS = [(name, spec) for name, op in OPS.items() for spec in op.contract.inputs if isinstance(spec, TensorSpec)]


class Exporter:
    """Nothing but the protocol, for an array of whatever kind."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **wishes):
        return self.array.__dlpack__(**wishes)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class OldExporter(Exporter):
    """One from before tensors had versions, and could say that they are read-only."""

    def __dlpack__(self):
        return self.array.__dlpack__()


def as_numpy(value):
    """An array of the same memory; of bfloat16, which NumPy does not know, an exporter."""
    return Exporter(value) if value.dtype == torch.bfloat16 else value.numpy()


KINDS = {"numpy": as_numpy, "exporter": Exporter, "old": OldExporter}


FORCED = ["cpu", "scalar", "reference"]  # in native code, and in Python as Triton's is, which is slow here


@pytest.fixture(params=FORCED)
def forced(request):
    """Each in turn, forced for the test."""
    with warpdraw.use(request.param):
        yield request.param


def arrays(inputs, kind):
    return {name: kind(value) if isinstance(value, torch.Tensor) else value for name, value in inputs.items()}


def outputs_of(op, given):
    """The outputs by name."""
    result = op(**given)
    return result._asdict() if isinstance(result, tuple) else {op.contract.outputs[0].name: result}


def buffers_of(op, inputs):
    """A buffer in the middle of a larger tensor for each output that can be asked for."""
    everything = outputs_of(op, {**inputs, **{spec.name: True for spec in op.contract.outputs if spec.optional}})
    return {name: slice_like(torch.zeros_like(value), 1) for name, value in everything.items()}


def refuses(error, message, op=warpdraw.softmax, **given):
    with pytest.raises(error, match=message):
        op(**{**least(op, LOGITS), **given})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OPS)
def test_results_are_those_of_tensors(forced, name, kind, dtype):
    op = OPS[name]
    for seed in range(4):
        inputs = inputs_of(op, 130, dtype, seed, kinds=("random", "tied", "masked", "NaN"), wild=True)
        want = outputs_of(op, inputs)
        found = outputs_of(op, arrays(inputs, KINDS[kind]))
        for output, value in want.items():
            assert type(found[output]) is type(value)
            assert value is None or same_bits(found[output], value).all(), output


@pytest.mark.parametrize("kind", ["numpy", "exporter"])
@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("backend", [*FORCED, "triton"])
def test_buffers_are_written_in_place_and_returned(backend, name, kind):
    if BACKENDS[runnable(backend)].device == "cuda":
        pytest.skip(f"{backend}: these arrays are on the CPU")
    op = OPS[name]
    inputs = inputs_of(op, 65, torch.float32, seed=2, kinds=("random", "masked"))
    want, got = buffers_of(op, inputs), buffers_of(op, inputs)
    given = arrays(got, KINDS[kind])
    with warpdraw.use("cpu" if backend == "triton" else backend):
        op(**inputs, **want)
    with warpdraw.use(backend):
        found = outputs_of(op, {**arrays(inputs, KINDS[kind]), **given})
    for output, array in given.items():
        assert found[output] is array
        assert same_bits(got[output], want[output]).all(), output
        base = (tensor._base if tensor._base is not None else tensor for tensor in (got[output], want[output]))
        assert same_bits(*base).all(), f"wrote outside of {output}"


@pytest.mark.parametrize(("name", "spec"), TENSORS, ids=lambda value: getattr(value, "name", value))
def test_what_an_array_is_not_is_named(name, spec):
    op = OPS[name]
    dtype = np.dtype(spec.dtype_names[0])
    right = np.zeros((3,) * len(spec.sizes), dtype)
    dtypes = " or ".join(spec.dtype_names)
    refuses(
        TypeError, f"^{spec.name}: expected a tensor of {dtypes}, got uint8$", op, **{spec.name: right.astype("uint8")}
    )
    for bad in (right.astype(object), right.astype(dtype.newbyteorder())):
        message = f"^{spec.name}: expected what DLPack can share, got a numpy.ndarray: DLPack only supports"
        refuses(ValueError, message, op, **{spec.name: bad})
    refuses(ValueError, rf"^{spec.name}: expected shape .*, got \[\]$", op, **{spec.name: np.zeros((), dtype)})
    refuses(ValueError, f"^{spec.name}: expected strides of at least 0", op, **{spec.name: right[::-1]})


def test_layouts_that_are_refused_are_named():
    array = LOGITS.numpy()
    refuses(ValueError, r"^logits: expected a contiguous last axis \(stride 1\)", logits=array[:, ::2])
    refuses(ValueError, r"^logits: expected a contiguous last axis \(stride 1\)", logits=np.asfortranarray(array))
    refuses(ValueError, r"^logits: expected strides of at least 0, got \[130, -1\]$", logits=array[:, ::-1])
    shifted = np.zeros(array.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(array.shape)
    refuses(ValueError, "^logits: expected entries of float32 at multiples of their size", logits=shifted)
    refuses(ValueError, r"^out: expected shape \[B, V\] with B = 3, got \[2, 130\]$", out=np.zeros((2, 130), "f4"))
    refuses(TypeError, "^out: expected a tensor of float32", out=np.zeros((3, 130)))
    refuses(TypeError, "^tokens: .* got int16$", warpdraw.sample, tokens=np.zeros(3, np.int16))


def test_what_is_read_only_is_read_and_never_written():
    array, out = LOGITS.numpy().copy(), np.zeros((3, 130), np.float32)
    array.flags.writeable = out.flags.writeable = False
    assert torch.equal(warpdraw.softmax(array), warpdraw.softmax(LOGITS))
    refuses(ValueError, "^out: expected memory to write into, got a numpy.ndarray that is read-only", out=out)
    # One that cannot say it may be read-only, such as those of JAX.
    refuses(ValueError, "^out: expected memory to write into, got a OldExporter", out=OldExporter(LOGITS.clone()))
    assert not out.any()


def test_a_copy_is_no_buffer():
    class Copies(Exporter):
        def __dlpack__(self, **wishes):
            return self.array.__dlpack__(**wishes, copy=True)

    assert torch.equal(warpdraw.softmax(Copies(LOGITS.numpy())), warpdraw.softmax(LOGITS))
    refuses(ValueError, "^out: expected memory to write into", out=Copies(np.zeros((3, 130), np.float32)))


def test_numbers_of_numpy_are_numbers():
    given = {"temperature": np.float32(0.5), "top_k": np.int64(7), "top_p": np.float64(0.9), "seed": np.uint8(3)}
    want = warpdraw.sample(LOGITS, 0.5, top_k=7, top_p=0.9, seed=3).tokens
    assert torch.equal(warpdraw.sample(LOGITS.numpy(), **given).tokens, want)
    refuses(TypeError, "^top_k: expected an int or a tensor", warpdraw.sample, top_k=np.float32(2))


class Elsewhere(Exporter):
    def __init__(self, device, given=None):
        super().__init__(LOGITS)
        self.device, self.given = device, given

    def __dlpack__(self, **wishes):
        return self.given

    def __dlpack_device__(self):
        return self.device


@pytest.mark.parametrize("argument", ["logits", "out"])
def test_what_cannot_be_exported_is_named(argument):
    message = f"^{argument}: expected what DLPack can share, got a Elsewhere: "
    refuses(ValueError, message + "__dlpack__ gave no tensor$", **{argument: Elsewhere((1, 0))})
    refuses(ValueError, message, **{argument: Elsewhere(None)})
    if not torch.cuda.is_available():
        refuses(ValueError, message, **{argument: Elsewhere((2, 0))})


def test_an_interrupt_is_no_refusal():
    class Interrupted(Exporter):
        def __dlpack__(self, **wishes):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        warpdraw.softmax(Interrupted(LOGITS))


@pytest.mark.parametrize("name", OPS)
def test_the_source_may_go_and_nothing_is_kept(forced, name):
    op = OPS[name]
    inputs = arrays(inputs_of(op, 65, torch.float32, seed=1, kinds=("random", "tied")), Exporter)
    results = op(**inputs)
    first = results[0] if isinstance(results, tuple) else results
    before = first.clone()
    exporters = [value for value in inputs.values() if isinstance(value, Exporter)]

    def counts():
        gc.collect()
        return [sys.getrefcount(counted) for each in exporters for counted in (each, each.array)]

    expected = counts()
    for _ in range(20):
        op(**inputs)
        with pytest.raises(TypeError):
            op(**inputs, **{op.contract.outputs[0].name: np.zeros((2, 65), np.uint8)})
    assert counts() == expected
    gone = [weakref.ref(each) for each in exporters]
    exporters.clear()
    inputs.clear()
    gc.collect()
    assert not [one for one in gone if one() is not None]
    assert same_bits(first, before).all()


@pytest.mark.parametrize("name", OPS)
def test_a_prepared_call_keeps_its_arrays(name):
    op, out = OPS[name], {}
    arrays_given = {key: value.numpy().copy() for key, value in least(op, LOGITS).items()}
    for spec in op.contract.outputs:
        if not spec.optional:
            shape = [size_of(size, {"B": 3, "V": 130, "K": 1}) for size in spec.sizes]
            out[spec.name] = np.zeros(shape, "f4" if spec.same_dtype_as else spec.dtype_names[0])
    call = op.prepare(**arrays_given, **out)
    del arrays_given
    gc.collect()
    call()
    for want, (output, found) in zip(outputs_of(op, least(op, LOGITS)).values(), out.items(), strict=False):
        assert same_bits(torch.from_numpy(found), want).all(), output


def test_the_examples_of_the_guide_print_what_it_says():
    guide = (Path(__file__).parent.parent / "docs" / "sampling.md").read_text(encoding="utf-8")
    session = "\n".join(re.findall(r"^```python\n(.*?)^```$", guide, flags=re.MULTILINE | re.DOTALL))
    test = doctest.DocTestParser().get_doctest(session, {}, "sampling.md", None, None)
    output = []
    assert doctest.DocTestRunner(verbose=False).run(test, out=output.append).failed == 0, "".join(output)
    assert len(test.examples) > 5


@pytest.mark.parametrize("backend", ["cuda", "triton"])
@pytest.mark.parametrize("name", OPS)
@pytest.mark.gpu
def test_exporters_on_a_gpu(name, backend):
    """On a stream that is not the default one, where the logits arrive late."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    op, values = OPS[name], LOGITS.repeat(100, 40).cuda()
    with warpdraw.use(runnable(backend)):
        want = outputs_of(op, least(op, values))
        stream = torch.cuda.Stream()
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            given = {key: torch.zeros_like(value) for key, value in least(op, values).items()}
            torch.cuda._sleep(10_000_000)
            for key, value in least(op, values).items():
                given[key].copy_(value)
            found = outputs_of(op, arrays(given, Exporter))
        stream.synchronize()
    for output, value in want.items():
        assert value is None or same_bits(found[output].cpu(), value.cpu()).all()
