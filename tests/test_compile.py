"""torch.compile sees every op as one opaque node: opcheck passes, and compiled code gives what eager code gives."""

import io

import pytest
import torch
from cases import ORDERS, inputs_of, is_required, least, rows_of, rows_spec
from certificates import same_bits
from conftest import BACKENDS, runnable
from torch._dynamo.testing import CompileCounter, CompileCounterWithBackend

import warpdraw
from warpdraw import SamplingParams
from warpdraw.contract import words_of
from warpdraw.generation import graph
from warpdraw.op import OPS

inductor = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch warns about its own modules


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def tensors_of(op, V=130, dtype=torch.float32):
    inputs = inputs_of(op, V, dtype, seed=3, kinds=("random", "tied", "masked"))
    return {name: value.contiguous() if isinstance(value, torch.Tensor) else value for name, value in inputs.items()}


def same(found, expected):
    for a, b in zip(*((x if isinstance(x, tuple) else (x,)) for x in (found, expected)), strict=True):
        assert a is b is None or same_bits(a, b).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", OPS)
def test_opcheck(name, dtype):
    """Schema, fake, dispatch and static compilation of the node itself, with and without optional outputs."""
    op = OPS[name]
    given = tensors_of(op, dtype=dtype)
    inputs = [given.get(spec.name) for spec in op.contract.inputs]
    flags = [spec.name for spec in op.contract.outputs if spec.optional]
    node = getattr(torch.ops.warpdraw, name).default
    for wanted in (True, False) if flags else (True,):
        tests = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
        torch.library.opcheck(node, (*inputs, *[wanted for _ in flags]), test_utils=tests)


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", OPS)
def test_compiled_equals_eager(name, compiler):
    op = OPS[name]
    compiled = torch.compile(lambda **kwargs: op(**kwargs), backend=compiler, fullgraph=True)
    inputs = tensors_of(op)
    same(compiled(**inputs), op(**inputs))
    required = least(op, rows_of(("random", "tied", "masked"), 130, seed=3))
    same(compiled(**required), op(**required))
    numbers = {
        spec.name: words[-1] if (words := words_of(spec)) else type(spec.default)(1)
        for spec in op.contract.inputs
        if getattr(spec, "default", None) is not None and spec.name != "prompt_length"  # no prompt without a history
    }
    same(compiled(**required, **numbers), op(**required, **numbers))


@pytest.mark.parametrize("order", ORDERS)
def test_a_step_of_generation_compiles(order):
    """Arithmetic before and after the draw, optional outputs, a position that changes from call to call."""

    def step(hidden, head, position):
        logits = hidden @ head
        drawn = warpdraw.sample(logits, 0.8, 40, 0.95, 0.01, seed=7, position=position, order=order, logprob=True)
        return drawn.tokens + 1, drawn.logprob, drawn.raw_logprob, warpdraw.softmax(logits).amax(-1)

    counter = CompileCounter()
    compiled = torch.compile(step, backend=counter, fullgraph=True)
    generator = torch.Generator().manual_seed(1)
    hidden, head = torch.randn(3, 16, generator=generator), torch.randn(16, 300, generator=generator)
    for position in range(4):
        where = torch.full((3,), position)
        same(compiled(hidden, head, where), step(hidden, head, where))
    assert counter.frame_count == 1


def test_a_step_with_every_kind_of_argument_compiles():
    """Lists, masks and a growing history; reports of given sizes; parameters as tensors and as numbers."""

    def step(logits, history, length, words, position):
        drawn = warpdraw.sample(
            logits, 0.9, top_p=0.95, position=position, typical_p=0.9, xtc_probability=0.5, min_tokens=3,
            stop_ids=history[:, :2], bitmask=words, bias_ids=history[:, :3], bias=logits[:, :3],
            history=history, history_length=length, repetition_penalty=1.3, dry_multiplier=0.5, no_repeat_ngram=3,
            top_n=5, max_kept=20, top_of="filtered", rank=True, kept_count=True,
        )  # fmt: skip
        return drawn.tokens, drawn.rank, drawn.kept_count, drawn.kept_ids, drawn.top_ids, drawn.top_logprobs.exp()

    counter = CompileCounter()
    compiled = torch.compile(step, backend=counter, fullgraph=True)
    logits = rows_of(("random", "tied", "masked"), 130, seed=2)
    history = torch.randint(0, 130, (3, 9), generator=torch.Generator().manual_seed(4), dtype=torch.int32)
    words = torch.full((3, 5), -7, dtype=torch.int32)
    for length in range(9):
        counts, where = torch.full((3,), length, dtype=torch.int32), torch.full((3,), length)
        found, expected = (run(logits, history, counts, words, where) for run in (compiled, step))
        same(found, expected)
        assert (expected[0] >= 0).all()
        assert expected[3].shape == (3, 20)
    assert counter.frame_count == 1


@inductor
def test_inductor_compiles_what_is_around_a_draw():
    def step(logits, position):
        drawn = warpdraw.sample(logits * 2, top_k=20, top_p=0.9, position=position, logprob=True)
        return drawn.tokens, drawn.valid, drawn.logprob.exp()

    logits = rows_of(("random", "tied"), 500, seed=1)
    compiled = torch.compile(step, fullgraph=True)
    for position in (torch.tensor([0, 1]), torch.tensor([5, 6])):
        tokens, valid, probability = compiled(logits, position)
        expected = step(logits, position)
        assert torch.equal(tokens, expected[0])
        assert torch.equal(valid, expected[1])
        assert torch.allclose(probability, expected[2], rtol=1e-6)


def everything(op):
    """The outputs of an op that are made on request."""
    return {spec.name: True for spec in op.contract.outputs if spec.optional}


@inductor
@pytest.mark.parametrize("name", OPS)
def test_inductor_with_dynamic_shapes(name):
    """Logits that the compiled code computes, all outputs, parameters that are slices of larger tensors."""
    op = OPS[name]
    rows = rows_spec(op).name

    def step(**inputs):
        return op(**{**inputs, rows: inputs[rows] * 2}, **everything(op))

    for seed in (2, 7):
        compiled = torch.compile(step, fullgraph=True, dynamic=True)
        for V, kinds in (
            (130, ("random", "tied", "NaN")),
            (257, ("masked", "flat", "random", "peaked")),
            (65, ("tied",) * 2),
        ):
            inputs = inputs_of(op, V, torch.float32, seed, kinds, wild=True)
            same(compiled(**inputs), step(**inputs))


@pytest.mark.parametrize("name", OPS)
def test_dynamic_shapes_compile_once(name):
    op = OPS[name]
    counter = CompileCounter()
    compiled = torch.compile(lambda **inputs: op(**inputs), backend=counter, fullgraph=True, dynamic=True)
    for V in (130, 257, 1000):
        for B in (3, 4, 5):  # not K + 1 = 2, which the compiler would take for the same
            inputs = least(op, rows_of(("random",) * B, V, seed=V))
            same(compiled(**inputs), op(**inputs))
    assert counter.frame_count == 1


def test_output_buffers_in_compiled_code():
    @torch.compile(backend="aot_eager", fullgraph=True)
    def fill(logits, tokens, out):
        drawn = warpdraw.sample(logits, tokens=tokens, seed=3)
        warpdraw.softmax(logits, out=out)
        return drawn.tokens

    logits = rows_of(("random", "tied"), 130, seed=1)
    tokens, out = torch.zeros(2, dtype=torch.int32), torch.zeros(2, 130)
    returned = fill(logits, tokens, out)
    expected = warpdraw.sample(logits, seed=3).tokens
    assert returned.tolist() == tokens.tolist() == expected.tolist()
    assert tokens.dtype == torch.int32
    assert torch.equal(out, warpdraw.softmax(logits))


def test_compiled_code_keeps_the_checks_of_values():
    compiled = torch.compile(lambda logits, T: warpdraw.sample(logits, temperature=T), backend="eager", fullgraph=True)
    drawn = compiled(torch.zeros(2, 5), torch.tensor([1.0, -1.0]))
    assert drawn.valid.tolist() == [True, False]
    assert drawn.tokens[1] == -1


def test_the_node_runs_under_fake_tensors():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        fake = torch.empty(3, 100, dtype=torch.bfloat16)
        assert torch.ops.warpdraw.softmax(fake, torch.empty(3)).shape == (3, 100)
        assert torch.ops.warpdraw.softmax(fake, torch.empty(3)).dtype == torch.float32


# --------------------------------------------------------------------------------------------------------------------
# Which backend compiled code runs on.

FORCED = [
    pytest.param(name, marks=pytest.mark.gpu if BACKENDS[name].device in ("cuda", "xpu") else ())
    for name in ("scalar", "reference", "triton")
]


@inductor
@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("forced", FORCED)
def test_the_backend_that_is_forced_when_compiled_code_runs_is_the_one_that_runs(forced, name, compiler):
    """Not the one that was forced when it was compiled."""
    device = BACKENDS[runnable(forced)].device
    inputs = least(OPS[name], rows_of(("random", "tied"), 130, seed=1).to("cpu" if device == "any" else device))
    compiled = torch.compile(lambda **inputs: OPS[name](**inputs), backend=compiler, fullgraph=True)
    with warpdraw.use("reference"):
        compiled(**inputs)
    for backend in (forced, "reference", forced):
        before = warpdraw.launches()
        with warpdraw.use(backend):
            found = compiled(**inputs)
            after = warpdraw.launches()
            same(found, OPS[name](**inputs))
        assert {key: n - before.get(key, 0) for key, n in after.items() if n != before.get(key, 0)} == {
            f"{backend}.{name}": 1
        }


# --------------------------------------------------------------------------------------------------------------------
# Exported programs.


class Calls(torch.nn.Module):
    """An op with everything that it can report; constants are not among the inputs of the program."""

    def __init__(self, op, constants):
        super().__init__()
        self.op, self.constants = op, constants

    def forward(self, **tensors):
        return self.op(**tensors, **self.constants, **everything(self.op))


def saved(program):
    """The program after it was in a file."""
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", OPS)
def test_export(name, strict):
    inputs = tensors_of(OPS[name])
    tensors = {key: value for key, value in inputs.items() if isinstance(value, torch.Tensor)}
    module = Calls(OPS[name], {key: value for key, value in inputs.items() if key not in tensors})
    program = torch.export.export(module, (), tensors, strict=strict)
    want = module(**tensors)
    for each in (program, saved(program)):
        found = each.module()(**tensors)
        assert type(found) is type(want)
        same(found, want)
    assert [node for node in program.graph.nodes if f"warpdraw.{name}" in str(node.target)]


@pytest.mark.parametrize("name", OPS)
def test_exported_programs_take_other_sizes(name):
    class Head(torch.nn.Module):
        def forward(self, inputs):
            return OPS[name](**inputs)

    op, dims = OPS[name], {letter: torch.export.Dim(letter) for letter in "BV"}
    sizes = {
        spec.name: {axis: dims[size] for axis, size in enumerate(spec.sizes) if size in dims}
        for spec in filter(is_required, op.contract.inputs)
    }
    example = least(op, torch.zeros(3, 130))
    exported = torch.export.export(Head(), (example,), dynamic_shapes=(sizes,)).module()
    for B, V in ((2, 64), (5, 1000), (1, 3)):
        inputs = least(op, rows_of(("random",) * B, V, seed=V))
        same(exported(inputs), op(**inputs))


# --------------------------------------------------------------------------------------------------------------------
# Text.

REQUESTS = {
    "usual": {"temperature": 0.8, "top_p": 0.9},
    "reports": {"logprobs": 2, "kept": 3, "order": "hf", "min_p": 0.01},
    "history": {"repetition_penalty": 1.3, "no_repeat_ngram": 3, "dry_multiplier": 0.8, "logit_bias": {5: 1.0}},
}


@inductor
@pytest.mark.parametrize(("request_", "compiler"), [*((name, "eager") for name in REQUESTS), ("history", "inductor")])
def test_a_decode_step_of_generate_is_one_graph(monkeypatch, request_, compiler):
    """Model and draw: what a CUDA graph captures on a GPU compiles without a break, and draws the same tokens."""
    model = warpdraw.load("tiny-target")
    params = SamplingParams(seed=7, ignore_eos=True, max_tokens=12, n=2, **REQUESTS[request_])
    prompts = ["The sky is", "A"]
    eager = warpdraw.generate(model, prompts, params, graphs=True)
    counter = CompileCounterWithBackend(compiler)
    monkeypatch.setattr(graph, "directly", lambda step: torch.compile(step, backend=counter, fullgraph=True))
    compiled = warpdraw.generate(model, prompts, params, graphs=True)
    assert [each.token_ids for each in compiled] == [each.token_ids for each in eager]
    assert compiled.throughput.graph_steps == eager.throughput.graph_steps > 5
    assert counter.frame_count == compiled.throughput.graphs == 1
