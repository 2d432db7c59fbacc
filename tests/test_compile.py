"""torch.compile sees every op as one opaque node: opcheck passes, and compiled code gives what eager code gives."""

import pytest
import torch
from cases import ORDERS, inputs_of, rows_of
from certificates import same_bits
from torch._dynamo.testing import CompileCounter

import warpdraw
from warpdraw.contract import ChoiceSpec
from warpdraw.op import OPS


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
    logits = op.contract.inputs[0].name
    first = inputs[logits]
    same(compiled(**{logits: first}), op(first))
    numbers = {
        spec.name: spec.choices[1] if isinstance(spec, ChoiceSpec) else type(spec.default)(1)
        for spec in op.contract.inputs[1:]
        if spec.default is not None and spec.name != "prompt_length"  # no prompt without a history
    }
    same(compiled(**{logits: first}, **numbers), op(first, **numbers))


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


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch warns about its own modules
def test_inductor():
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


@pytest.mark.parametrize("name", OPS)
def test_dynamic_shapes_compile_once(name):
    op = OPS[name]
    counter = CompileCounter()
    compiled = torch.compile(lambda logits: op(logits), backend=counter, fullgraph=True, dynamic=True)
    for V in (130, 257, 1000):
        for B in (2, 3, 5):
            logits = rows_of(("random",) * B, V, seed=V)
            same(compiled(logits), op(logits))
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


def test_the_node_runs_under_fake_tensors_and_export():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        fake = torch.empty(3, 100, dtype=torch.bfloat16)
        assert torch.ops.warpdraw.softmax(fake, torch.empty(3)).shape == (3, 100)
        assert torch.ops.warpdraw.softmax(fake, torch.empty(3)).dtype == torch.float32

    class Head(torch.nn.Module):
        def forward(self, logits):
            return warpdraw.sample(logits, top_k=5).tokens

    logits = rows_of(("random", "tied"), 130, seed=1)
    exported = torch.export.export(Head(), (logits,))
    assert torch.equal(exported.module()(logits), Head()(logits))
