"""The same cases on every backend that can run here: the bits of the scalar oracle, or certificates for the reference.

Cases and backends follow from the contracts and the registry: neither a new op nor a new backend needs an edit here.
They are few and small, since a GPU is simulated and Triton interpreted where there is none; what is particular to a
backend, long rows and many cases are in files of their own.
"""

import functools

import checks
import cuda_checks
import pytest
import torch
from cases import KINDS, batch_of, inputs_of, inputs_on, least, rows_of
from certificates import same_bits
from conftest import BACKENDS, runnable
from test_parity import DTYPES, EDITS, FEATURES

import warpdraw
from warpdraw.op import OPS

PARTS = 4  # as many as there are orders
USUAL = ("temperature", "seed", "position", "order", "top_n", "max_kept", "top_of")
LISTS = ("history", "history_length", "bitmask", "bias", "bias_ids", "allowed_ids", "banned_ids", "stop_ids")
SOME = ("random", "tied", "masked", "+inf", "NaN", "no candidate")


def each(names):
    """A parameter for each backend, marked if it needs a GPU."""
    on_gpu = {name: BACKENDS[name].device in ("cuda", "xpu") for name in names}
    return [pytest.param(name, marks=pytest.mark.gpu if gpu else ()) for name, gpu in on_gpu.items()]


@pytest.fixture(params=each(BACKENDS))
def backend(request):
    """Every backend in turn, forced for the test."""
    with warpdraw.use(runnable(request.param)):
        yield BACKENDS[request.param]


@pytest.fixture(params=each(name for name in BACKENDS if name not in ("scalar", "reference")))
def exact(request):
    """Every backend that must have the oracle's bits in turn, forced for the test."""
    with warpdraw.use(runnable(request.param)):
        yield BACKENDS[request.param]


def moved(backend, inputs):
    """The inputs where the backend wants them."""
    return inputs_on("cpu" if backend.device == "any" else backend.device, inputs)


@functools.cache
def oracle(name, V, dtype, case, only=None, wild=True):
    """Inputs for an op, absurd and invalid ones too, and what the scalar oracle makes of them; each case has an order,
    a part of the kinds of rows and some of the lists.
    """
    kinds = tuple(KINDS)[case % PARTS :: PARTS]
    inputs = inputs_of(OPS[name], V, dtype, seed=PARTS * V + case, kinds=kinds, wild=wild, only=only)
    with warpdraw.use("scalar"):
        return inputs, checks.run(OPS[name], inputs)


def assert_equals_oracle(backend, op, inputs, want, context):
    checks.assert_same(checks.run(op, moved(backend, inputs)), want, context)


@pytest.mark.parametrize("case", range(PARTS))
@pytest.mark.parametrize("V", [1, 65, 200, 700, 5003])
@pytest.mark.parametrize("name", OPS)
def test_everything_at_once(exact, name, V, case):
    if exact.name == "triton" and exact.device != "cpu" and V != 700:
        pytest.skip("triton: each set of arguments takes seconds to compile for a GPU, so V = 700 alone is run there")
    inputs, want = oracle(name, V, DTYPES[(case + V) % 3], case)
    assert_equals_oracle(exact, OPS[name], inputs, want, f"V = {V}, case {case}")


def oracle_of(names, V, case):
    """The same for a few parameters and what they need: nothing hides behind a stricter one."""
    only = (*names, *USUAL, *(LISTS if names[0] in EDITS else ()))
    return oracle("sample", V, DTYPES[case % 3], case, only, wild=False)


@pytest.mark.parametrize("names", [*FEATURES, *((name, *others) for name, others in EDITS.items())], ids="+".join)
def test_features(exact, names):
    for V, case in ((65, len(names[0])), (700, len(names[0]) + 1)):
        inputs, want = oracle_of(names, V, case)
        assert_equals_oracle(exact, OPS["sample"], inputs, want, f"V = {V}, case {case}")


@functools.cache
def oracle_of_breakers():
    """A history whose end stood there before, and breakers in different places of it."""
    history = torch.tensor([[5, 6, 7, 8, 9, 5, 6, 7, 8]], dtype=torch.int32).expand(6, -1)
    breakers = torch.tensor([[-1, -1], [5, -1], [6, -1], [7, 6], [8, -1], [40, 41]], dtype=torch.int32)
    inputs = {"logits": rows_of(("flat",) * 6, 65, seed=1), "history": history, "dry_breakers": breakers}
    inputs |= {"dry_multiplier": 1.0, "dry_allowed_length": 1, "top_n": 10, "top_of": "filtered"}
    with warpdraw.use("scalar"):
        return inputs, checks.run(OPS["sample"], inputs)


def test_breakers_end_what_repeats(exact):
    inputs, want = oracle_of_breakers()
    assert len(want["top_logprobs"].sort().values.unique(dim=0)) >= 4
    assert_equals_oracle(exact, OPS["sample"], inputs, want, "breakers")


@pytest.mark.parametrize("case", [*cuda_checks.CASES, "extremes", "large lists"])
def test_what_reveals_planted_bugs(exact, case):
    """Lists that overflow, tiles above and below what is kept, rows with one infinity."""
    for op, inputs, want in cuda_checks.oracle(case):
        assert_equals_oracle(exact, op, inputs, want, op.name)


def test_the_shared_arithmetic(exact):
    """Weights of exponents from 0 down to -150, exponentials of the smallest, the largest and random words."""
    exponents = -torch.arange(0, 0x43160000, 25_003, dtype=torch.int32).view(torch.float32)[: 16 * 2800]
    words = torch.randint(-(2**31), 2**31, exponents.shape, generator=torch.Generator().manual_seed(1))
    words[:100], words[100:200] = torch.arange(100), -1 - torch.arange(100)
    words[200:300] = 2**30 - 50 + torch.arange(100)  # where two formulas meet
    found = []
    for backend in (exact, BACKENDS["scalar"]):
        given = [tensor.to(backend.device) for tensor in (exponents, words.int())]
        found.append([torch.zeros_like(given[0]) for _ in range(2)])
        backend.module.numerics(*given, *found[-1])
    for got, want in zip(*found, strict=True):
        assert same_bits(got.cpu(), want).all()


# --------------------------------------------------------------------------------------------------------------------
# What else any backend owes.


@pytest.mark.parametrize("name", OPS)
def test_the_forced_backend_runs_and_no_other(backend, name):
    own = {"cpu": {BACKENDS["cpu"].reason.split(",")[0]}, "cuda": {"cuda", "cuda_cluster", "cuda_split"}}
    op = OPS[name]
    inputs = moved(backend, least(op, rows_of(("random", "flat"), 100, seed=1)))
    calls = [lambda: op(**inputs)]
    if backend.module is not None:
        calls.append(op.prepare(**inputs))
    for call in calls:
        before = warpdraw.launches()
        call()
        ran = {key: n - before.get(key, 0) for key, n in warpdraw.launches().items() if n != before.get(key, 0)}
        assert ran in [{f"{path}.{name}": 1} for path in own.get(backend.name, {backend.name})]


@pytest.mark.parametrize("name", OPS)
def test_a_row_stands_alone(backend, name):
    """What a row gives depends on neither its slot nor its company, among which are invalid rows."""
    inputs = moved(backend, inputs_of(OPS[name], 150, torch.float32, seed=150, kinds=SOME, wild=True))
    B = batch_of(inputs)

    def of(rows):
        picked = {key: x[rows] if isinstance(x, torch.Tensor) else x for key, x in inputs.items()}
        return checks.run(OPS[name], picked)

    together = of(list(range(B)))
    order = torch.randperm(B, generator=torch.Generator().manual_seed(2))
    checks.assert_same(of(order.tolist()), {key: x[order] for key, x in together.items()}, "shuffled")
    for row in range(B):
        checks.assert_same(of([row]), {key: x[row : row + 1] for key, x in together.items()}, f"row {row} alone")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [name for name, op in OPS.items() if op.contract.outputs[0].sizes == ("B", "V")])
def test_logits_may_be_overwritten(backend, name, dtype):
    op = OPS[name]
    logits = moved(backend, {"logits": rows_of(("random", "tied", "masked", "+inf", "NaN"), 333, seed=3).to(dtype)})[
        "logits"
    ]
    if op.contract.outputs[0].same_dtype_as != "logits" and dtype != torch.float32:
        with pytest.raises(TypeError, match="out"):
            op(logits, out=logits)
        return
    want = op(logits, 0.7)
    assert op(logits, 0.7, out=logits).data_ptr() == logits.data_ptr()
    assert same_bits(logits.cpu(), want.cpu()).all()


def test_tokens_may_be_of_32_bits(backend):
    """Invalid rows among them."""
    logits = moved(backend, {"logits": rows_of(SOME, 200, seed=5)})["logits"]
    want = warpdraw.sample(logits, seed=3, top_p=0.9)
    tokens = torch.full((2 * len(logits),), 97, dtype=torch.int32, device=logits.device)
    drawn = warpdraw.sample(logits, seed=3, top_p=0.9, tokens=tokens[::2])
    assert drawn.tokens.data_ptr() == tokens.data_ptr()
    assert tokens[::2].tolist() == want.tokens.tolist()
    assert (tokens[::2] == -1).tolist() == (~want.valid).tolist()
    assert (tokens[1::2] == 97).all()


def test_no_rows(backend):
    nothing = torch.empty(0, 100, device="cpu" if backend.device == "any" else backend.device)
    for op in OPS.values():
        result = op(**least(op, nothing))
        assert len(result[0] if isinstance(result, tuple) else result) == 0


def test_the_reference_satisfies_the_certificates():
    with warpdraw.use("reference"):
        checks.check_against_reference((1, 65, 200), repeats=1)
