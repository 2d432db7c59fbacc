"""What needs a GPU: its kernels give the CPU's bits by every path, on streams, in graphs, at sizes beyond 32 bits.

WARPDRAW_GPU_TESTS=cpu runs the same code with CPU tensors, on the simulated GPU where that was built, to try it where
there is none; what is about streams, graphs and memory is left out then.
"""

import functools
import os
import random

import checks
import pytest
import torch
from cases import INF, ORDERS, batch_of, inputs_of, inputs_on, least, rows_of, rows_spec
from certificates import same_bits
from conftest import BACKENDS
from test_parity import DTYPES, EDITS, FEATURES, LONG, NAMES, PARTNERS, SIZES

import warpdraw
from warpdraw.cli.main import main
from warpdraw.op import OPS

DEVICE = torch.device(os.environ.get("WARPDRAW_GPU_TESTS", "cuda"))
ON_GPU = DEVICE.type == "cuda"
SIMULATED = [name for name in ("cuda_host_cluster", "cuda_host_split") if BACKENDS[name].available]
PATHS = ("cuda", "cuda_cluster", "cuda_split") if ON_GPU else (*SIMULATED, "portable")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(ON_GPU and not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode"),
]
streams = pytest.mark.skipif(not ON_GPU, reason="streams, graphs and memory are a GPU's")


def _runnable(name):
    backend = BACKENDS.get(name)
    if backend is None or not backend.available:
        pytest.skip(f"{name}: {backend.reason if backend else 'unknown'}")
    return name


@pytest.fixture(params=PATHS)
def path(request):
    """The name of every path in turn; one that cannot run here is skipped with the reason."""
    return _runnable(request.param)


# Triton compiles a kernel for each set of arguments, and its interpreter is slow: these tests have few sets of them.
@pytest.fixture(params=(*PATHS, "triton") if ON_GPU else PATHS)
def kernels(request):
    """The same, and the Triton kernels."""
    return _runnable(request.param)


# What draws by itself on a GPU, and what would without the CUDA kernels.
BY_DEFAULT = ("cuda", "triton")


def seeded(seed=1):
    return torch.Generator(DEVICE).manual_seed(seed)


def normal(B, V, seed=1, dtype=torch.float32):
    return (3 * torch.randn(B, V, generator=seeded(seed), device=DEVICE)).to(dtype)


def mixed(B, seed=1):
    """Parameters of every kind, an entry for each row: greedy, unfiltered and filtered rows side by side."""
    generator = torch.Generator().manual_seed(seed)

    def any_of(values, dtype):
        return torch.tensor(values, dtype=dtype)[torch.randint(len(values), (B,), generator=generator)].to(DEVICE)

    return {
        "temperature": any_of([0.0, 0.3, 0.7, 1.0, 1.0, 1.5], torch.float32),
        "top_k": any_of([0, 0, 1, 5, 50, 64, 200, 1000], torch.int32),
        "top_p": any_of([1.0, 1.0, 0.1, 0.5, 0.9, 0.99], torch.float32),
        "min_p": any_of([0.0, 0.0, 0.01, 0.05, 0.3], torch.float32),
        "seed": torch.randint(-(2**62), 2**62, (B,), generator=generator).to(DEVICE),
        "position": torch.randint(0, 2**40, (B,), generator=generator).to(DEVICE),
    }


def on_cpu(arguments, rows=slice(None)):
    return {n: x[rows].cpu() if isinstance(x, torch.Tensor) else x for n, x in arguments.items()}


def assert_equals_cpu(got, logits, arguments, context):
    """The result of `sample`, a named tuple, has the bits of the CPU's."""
    want = warpdraw.sample(logits.cpu(), **on_cpu(arguments))._asdict()
    found = {name: None if x is None else x.cpu() for name, x in got._asdict().items()}
    checks.assert_same(found, want, context)


# --------------------------------------------------------------------------------------------------------------------
# Bits.


@functools.cache
def cpu_of(name, V, dtype, case, repeats):
    """Inputs for an op and what the CPU makes of them."""
    inputs = inputs_of(OPS[name], V, dtype, seed=len(ORDERS) * V + case, repeats=repeats, wild=True)
    return inputs, checks.run(OPS[name], inputs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPS)
def test_every_path_equals_the_cpu(kernels, name, dtype):
    """All kinds of rows and parameters, absurd and invalid ones too."""
    for V in SIZES:
        for case in range(len(ORDERS)):
            inputs, want = cpu_of(name, V, dtype, case, 1 if V > 1000 else 3)
            with warpdraw.use(kernels):
                found = checks.run(OPS[name], inputs_on(DEVICE, inputs))
            checks.assert_same(found, want, f"V = {V}, case {case}")


@pytest.mark.parametrize("V", [32000, 128256, 262144])
@pytest.mark.parametrize("name", OPS)
def test_every_path_equals_the_cpu_on_large_vocabularies(kernels, name, V):
    for case in range(len(ORDERS)):
        inputs, want = cpu_of(name, V, DTYPES[case % len(DTYPES)], case, 1)
        with warpdraw.use(kernels):
            found = checks.run(OPS[name], inputs_on(DEVICE, inputs))
        checks.assert_same(found, want, f"case {case}")


@functools.cache
def cpu_of_some(only, V, dtype, seed, wild):
    inputs = inputs_of(OPS["sample"], V, dtype, seed, wild=wild, only=only)
    return inputs, checks.run(OPS["sample"], inputs)


@pytest.mark.parametrize("names", [*FEATURES, *((name, *others) for name, others in EDITS.items())], ids="+".join)
def test_features_equal_the_cpu(path, names):
    needed = ("history", "history_length", "bitmask", "bias", "bias_ids", "allowed_ids", "banned_ids", "stop_ids")
    also = needed if names[0] in EDITS else ()
    only = (*names, "temperature", "seed", "position", "order", *also, "top_n", "max_kept", "top_of")
    for V in (65, 700, 5003):
        for case in range(2 * len(ORDERS)):
            inputs, want = cpu_of_some(only, V, DTYPES[case % 3], case, False)
            with warpdraw.use(path):
                found = checks.run(OPS["sample"], inputs_on(DEVICE, inputs))
            checks.assert_same(found, want, f"V = {V}, case {case}")


AROUND = (1, 2, 3, 17, 63, 64, 65, 100, 128, 129, 192, 200, 257, 500, 512, 700, 1025, 2048, 4097, 9001)


@pytest.mark.parametrize("part", range(4))
def test_few_arguments_at_a_time_equal_the_cpu(path, part):
    for number in range(100 * part, 100 * (part + 1)):
        choose = random.Random(number)
        few = choose.sample(NAMES, choose.randint(1, 8))
        only = None if choose.random() < 0.3 else (*few, *(PARTNERS[n] for n in few if n in PARTNERS), "seed")
        inputs, want = cpu_of_some(only, choose.choice(AROUND), choose.choice(DTYPES), number, choose.random() < 0.4)
        with warpdraw.use(path):
            found = checks.run(OPS["sample"], inputs_on(DEVICE, inputs))
        checks.assert_same(found, want, f"number {number}")


REPORTS = {"logprob": True, "raw_logprob": True, "rank": True, "kept_count": True, "top_n": 20, "max_kept": 50}


@pytest.mark.parametrize("kind", ["random", "peaked", "flat", "adjacent", "one huge", "equal", "rising", "quantised"])
@pytest.mark.parametrize("V", [300_001, 1_048_576])
def test_one_long_row_equals_the_cpu(kernels, kind, V):
    row = rows_of((kind,), V, seed=4).to(DEVICE)
    history = row.topk(200).indices.int()
    for params in LONG:
        arguments = {"history": history, "seed": 7, **REPORTS, **params}
        with warpdraw.use(kernels):
            try:
                found = warpdraw.sample(row, **arguments)
            except ValueError as error:
                # A cluster keeps the row on chip, and not every row fits.
                if not kernels.endswith("cluster") or V < 1_000_000:
                    raise
                pytest.skip(str(error))
        assert_equals_cpu(found, row, arguments, f"{params}")


def test_the_shared_arithmetic_has_the_bits_of_the_cpu(kernels):
    """Weights of every 61st exponent from 0 down to -150, and exponentials of a million random words."""
    exponents = -torch.arange(0, 0x43160000, 61, dtype=torch.int32).view(torch.float32)
    exponents = exponents[: len(exponents) // 64 * 64]
    words = torch.randint(-(2**31), 2**31, exponents.shape, generator=torch.Generator().manual_seed(1))
    words = words.to(torch.int32)
    found = []
    for name, device in ((kernels, DEVICE), ("cpu", "cpu")):
        weights, exponentials = (torch.empty(exponents.shape, device=device) for _ in range(2))
        BACKENDS[name].module.numerics(exponents.to(device), words.to(device), weights, exponentials)
        found.append((weights.cpu(), exponentials.cpu()))
    for got, want in zip(*found, strict=True):
        assert torch.equal(got.view(torch.int32), want.view(torch.int32))


# How many rows of each vocabulary; together a million.
MILLION = {257: 300_000, 1000: 400_000, 4099: 200_000, 32000: 90_000, 128256: 10_000}
CHUNK_BYTES = 2**31 if ON_GPU else 2**22


@pytest.mark.parametrize("V", MILLION)
def test_a_million_rows_draw_the_tokens_of_the_cpu(kernels, V, threads):
    """What a GPU draws with by default draws for all of them, each forced path for a tenth."""
    threads(os.cpu_count() if ON_GPU else 1)
    rows = MILLION[V] if kernels in BY_DEFAULT else MILLION[V] // 10 if ON_GPU else MILLION[V] // 1000
    chunk = max(1, CHUNK_BYTES // (4 * V))
    for number, start in enumerate(range(0, rows, chunk)):
        B = min(chunk, rows - start)
        logits = normal(B, V, number, DTYPES[number % 2])
        arguments = mixed(B, number)
        with warpdraw.use(kernels):
            drawn = warpdraw.sample(logits, **arguments)
        assert_equals_cpu(drawn, logits, arguments, f"V = {V}, chunk {number}")


# --------------------------------------------------------------------------------------------------------------------
# Memory: strides, alignment, sizes.


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_alignment_and_row_stride(kernels, dtype):
    for V in (1, 63, 64, 1000, 4099):
        for offset in range(9):
            for gap in (0, 1, 3, 8):
                flat = normal(1, 5 * (V + gap) + offset, V + offset, dtype)[0]
                rows = flat.as_strided((5, V), (V + gap, 1), offset)
                with warpdraw.use(kernels):
                    found = warpdraw.sample(rows, **mixed(5, V))
                assert_equals_cpu(found, rows, mixed(5, V), f"V = {V}, offset {offset}, gap {gap}")


def test_one_row_stands_for_all(kernels):
    """A row stride of 0."""
    logits = normal(1, 3000).expand(300, -1)
    arguments = mixed(300)
    with warpdraw.use(kernels):
        assert_equals_cpu(warpdraw.sample(logits, **arguments), logits, arguments, "expanded")


@streams
@pytest.mark.parametrize("B", [16_500])
def test_more_than_2_31_elements(kernels, B):
    V = 131_072
    if torch.cuda.get_device_properties(DEVICE).total_memory < 24 * 2**30:
        pytest.skip("needs 24 GiB of GPU memory")
    logits = torch.empty(B, V, dtype=torch.bfloat16, device=DEVICE)
    assert logits.numel() > 2**31
    for start in range(0, B, 500):
        logits[start : start + 500] = normal(min(500, B - start), V, start, torch.bfloat16)
    arguments = mixed(B)
    some = [*range(20), *range(B // 2, B // 2 + 20), *range(B - 200, B)]
    narrow = logits[:, :1000]  # few elements, whose offsets are beyond 2^31 all the same
    with warpdraw.use(kernels):
        for rows in (logits, narrow):
            drawn = warpdraw.sample(rows, **arguments).tokens[some].cpu()
            assert torch.equal(drawn, warpdraw.sample(rows[some].cpu(), **on_cpu(arguments, some)).tokens)
        narrow_probabilities = warpdraw.softmax(narrow)[some].cpu()
    assert torch.equal(narrow_probabilities, warpdraw.softmax(narrow[some].cpu()))


def test_many_rows(kernels):
    """More rows than a grid's second dimension has places."""
    logits = normal(70_001 if ON_GPU else 71, 65)
    arguments = mixed(len(logits))
    with warpdraw.use(kernels):
        assert_equals_cpu(warpdraw.sample(logits, **arguments), logits, arguments, "many rows")


@pytest.mark.parametrize("name", OPS)
def test_no_rows(kernels, name):
    with warpdraw.use(kernels):
        result = OPS[name](**least(OPS[name], torch.empty(0, 100, device=DEVICE)))
    assert len(result[0] if isinstance(result, tuple) else result) == 0


@pytest.mark.parametrize("V", [150, 5003])
@pytest.mark.parametrize("name", OPS)
def test_rows_stand_alone(kernels, name, V):
    """Rows of NaN, inf and absurd parameters disturb no other, and a row's slot and company do not matter."""
    inputs = inputs_on(DEVICE, inputs_of(OPS[name], V, torch.float32, seed=5 * V, wild=True))
    B = batch_of(inputs)

    def of(rows):
        picked = {n: x[rows] if isinstance(x, torch.Tensor) else x for n, x in inputs.items()}
        with warpdraw.use(kernels):
            return checks.run(OPS[name], picked)

    together = of(list(range(B)))
    order = torch.randperm(B, generator=torch.Generator().manual_seed(V))
    checks.assert_same(of(order.tolist()), {n: x[order] for n, x in together.items()}, "shuffled")
    for row in range(B):
        checks.assert_same(of([row]), {n: x[row : row + 1] for n, x in together.items()}, f"row {row} alone")


def test_rows_without_a_candidate_are_reported(kernels):
    logits = normal(64, 2000)
    logits[::3] = torch.nan
    logits[1::3] = -INF
    with warpdraw.use(kernels):
        drawn = warpdraw.sample(logits, top_k=50, top_p=0.9)
    valid = torch.arange(64) % 3 == 2
    assert torch.equal(drawn.valid.cpu(), valid)
    assert torch.equal(drawn.tokens.cpu() == -1, ~valid)


@pytest.mark.parametrize("name", OPS)
def test_for_a_sanitizer(kernels, name):
    """A few small calls with everything on: what compute-sanitizer is run over, which slows kernels down a lot."""
    for V, dtype in ((65, torch.float16), (1000, torch.bfloat16), (5003, torch.float32)):
        for case in (0, 2):
            inputs, want = cpu_of(name, V, dtype, case, 1)
            with warpdraw.use(kernels):
                found = checks.run(OPS[name], inputs_on(DEVICE, inputs))
            checks.assert_same(found, want, f"V = {V}, case {case}")


# --------------------------------------------------------------------------------------------------------------------
# Streams, graphs and devices.


@pytest.mark.parametrize("name", OPS)
@streams
def test_the_forced_path_runs_and_no_other(kernels, name):
    inputs = least(OPS[name], normal(4, 5003))
    before = warpdraw.launches()
    with warpdraw.use(kernels):
        OPS[name](**inputs)
    ran = {key: n - before.get(key, 0) for key, n in warpdraw.launches().items() if n != before.get(key, 0)}
    assert list(ran.values()) == [1], ran
    (key,) = ran
    assert key.endswith(f".{name}")
    assert key.startswith("cuda") if kernels == "cuda" else key.startswith((f"{kernels}.", "cuda."))


@streams
@pytest.mark.parametrize("name", OPS)
def test_nothing_waits_for_the_device(kernels, name):
    inputs = inputs_on(DEVICE, inputs_of(OPS[name], 5003, torch.float32, seed=3))
    with warpdraw.use(kernels):
        OPS[name](**inputs)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            OPS[name](**inputs)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@streams
def test_the_current_stream_is_used(kernels):
    """What a stream computes late is seen by the call that follows on that stream."""
    values, arguments = normal(8, 50_000), mixed(8)
    want = warpdraw.sample(values.cpu(), **on_cpu(arguments)).tokens
    with warpdraw.use(kernels):
        warpdraw.sample(values, **arguments)  # loads the kernels
        logits = torch.zeros_like(values)
        torch.cuda.synchronize()
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            torch.cuda._sleep(100_000_000)
            logits.copy_(values)
            tokens = warpdraw.sample(logits, **arguments).tokens
            logits.zero_()
        stream.synchronize()
    assert torch.equal(tokens.cpu(), want)


@streams
def test_two_streams_at_once(kernels):
    """Their calls overlap, and share nothing."""
    cases = [(normal(B, V, V), mixed(B, V)) for B, V in ((3, 128256), (64, 32000), (1, 262144), (40, 5003))]
    wants = [warpdraw.sample(logits.cpu(), **on_cpu(arguments)).tokens for logits, arguments in cases]
    two = [torch.cuda.Stream() for _ in range(2)]
    torch.cuda.synchronize()
    drawn = []
    with warpdraw.use(kernels):
        for number in range(40):
            with torch.cuda.stream(two[number % 2]):
                logits, arguments = cases[number // 2 % len(cases)]
                drawn.append((number // 2 % len(cases), warpdraw.sample(logits, **arguments).tokens))
    torch.cuda.synchronize()
    for case, tokens in drawn:
        assert torch.equal(tokens.cpu(), wants[case])


@streams
@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize(("B", "V"), [(1, 128256), (64, 32000), (5, 5003)])
def test_a_graph_draws_anew_at_each_replay(kernels, B, V, everything):
    """The position advances inside the graph, and the history grows; each replay is the eager step."""
    logits = normal(B, V)
    inputs = mixed(B)
    history = warpdraw.TokenHistory([[1, 2, 3]] * B, vocab_size=V, capacity=40, device=DEVICE)
    start = inputs["position"].clone()
    more = {"repetition_penalty": 1.3, "presence_penalty": 0.5, **REPORTS} if everything else {}

    def step():
        result = warpdraw.sample(logits, **inputs, **(history.inputs if everything else {}), **more)
        history.append(result.tokens)
        inputs["position"].add_(1)
        return result

    def again():
        inputs["position"].copy_(start)
        history.lengths.fill_(3)

    with warpdraw.use(kernels):
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            step()
        side.synchronize()
        again()
        eager = [step().tokens.clone() for _ in range(20)]
        again()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = step()
        again()
        replayed = []
        for _ in range(20):
            graph.replay()
            replayed.append(result.tokens.clone())
    assert torch.equal(torch.stack(replayed), torch.stack(eager))
    hot = inputs["temperature"] > 0.9
    if hot.any() and not everything:
        assert (torch.stack(eager)[:, hot] != eager[0][hot]).any()


@streams
def test_graphs_and_eager_calls_take_turns(kernels):
    """A graph's own memory is not what eager calls use between its replays."""
    logits, other = normal(16, 128256), normal(64, 32000, 2)
    arguments, others = mixed(16), mixed(64)
    want = warpdraw.sample(logits.cpu(), **on_cpu(arguments)).tokens
    with warpdraw.use(kernels):
        warpdraw.sample(logits, **arguments)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = warpdraw.sample(logits, **arguments)
        for _ in range(10):
            result.tokens.fill_(-7)
            graph.replay()
            drawn = warpdraw.sample(other, **others)
            assert torch.equal(result.tokens.cpu(), want)
    assert_equals_cpu(drawn, other, others, "the eager call")


@streams
def test_a_device_that_is_not_the_current_one(kernels):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    logits = normal(4, 5003).to("cuda:1")
    arguments = {name: value.to("cuda:1") for name, value in mixed(4).items()}
    with warpdraw.use(kernels):
        drawn = warpdraw.sample(logits, **arguments)
    assert drawn.tokens.device == logits.device
    assert_equals_cpu(drawn, logits, arguments, "another device")
    assert torch.cuda.current_device() == 0


@streams
def test_tensors_on_different_devices_are_refused():
    logits = normal(4, 100)
    for name in ("temperature", "top_k", "seed"):
        value = mixed(4)[name].cpu()
        with pytest.raises(ValueError, match=name):
            warpdraw.sample(logits, **{name: value})
    with pytest.raises(ValueError, match="tokens"):
        warpdraw.sample(logits, tokens=torch.empty(4, dtype=torch.int64))


def test_logits_whose_last_axis_is_not_dense_are_refused(kernels):
    with pytest.raises((ValueError, TypeError), match="logits"), warpdraw.use(kernels):
        warpdraw.sample(normal(100, 4).t())


@streams
def test_a_compiled_caller_is_one_graph():
    def step(logits, position):
        return warpdraw.sample(logits.float() * 2, top_k=50, top_p=0.9, position=position).tokens + 0

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    logits = normal(4, 5003)
    for position in range(3):
        place = torch.full((4,), position, device=DEVICE)
        assert torch.equal(compiled(logits, place), step(logits, place))


@pytest.fixture(params=BY_DEFAULT)
def by_default(request):
    """Both in turn, with a compiler that has compiled nothing yet."""
    torch._dynamo.reset()
    yield _runnable(request.param)
    torch._dynamo.reset()


reduced_overhead = functools.partial(torch.compile, mode="reduce-overhead", fullgraph=True)
WARM = 3  # calls after which compiled code replays its graph


@streams
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch warns about its own modules
@pytest.mark.parametrize("name", OPS)
def test_compiled_with_reduced_overhead(by_default, name):
    """Graphs that the compiler captures: each replay reads its own logits and, of a draw, its own position."""
    op = OPS[name]
    takes_position = any(spec.name == "position" for spec in op.contract.inputs)
    rows = rows_spec(op).name

    def step(**inputs):
        return op(**{**inputs, rows: inputs[rows].float() / 2})

    compiled, first = reduced_overhead(step), []
    with warpdraw.use(by_default):
        for number in range(WARM + 4):
            inputs = least(op, normal(4, 5003, number // 2, torch.bfloat16))  # twice the same
            if takes_position:
                inputs["position"] = torch.full((4,), number, device=DEVICE)
            torch.compiler.cudagraph_mark_step_begin()
            before = warpdraw.launches()
            found = compiled(**inputs)
            replayed = warpdraw.launches() == before
            found = [x.clone() for x in (found if isinstance(found, tuple) else (found,)) if x is not None]
            want = step(**inputs)
            want = [x for x in (want if isinstance(want, tuple) else (want,)) if x is not None]
            for got, expected in zip(found, want, strict=True):
                assert same_bits(got, expected).all(), f"call {number}"
            assert replayed or number < WARM
            first.append(found[0])
    if op.contract.outputs[0].name == "tokens":
        assert all((first[number] != first[number + 1]).any() for number in range(0, WARM + 3, 2))


@streams
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_sampler_compiled_with_reduced_overhead(by_default):
    """Requests come and go between replays; positions and histories advance in them."""
    device, host = (warpdraw.Sampler(5003, 3, device=where) for where in (DEVICE, "cpu"))
    compiled = reduced_overhead(device)
    params = warpdraw.SamplingParams(seed=7, repetition_penalty=1.3, top_p=0.9)
    with warpdraw.use(by_default):
        for number in range(WARM + 5):
            for sampler in (device, host):
                if number in (0, WARM + 1):
                    sampler.add(params, [number])
                if number == WARM + 3:
                    sampler.remove(0)
            logits = normal(3, 5003, 1)
            torch.compiler.cudagraph_mark_step_begin()
            tokens = compiled(logits).tolist()
            with warpdraw.use("cpu"):
                assert tokens == host(logits.cpu()).tolist(), f"call {number}"


@streams
@pytest.mark.parametrize("name", OPS)
def test_exported_programs_run(by_default, name):
    class Head(torch.nn.Module):
        def forward(self, **inputs):
            return OPS[name](**inputs)

    inputs = least(OPS[name], normal(4, 5003))
    exported = torch.export.export(Head(), (), inputs).module()
    with warpdraw.use(by_default):
        before = warpdraw.launches()
        found, want = exported(**inputs), OPS[name](**inputs)
        ran = {key for key, count in warpdraw.launches().items() if count != before.get(key, 0)}
    assert all(key.startswith(by_default) for key in ran), ran
    for got, expected in zip(*(x if isinstance(x, tuple) else (x,) for x in (found, want)), strict=True):
        assert got is expected is None or same_bits(got, expected).all()


# --------------------------------------------------------------------------------------------------------------------
# Text.


@streams
@pytest.mark.parametrize(
    "params",
    [
        {"max_tokens": 60},
        {"max_tokens": 60, "temperature": 0.0},
        {"max_tokens": 90, "repetition_penalty": 1.2, "logprobs": 3, "kept": 4, "n": 3},
    ],
)
def test_decode_steps_run_as_graphs_and_draw_the_same(params):
    model = warpdraw.load("tiny-target", device=DEVICE)
    given = warpdraw.SamplingParams(seed=7, ignore_eos=True, **params)
    graphs, eager = (warpdraw.generate(model, ["The sky is", "A"], given, graphs=choice) for choice in (None, False))
    assert [each.token_ids for each in graphs] == [each.token_ids for each in eager]
    assert [each.kept for each in graphs] == [each.kept for each in eager]
    assert graphs.throughput.graph_steps > 0.8 * params["max_tokens"], graphs.throughput
    assert not [reason for reason in graphs.throughput.eager_steps if "cannot be captured" in reason]


@pytest.mark.parametrize("options", [(), ("--temperature", "0"), ("--n", "3", "--repetition-penalty", "1.2")])
def test_generate_writes_the_text_of_the_cpu(capsys, options):
    """In float32; a tie that the model's own rounding turns would be a difference, and has not been seen."""
    texts = []
    for device in ("cpu", DEVICE.type):
        arguments = ("The sky is", "The grass is", "--seed", "7", "--max-tokens", "24", "--device", device)
        assert main(["generate", *arguments, *options]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
