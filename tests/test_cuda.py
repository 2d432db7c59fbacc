"""The CUDA kernels on a simulated GPU give the scalar oracle's bits by both paths, in whatever order their threads run.

Needs a build with -DWARPDRAW_CUDA_HOST=ON. Run under AddressSanitizer and UndefinedBehaviorSanitizer too (.ci/run),
where WARPDRAW_BRIEF=1 leaves out part of the cases.
"""

import functools
import itertools
import os

import checks
import pytest
import torch
from cases import INF, KINDS, NAN, ORDERS, batch_of, inputs_of, least, rows_of, rows_spec
from conftest import BACKENDS
from test_parity import DTYPES, EDITS, FEATURES, SIZES, oracle, oracle_alone, oracle_of_few

import warpdraw
from warpdraw import _C
from warpdraw.backends import _BACKENDS, Backend, BackendError
from warpdraw.op import OPS

BRIEF = os.environ.get("WARPDRAW_BRIEF") == "1"
REPORTS = {"logprob": True, "raw_logprob": True, "rank": True, "kept_count": True}
FIBERS = ("forward", "reverse", "random:1", "random:2", "random:3")


def some(values, every=4):
    """All of them, or few where time is short."""
    return tuple(values)[::every] if BRIEF else tuple(values)


@pytest.fixture(params=FIBERS)
def fibers(request, monkeypatch):
    """The order in which simulated threads take turns."""
    monkeypatch.setenv("WARPDRAW_FIBERS", request.param)
    return request.param


def mixed(B, seed=0, tokens=torch.int64):
    """Greedy, unfiltered and filtered rows side by side."""
    row = torch.arange(B)
    return {
        "temperature": torch.tensor([0.7, 0.0, 1.0, 1.5])[row % 4],
        "top_k": torch.tensor([0, 50, 5, 0, 700], dtype=torch.int32)[row % 5],
        "top_p": torch.tensor([1.0, 0.9, 0.3])[row % 3],
        "min_p": torch.tensor([0.0, 0.0, 0.05, 0.0])[row // 2 % 4],
        "seed": row * 7919 + seed,
        "tokens": torch.zeros(B, dtype=tokens),
    }


def assert_same_draws(logits, **arguments):
    """What the backend in force draws and reports is what the oracle does."""
    found = warpdraw.sample(logits, **arguments, **REPORTS)._asdict()
    found["tokens"] = found["tokens"].clone()  # the next call may write into the same
    with warpdraw.use("scalar"):
        want = warpdraw.sample(logits, **arguments, **REPORTS)._asdict()
    checks.assert_same(found, want, {name: value for name, value in arguments.items() if name != "history"})


# --------------------------------------------------------------------------------------------------------------------
# Everything at once, a feature at a time, a few arguments at a time.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPS)
def test_both_paths_equal_the_oracle(simulated, name, dtype):
    """All kinds of rows and parameters, absurd and invalid ones too."""
    for V in some(SIZES, 2):
        for case in range(len(ORDERS)):
            inputs, want = oracle(name, V, dtype, case, repeats=1)
            checks.assert_same(checks.run(OPS[name], inputs), want, f"V = {V}, case {case}")


@pytest.mark.parametrize("names", [*FEATURES, *((name, *others) for name, others in EDITS.items())], ids="+".join)
def test_features_equal_the_oracle(simulated, names):
    for V in some((65, 700, 5003), 2):
        for case in some(range(len(ORDERS)), 2):
            inputs, want = oracle_alone(names, V, case)
            checks.assert_same(checks.run(OPS["sample"], inputs), want, f"V = {V}, case {case}")


@pytest.mark.parametrize("part", range(4))
def test_few_arguments_at_a_time_equal_the_oracle(simulated, part):
    for number in some(range(75 * part, 75 * (part + 1))):
        inputs, want = oracle_of_few(number)
        checks.assert_same(checks.run(OPS["sample"], inputs), want, f"number {number}")


@pytest.mark.parametrize("name", OPS)
def test_the_order_of_threads_does_not_matter(simulated, fibers, name):
    for V in (65, 1000, 5003):
        for case in some(range(len(ORDERS)), 2):
            inputs, want = oracle(name, V, DTYPES[case % 3], case, repeats=1)
            checks.assert_same(checks.run(OPS[name], inputs), want, f"V = {V}, case {case}")


def test_the_shared_arithmetic_equals_the_oracle(simulated):
    exponents = -torch.arange(0, 0x43160000, 25_000, dtype=torch.int32).view(torch.float32)
    words = torch.randint(-(2**31), 2**31, exponents.shape, generator=torch.Generator().manual_seed(1))
    found = []
    for name in (simulated, "scalar"):
        found.append([torch.zeros_like(exponents) for _ in range(2)])
        BACKENDS[name].module.numerics(exponents, words.to(torch.int32), *found[-1])
    for got, want in zip(*found, strict=True):
        assert torch.equal(got.view(torch.int32), want.view(torch.int32))


# --------------------------------------------------------------------------------------------------------------------
# Long rows, and rows that several blocks share.

LONG = {
    "greedy": {"temperature": 0.0},
    "unfiltered": {},
    "k": {"top_k": 50},
    "k of 600": {"top_k": 600},
    "k of 5000": {"top_k": 5000},
    "p": {"top_p": 0.9},
    "p of 0": {"top_p": 0.0},
    "nearly all of the mass": {"top_p": 0.999999, "temperature": 3.0},
    **{
        f"k, p, min-p in the order of {order}": {"top_k": 300, "top_p": 0.9, "min_p": 0.01, "order": order}
        for order in ORDERS
    },
    "typical": {"typical_p": 0.9},
    "cutoffs": {"eta": 1e-3, "xtc_probability": 1.0, "xtc_threshold": 0.01, "dynatemp_range": 0.5},
    "sigma": {"top_n_sigma": 1.0},
    "edits": {"top_k": 50, "top_p": 0.95},
}


@functools.cache
def long_case(name):
    """Rows of every kind at V = 32768 and what the CPU makes of them, which equals the oracle (test_parity.py)."""
    number = list(LONG).index(name)
    V, dtype = 32_768, DTYPES[number % 3]
    logits = rows_of(tuple(KINDS), V, seed=3).to(dtype)
    arguments = {**REPORTS, **LONG[name], "seed": torch.arange(len(logits)) * 7919 + number}
    arguments |= {"top_n": 700 if number % 3 else 20, "max_kept": 300, "top_of": ("raw", "filtered")[number % 2]}
    if name == "edits":
        arguments |= edits(logits)
    with warpdraw.use("cpu"):
        return logits, arguments, warpdraw.sample(logits, **arguments)._asdict()


def edits(logits):
    """Something of everything that changes a row, about its likely tokens."""
    B, V = logits.shape
    generator = torch.Generator().manual_seed(1)
    likely = logits.float().nan_to_num(nan=-INF).topk(100).indices.int()
    motif = likely[:, torch.arange(200) % 7]
    words = torch.randint(-(2**31), 2**31, (B, V // 32), generator=generator).to(torch.int32)
    return {
        "bitmask": words | torch.randint(-(2**31), 2**31, words.shape, generator=generator).to(torch.int32),
        "bias_ids": likely[:, 10:60],
        "bias": torch.randn(B, 50, generator=generator),
        "banned_ids": likely[:, 60:70],
        "history": torch.cat([likely, motif], 1).contiguous(),
        "repetition_penalty": 1.3,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.2,
        "dry_multiplier": 0.8,
        "dry_breakers": likely[:, 5:6].contiguous(),
        "no_repeat_ngram": 3,
    }


@pytest.mark.parametrize("name", LONG)
def test_long_rows_equal_the_cpu(simulated, name):
    logits, arguments, want = long_case(name)
    rows = list(range(len(logits)))[list(LONG).index(name) % 5 :: 5] if BRIEF else slice(None)

    def of_rows(values):
        return {key: x[rows] if isinstance(x, torch.Tensor) else x for key, x in values.items()}

    found = warpdraw.sample(logits[rows], **of_rows(arguments))._asdict()
    checks.assert_same(found, of_rows(want), name)


# V and how many blocks of a cluster share a row (cluster_for in rows.cuh), for a few rows or for many.
BLOCKS = {
    (500, 3): 1,
    (1000, 3): 2,
    (1500, 3): 4,
    (3000, 3): 8,
    (3000, 10): 8,
    (3000, 20): 4,
    (3000, 40): 2,
    (3000, 80): 1,
}


@pytest.mark.parametrize(("V", "B"), BLOCKS, ids=lambda number: str(number))
def test_rows_that_several_blocks_share(simulated, V, B):
    """The number of blocks follows from V and B and must not matter."""
    for dtype in DTYPES:
        logits = rows_of(("random", "flat", "tied", "lumpy", "masked", "rising"), V, seed=V + B).to(dtype)
        logits = logits[torch.arange(B) % 6]
        arguments = mixed(B, V)
        assert_same_draws(logits, **arguments, top_n=20, max_kept=200, top_of="filtered")
        history = logits.float().nan_to_num(nan=-INF).topk(30).indices.int()
        assert_same_draws(logits, **arguments, history=history, repetition_penalty=1.5, top_n=5)


def test_a_row_of_16_blocks(simulated):
    V = 300_001
    logits = rows_of(("random", "flat"), V, seed=2)
    assert_same_draws(logits, top_k=50, top_p=0.9, seed=torch.arange(2), top_n=5, max_kept=5)


def test_a_row_that_does_not_fit_a_cluster(simulated):
    """A million fp32 tokens are more than 16 blocks hold; the split path reads them where they are."""
    V = 1_048_576
    logits = rows_of(("random",), V, seed=2)
    if simulated == "cuda_host_cluster":
        with pytest.raises(
            ValueError, match=r"logits: expected rows that fit in the shared memory of a cluster.* 1048576;"
        ):
            warpdraw.sample(logits)
        logits = logits.bfloat16()  # half as many bytes do fit
    for arguments in ({"top_k": 50, "top_p": 0.9}, {"temperature": 0.0}):
        found = warpdraw.sample(logits, seed=3, logprob=True, **arguments)._asdict()
        with warpdraw.use("cpu"):
            want = warpdraw.sample(logits, seed=3, logprob=True, **arguments)._asdict()
        checks.assert_same(found, want, arguments)


# --------------------------------------------------------------------------------------------------------------------
# Memory and what calls have beside values.


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_alignment_and_row_stride(simulated, dtype):
    places = itertools.product((1, 63, 64, 200, 1100), range(9), (0, 1, 3, 8))
    for V, offset, gap in some(places, 5):
        flat = rows_of(("random",), 3 * (V + gap) + offset, seed=V + offset)[0].to(dtype)
        rows = flat.as_strided((3, V), (V + gap, 1), offset)
        assert_same_draws(rows, **mixed(3, offset))
        wide = torch.full((3, V + gap + offset), 7.0, dtype=dtype)
        filtered = warpdraw.filter_logits(rows, top_k=20, out=wide[:, offset : offset + V])
        with warpdraw.use("scalar"):
            assert torch.equal(filtered, warpdraw.filter_logits(rows, top_k=20))
        around = torch.cat([wide[:, :offset], wide[:, offset + V :]], 1)
        assert (around == 7).all()


def test_one_row_stands_for_all(simulated):
    logits = rows_of(("random",), 700, seed=1).expand(30, -1)
    assert_same_draws(logits, **mixed(30))


@pytest.mark.parametrize("V", [100, 5003])
@pytest.mark.parametrize("name", [name for name, op in OPS.items() if op.contract.outputs[0].sizes == ("B", "V")])
def test_logits_may_be_overwritten(simulated, name, V):
    for dtype in DTYPES if name == "filter_logits" else DTYPES[:1]:
        logits = rows_of(tuple(KINDS), V, seed=5).to(dtype)
        parameters = {"temperature": 0.8} | ({"top_k": 40, "top_p": 0.95} if name.startswith("filter") else {})
        with warpdraw.use("scalar"):
            want = OPS[name](logits, **parameters)
        assert OPS[name](logits, **parameters, out=logits).data_ptr() == logits.data_ptr()
        checks.assert_same({"out": logits}, {"out": want}, dtype)


def test_tokens_of_32_bits(simulated):
    logits = rows_of(tuple(KINDS), 700, seed=6)
    assert_same_draws(logits, **mixed(len(logits), tokens=torch.int32))


@pytest.mark.parametrize("name", OPS)
def test_no_rows(simulated, name):
    result = OPS[name](**least(OPS[name], torch.empty(0, 100)))
    assert len(result[0] if isinstance(result, tuple) else result) == 0


@pytest.mark.parametrize("name", OPS)
def test_the_path_that_ran_is_counted(simulated, name):
    before = warpdraw.launches()
    OPS[name](**least(OPS[name], torch.zeros(2, 1000)))
    changed = {key: count - before[key] for key, count in warpdraw.launches().items() if count != before[key]}
    assert changed == {f"{simulated}.{name}": 1}


@pytest.mark.parametrize("name", OPS)
def test_rows_of_nan_and_infinity_disturb_no_other(simulated, name):
    """Every other row is spoilt: the rest is as if it were alone, and so is a spoilt one."""
    inputs = inputs_of(OPS[name], 1500, torch.float32, seed=2, kinds=("random", "tied", "masked", "lumpy"), repeats=3)
    for row, value in enumerate((NAN, INF, -INF, NAN, INF, -INF)):
        inputs[rows_spec(OPS[name]).name][2 * row] = value
    together = checks.run(OPS[name], inputs)
    for row in range(batch_of(inputs)):
        alone = {key: x[row : row + 1] if isinstance(x, torch.Tensor) else x for key, x in inputs.items()}
        checks.assert_same(
            checks.run(OPS[name], alone), {key: x[row : row + 1] for key, x in together.items()}, f"row {row} alone"
        )


# --------------------------------------------------------------------------------------------------------------------
# What a tuner may ask for: other plans of one launch, and a shape whose warps read through rings of bulk copies.

# Cluster, resident, persistent. Three are enough where time is short; the last of them has most that can go wrong.
WISHES = list(itertools.product((1, 2, 8, 16), (0, 1), (0, 1)))


@pytest.fixture(params=["cuda_host_cluster", "ring"])
def shaped(request, monkeypatch):
    """The kernels of the usual shape and of one with rings, as the backend in force; wishes end with the test."""
    if not hasattr(_C, "cuda_host_ring"):
        pytest.skip("not built: a test build has the simulated GPU")
    monkeypatch.setitem(_BACKENDS, "ring", Backend("ring", True, "for this test", module=_C.cuda_host_ring))
    with warpdraw.use(request.param):
        yield request.param
    _C.wish()


@pytest.mark.parametrize("wish", WISHES[1::5] if BRIEF else WISHES, ids=str)
def test_plans_of_one_launch_give_the_same(shaped, wish, fibers):
    """More rows than clusters run at once, parts of tiles, rows of any address, some of them invalid."""
    for V, dtype in ((700, torch.float32), (5003, torch.bfloat16)):
        kinds = tuple(KINDS) if V == 700 else ("random", "masked", "flat", "+inf")
        logits = rows_of(kinds * -(-36 // len(kinds)), V, seed=4).to(dtype)
        B = len(logits)
        for sub in (logits, torch.cat([logits, logits[:, :3]], 1)[:, 1 : V + 1]) if V == 700 else (logits,):
            given = mixed(B) | {"logprob": True, "vocab_size": torch.where(torch.arange(B) % 5 == 0, V // 2, V).int()}
            given["temperature"][5:31:5] = NAN  # of rows with fewer whole tiles than those that follow
            with warpdraw.use("scalar"):
                want = warpdraw.sample(sub, **given)._asdict()
            want["tokens"] = want["tokens"].clone()
            _C.wish(*wish)
            checks.assert_same(warpdraw.sample(sub, **given)._asdict(), want, str(wish))
        _C.wish(*wish)
        got = warpdraw.softmax(logits, given["temperature"])
        _C.wish()
        with warpdraw.use("scalar"):
            checks.assert_same({"out": got}, {"out": warpdraw.softmax(logits, given["temperature"])}, str(wish))


def test_wishes_that_cannot_be_served_are_refused(shaped):
    logits = torch.zeros(2, 200_000)
    _C.wish(cluster=1, resident=1)
    with pytest.raises(ValueError, match="cluster: expected blocks of at most 232448 bytes of shared memory"):
        warpdraw.sample(logits)
    _C.wish(cluster=1, resident=0)
    assert warpdraw.sample(logits).valid.all()


def test_a_shape_may_be_split(shaped):
    """The path that a backend forces goes before a wish."""
    if shaped != "ring":
        with pytest.raises(ValueError, match="split: expected False beside cluster"):
            _C.wish(cluster=2, split=True)
    logits = rows_of(tuple(KINDS), 3000, seed=5)
    given = mixed(len(logits)) | {"logprob": True}
    _C.wish(split=True)
    got = warpdraw.sample(logits, **given)._asdict()
    with warpdraw.use("scalar"):
        checks.assert_same(got, warpdraw.sample(logits, **given)._asdict(), "split")


@pytest.mark.parametrize("wish", [{"cluster": 3}, {"cluster": 32}, {"resident": 2}, {"persistent": -2}], ids=str)
def test_wishes_name_what_they_expect(wish):
    (name,) = wish
    with pytest.raises(ValueError, match=f"{name}: expected .*, got {wish[name]}"):
        _C.wish(**wish)


def test_a_shape_for_tuning_says_what_it_lacks(shaped):
    if shaped == "ring":
        with pytest.raises(ValueError, match="sample: this shape of the kernels is there for tuning"):
            warpdraw.sample(torch.zeros(1, 10), top_n=3)
        with pytest.raises(BackendError, match="backend ring: it has no filter_logits"):
            warpdraw.filter_logits(torch.zeros(1, 10))
