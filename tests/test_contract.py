"""Contracts: an error names the argument, what it was and what is allowed; outputs go where they are asked to go."""

import collections

import numpy as np
import pytest
import torch
from cases import ORDERS, inputs_of, least, rows_of
from certificates import same_bits
from checks import assert_same, spread_row
from hypothesis import given, settings
from hypothesis import strategies as st

import warpdraw
from warpdraw.contract import Contract, SizeSpec, TensorSpec
from warpdraw.op import OPS

LOGITS = torch.tensor([[0.1, 0.2, 0.3, 0.4], [4.0, 3.0, 2.0, 1.0]])
FILTERING = [warpdraw.sample, warpdraw.filter_logits, warpdraw.filter_probs]
B, V = LOGITS.shape


def refuses(error, *words, op=warpdraw.sample, args=(LOGITS,), **kwargs):
    """The op raises this error, and every word is in its message."""
    with pytest.raises(error) as caught:
        op(*args, **kwargs)
    for word in words:
        assert word in str(caught.value), f"{word!r} is not in {str(caught.value)!r}"


# Logits.


PLAIN = {name: op for name, op in OPS.items() if op.contract.inputs[0].sizes == ("B", "V")}


@pytest.mark.parametrize("op", PLAIN.values(), ids=PLAIN)
def test_logits(op):
    refuses(TypeError, "logits", "float32 or float16 or bfloat16", "float64", op=op, args=(LOGITS.double(),))
    refuses(TypeError, "logits", "float32", "int64", op=op, args=(LOGITS.long(),))
    refuses(TypeError, "logits", "float32", "[B, V]", "[[1.0, 2.0]]", op=op, args=([[1.0, 2.0]],))
    refuses(TypeError, "logits", "[B, V]", "None", op=op, args=(None,))
    refuses(TypeError, "logits", "float32", "float64", op=op, args=(LOGITS.double().numpy(),))
    refuses(ValueError, "logits", "[B, V]", "[4]", op=op, args=(LOGITS[0],))
    refuses(ValueError, "logits", "[B, V]", "[1, 2, 4]", op=op, args=(LOGITS[None],))
    refuses(ValueError, "logits", "V of at least 1", "[2, 0]", op=op, args=(LOGITS[:, :0],))
    refuses(ValueError, "logits", "last axis", "[1, 2]", op=op, args=(LOGITS.contiguous().view(4, 2).t(),))
    refuses(ValueError, "logits", "last axis", "[4, 2]", op=op, args=(LOGITS[:, ::2],))
    refuses(TypeError, op.name, "missing", "logits", op=op, args=())


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_logits_on_other_devices(op):
    with pytest.raises((ValueError, RuntimeError), match=r"logits|tokens|meta"):
        op(**least(op, LOGITS.to("meta")))


def test_vocabularies_larger_than_the_sum_of_masses_allows_are_refused():
    row = torch.zeros(1, dtype=torch.bfloat16).expand(1, 1).as_strided((1, 1), (1, 1))
    assert warpdraw.sample(row).tokens.tolist() == [0]
    refuses(ValueError, "logits", "at most 4194304", "4194305", args=(torch.zeros(1, 2**22 + 1, dtype=torch.bfloat16),))


# Parameters.

NUMBERS = {
    "temperature": ("[0, inf)", [-0.1, float("nan"), float("inf"), 1e39]),
    "top_k": ("[0, 2147483647]", [-1, 2**31, 2**70]),
    "top_p": ("[0, 1]", [-0.1, 1.1, float("nan"), 2]),
    "min_p": ("[0, 1]", [-1, 1.0001, float("nan"), float("inf")]),
    "seed": ("[-9223372036854775808, 9223372036854775807]", [2**63, -(2**63) - 1, 2**100]),
    "position": ("[-9223372036854775808, 9223372036854775807]", [2**63]),
    "dynatemp_range": ("[0, inf)", [-0.1, float("nan"), float("inf")]),
    "dynatemp_exponent": ("[0, inf)", [-0.1, float("nan"), float("inf")]),
    "top_n_sigma": ("[0, inf)", [-0.1, float("nan"), float("inf")]),
    "typical_p": ("[0, 1]", [-0.1, 1.1, float("nan")]),
    "epsilon": ("[0, 1]", [-0.1, 1.1, float("nan")]),
    "eta": ("[0, 1]", [-0.1, 1.1, float("nan")]),
    "xtc_probability": ("[0, 1]", [-0.1, 1.1, float("nan")]),
    "xtc_threshold": ("[0, 1]", [-0.1, 1.1, float("nan")]),
    "repetition_penalty": ("(0, inf)", [0, 0.0, -1.0, float("nan"), float("inf")]),
    "frequency_penalty": ("(-inf, inf)", [float("nan"), float("inf"), float("-inf")]),
    "presence_penalty": ("(-inf, inf)", [float("nan"), float("inf"), float("-inf")]),
    "dry_multiplier": ("[0, inf)", [-0.1, float("nan"), float("inf")]),
    "dry_base": ("[1, inf)", [0.9, float("nan"), float("inf")]),
    "dry_allowed_length": ("[1, 2147483647]", [0, -1, 2**31]),
    "no_repeat_ngram": ("[0, 2147483647]", [-1, 2**31]),
    "min_tokens": ("[0, 2147483647]", [-1, 2**31]),
    "prompt_length": ("[0, 2147483647]", [-1, 2**31]),
    "vocab_size": ("[0, V] with V = 4", [-1, 5]),
}
PARAMETERS = {
    spec.name: spec
    for spec in warpdraw.sample.contract.inputs
    if isinstance(spec, TensorSpec) and spec.default is not None
}


def test_every_parameter_is_tried():
    assert set(NUMBERS) == set(PARAMETERS)


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_outside_their_range(name):
    allowed, values = NUMBERS[name]
    for value in values:
        refuses(ValueError, name, allowed, repr(value), **{name: value})


@pytest.mark.parametrize("name", NUMBERS)
def test_parameters_of_the_wrong_type(name):
    (dtype,) = PARAMETERS[name].dtype_names
    integer = dtype.startswith("int")
    kind = "int" if integer else "number"
    for value in (True, False, "1", None, [1, 2], *([1.0, 1.5] if integer else [])):
        refuses(TypeError, name, kind, "[B]", dtype, repr(value), **{name: value})
    refuses(TypeError, name, kind, "1j", **{name: 1j})
    wrong = torch.ones(B, dtype=torch.float64)
    refuses(TypeError, name, dtype, "float64", **{name: wrong})
    refuses(TypeError, name, dtype, "bool", **{name: wrong.bool()})
    refuses(
        TypeError,
        name,
        dtype,
        "int16" if integer else "float16",
        **{name: wrong.to(torch.int16 if integer else torch.half)},
    )


@pytest.mark.parametrize("name", NUMBERS)
def test_parameter_tensors_of_the_wrong_shape_or_place(name):
    (dtype,) = PARAMETERS[name].dtypes
    one = torch.ones(1, dtype=dtype)
    refuses(ValueError, name, "[B]", "B = 2", "[3]", **{name: one.expand(3)})
    refuses(ValueError, name, "[B]", "[]", **{name: one[0]})
    refuses(ValueError, name, "[B]", "[2, 1]", **{name: one.expand(2, 1)})
    with pytest.raises((ValueError, RuntimeError), match=name):
        warpdraw.sample(LOGITS, **{name: one.expand(2).to("meta")})


def test_numbers_that_are_taken():
    """Whole numbers for fractions, numpy's numbers, the ends of the ranges."""
    params = {"temperature": 2, "top_k": np.int64(3), "top_p": np.float32(0.5), "min_p": np.float64(0.1)}
    same = {"temperature": 2.0, "top_k": 3, "top_p": 0.5, "min_p": 0.1}
    assert torch.equal(warpdraw.filter_probs(LOGITS, **params), warpdraw.filter_probs(LOGITS, **same))
    for seed in (-(2**63), 2**63 - 1, np.uint32(7)):
        assert warpdraw.sample(LOGITS, seed=seed, position=seed).valid.all()
    warpdraw.sample(LOGITS, temperature=0, top_k=2**31 - 1, top_p=0, min_p=1)
    warpdraw.sample(LOGITS, temperature=3.4e38, top_k=0, top_p=1, min_p=0)


# Lists, masks and histories.

LISTS = {"allowed_ids": "A", "banned_ids": "D", "stop_ids": "S", "bias_ids": "C", "history": "H", "dry_breakers": "E"}


@pytest.mark.parametrize("name", LISTS)
def test_lists_of_ids(name):
    good, shape = torch.zeros(B, 3, dtype=torch.int32), f"[B, {LISTS[name]}]"
    for op in FILTERING:
        refuses(TypeError, name, shape, "int32", "[1, 2]", op=op, **{name: [1, 2]})
        refuses(TypeError, name, "int32", "int64", op=op, **{name: good.long()})
        refuses(ValueError, name, shape, "B = 2", "[3, 3]", op=op, **{name: good[:1].expand(3, -1)})
        refuses(ValueError, name, shape, "[3]", op=op, **{name: good[0]})
        refuses(ValueError, name, f"{LISTS[name]} of at least 1", "[2, 0]", op=op, **{name: good[:, :0]})
        refuses(ValueError, name, "last axis", op=op, **{name: good.t().contiguous().t()})
    with pytest.raises((ValueError, RuntimeError), match=name):
        warpdraw.sample(LOGITS, **{name: good.to("meta")})


def test_partners_come_together():
    ids, bias = torch.zeros(B, 3, dtype=torch.int32), torch.zeros(B, 3)
    for op in FILTERING:
        refuses(ValueError, "bias_ids", "together with bias", "None", op=op, bias=bias)
        refuses(ValueError, "bias", "together with bias_ids", "None", op=op, bias_ids=ids)
        refuses(ValueError, "bias", "C = 3", "[2, 2]", op=op, bias_ids=ids, bias=bias[:, :2])
        refuses(TypeError, "bias", "float32", "float16", op=op, bias_ids=ids, bias=bias.half())
        refuses(ValueError, "history", "together with history_length", op=op, history_length=ids[:, 0])
        refuses(TypeError, "history_length", "int32", "3", op=op, history=ids, history_length=3)
        refuses(ValueError, "history_length", "[B]", "[2, 3]", op=op, history=ids, history_length=ids)
    assert warpdraw.sample(LOGITS, bias=None, bias_ids=None, history=None, bitmask=None).valid.all()


def test_the_width_of_a_bitmask():
    logits, words = torch.zeros(B, 70), torch.full((B, 4), -1, dtype=torch.int32)
    for op in FILTERING:
        for width in (1, 2, 4):
            refuses(
                ValueError, "bitmask", "W = 3 words", f"W = {width}", op=op, args=(logits,), bitmask=words[:, :width]
            )
        small = {"args": (logits,), "vocab_size": 64, "op": op}
        refuses(ValueError, "bitmask", "W = 1", **small, bitmask=words[:, :1])
        refuses(TypeError, "bitmask", "int32", "int64", **small, bitmask=words[:, :2].long())
        for width in (2, 3):
            assert op(logits, bitmask=words[:, :width], vocab_size=64) is not None
        entries = torch.tensor([64, 65], dtype=torch.int32)
        assert op(logits, bitmask=words[:, :2], vocab_size=entries) is not None
    assert warpdraw.sample(logits, bitmask=words[:, :2], vocab_size=entries).valid.tolist() == [True, False]


def test_sizes_of_reports():
    for name, list_name, letter in (("top_n", "top_ids", "N"), ("max_kept", "kept_ids", "M")):
        for value in (-1, 5, 2**40, 2**70):
            refuses(ValueError, name, "[0, V] with V = 4", repr(value), **{name: value})
        for value in (1.0, "2", None, True, [1], torch.zeros(B)):
            refuses(TypeError, name, "int", **{name: value})
        refuses(ValueError, list_name, f"{letter} of at least 1", **{list_name: True})
        refuses(ValueError, list_name, f"{letter} = 2", "[2, 3]", **{name: 2, list_name: torch.zeros(2, 3).int()})
        refuses(TypeError, list_name, "int32", "int64", **{name: 2, list_name: torch.zeros(2, 2).long()})
        assert getattr(warpdraw.sample(LOGITS, **{name: 0}), list_name) is None
        assert getattr(warpdraw.sample(LOGITS, **{name: 4}), list_name).shape == (2, 4)
        assert getattr(warpdraw.sample(LOGITS, **{name: np.int64(3)}), list_name).shape == (2, 3)
        assert getattr(warpdraw.sample(LOGITS, **{name: 2, list_name: False}), list_name) is None
        buffer = torch.full((2, 2), -9, dtype=torch.int32)
        assert getattr(warpdraw.sample(LOGITS, **{name: 2, list_name: buffer}), list_name) is buffer
        assert (buffer >= 0).all()
    for value in ("kept", "", None, 0):
        refuses(ValueError, "top_of", "'raw', 'filtered'", repr(value), top_of=value)
    for name in ("rank", "kept_count"):
        refuses(TypeError, name, "int32", "int64", **{name: torch.zeros(B, dtype=torch.int64)})
    refuses(TypeError, "filter_logits", "top_n", op=warpdraw.filter_logits, top_n=2)


@pytest.mark.parametrize("op", FILTERING, ids=lambda op: op.name)
def test_order(op):
    for value in ("llama", "VLLM", "", None, 0, b"hf"):
        refuses(ValueError, "order", "'vllm', 'hf', 'flashinfer-joint', 'llama.cpp'", repr(value), op=op, order=value)
    tensors = [spec.default for spec in op.contract.inputs[1:] if isinstance(spec, TensorSpec)]
    refuses(TypeError, "at most", op=op, args=(LOGITS, *tensors, "hf"))


def test_arguments_too_many_unknown_or_twice():
    refuses(TypeError, "sample", "at most 34 positional", "got 36", args=(LOGITS, 1.0, 0, 1.0, *[None] * 32))
    refuses(TypeError, "softmax", "at most 2 positional", "got 3", op=warpdraw.softmax, args=(LOGITS, 1.0, 2))
    refuses(TypeError, "sample", "'topk'", "top_k", topk=3)
    refuses(TypeError, "softmax", "'top_k'", "temperature", op=warpdraw.softmax, top_k=3)
    refuses(TypeError, "sample", "temperature", "twice", args=(LOGITS, 1.0), temperature=1.0)
    refuses(TypeError, "sample", "logits", "twice", logits=LOGITS)


def test_names_work_whether_or_not_python_interned_them():
    name = "".join(["temper", "ature"])
    assert torch.equal(warpdraw.softmax(LOGITS, **{name: 2.0}), warpdraw.softmax(LOGITS, temperature=2.0))


# Outputs.


def test_output_buffers_of_the_wrong_kind():
    refuses(TypeError, "tokens", "int64 or int32", "float32", tokens=torch.zeros(B))
    refuses(ValueError, "tokens", "[B]", "B = 2", "[3]", tokens=torch.zeros(3, dtype=torch.int64))
    refuses(ValueError, "tokens", "[B]", "[2, 1]", tokens=torch.zeros(2, 1, dtype=torch.int64))
    refuses(TypeError, "valid", "bool", "int64", valid=torch.zeros(B, dtype=torch.int64))
    refuses(TypeError, "logprob", "float32", "float64", logprob=torch.zeros(B).double())
    refuses(TypeError, "raw_logprob", "True, False", "3", raw_logprob=3)
    for value in (False, None, 1, "yes"):
        refuses(TypeError, "tokens", "True", repr(value), tokens=value)
    refuses(TypeError, "out", "True", "False", op=warpdraw.softmax, out=False)
    refuses(TypeError, "out", "float32", "bfloat16", op=warpdraw.softmax, out=LOGITS.bfloat16())
    refuses(
        TypeError,
        "out",
        "bfloat16",
        "float32",
        op=warpdraw.filter_logits,
        args=(LOGITS.bfloat16(),),
        out=LOGITS.clone(),
    )
    refuses(ValueError, "out", "V = 4", "[2, 5]", op=warpdraw.softmax, out=torch.zeros(2, 5))
    refuses(ValueError, "out", "last axis", op=warpdraw.softmax, out=torch.zeros(4, 2).t())
    with pytest.raises((ValueError, RuntimeError), match="out"):
        warpdraw.softmax(LOGITS, out=LOGITS.to("meta"))


def test_a_refused_call_writes_nothing():
    out = torch.full((B, V), 5.0)
    refuses(ValueError, "temperature", op=warpdraw.softmax, temperature=-1.0, out=out)
    tokens = torch.full((B,), 7)
    refuses(TypeError, "logprob", tokens=tokens, logprob="no")
    assert (out == 5).all()
    assert (tokens == 7).all()


def test_outputs_are_written_in_place(backend):
    tokens, valid = torch.full((B,), -7, dtype=torch.int32), torch.zeros(B, dtype=torch.bool)
    logprob = torch.zeros(B)
    result = warpdraw.sample(LOGITS, seed=3, tokens=tokens, valid=valid, logprob=logprob)
    assert result.tokens is tokens
    assert result.valid is valid
    assert result.logprob is logprob
    assert result.raw_logprob is None
    fresh = warpdraw.sample(LOGITS, seed=3, logprob=True, raw_logprob=True)
    assert fresh.tokens.dtype == torch.int64
    assert fresh.tokens.tolist() == tokens.tolist()
    assert valid.all()
    assert torch.equal(fresh.logprob, logprob)
    for op in (warpdraw.softmax, warpdraw.log_softmax, warpdraw.filter_logits, warpdraw.filter_probs):
        out = torch.full((B + 1, V + 3), 9.0)
        assert op(LOGITS, out=out[:B, :V]).data_ptr() == out.data_ptr()
        assert torch.equal(out[:B, :V], op(LOGITS))
        assert (out[B] == 9).all()
        assert (out[:, V:] == 9).all()


def test_rows_without_a_candidate_in_int32_buffers(backend):
    tokens = torch.zeros(2, dtype=torch.int32)
    warpdraw.sample(torch.tensor([[float("nan")], [1.0]]), tokens=tokens)
    assert tokens.tolist() == [-1, 0]


def test_logits_may_be_overwritten(backend):
    for op in (warpdraw.softmax, warpdraw.log_softmax, warpdraw.filter_probs, warpdraw.filter_logits):
        logits = rows_of(("random", "tied", "masked", "+inf"), 333, seed=3)
        params = {"top_k": 200, "top_p": 0.9} if op in FILTERING else {"temperature": 0.7}
        want = op(logits, **params)
        assert torch.equal(op(logits, **params, out=logits), want)


def test_results_are_named_tuples():
    result = warpdraw.sample(LOGITS, logprob=True)
    names = "tokens valid logprob raw_logprob rank kept_count kept_ids top_ids top_logprobs"
    assert result._fields == tuple(names.split())
    assert result[0] is result.tokens
    assert isinstance(warpdraw.softmax(LOGITS), torch.Tensor)


def test_inputs_stay_as_they_are(backend):
    for op in OPS.values():
        inputs = inputs_of(op, 130, torch.float32, seed=5)
        copies = {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in inputs.items()}
        op(**inputs)
        for name, value in copies.items():
            if isinstance(value, torch.Tensor):
                assert same_bits(inputs[name], value).all()


# Shapes that are empty, long or far apart.


def test_no_rows_with_parameter_tensors(backend):
    for op in OPS.values():
        inputs = inputs_of(op, 10, torch.bfloat16, seed=0)
        empty = {name: value[:0] if isinstance(value, torch.Tensor) else value for name, value in inputs.items()}
        result = op(**empty)
        for output in result if isinstance(result, tuple) else (result,):
            assert output is None or output.shape[0] == 0


def test_more_than_two_to_the_31_logits(threads):
    """A stored row seen as 17,000 rows of 128,256: every row is drawn, the last one too."""
    threads(2)
    row = spread_row(128_256, seed=1).bfloat16()
    rows = row.expand(17_000, -1)
    assert rows.numel() > 2**31
    position = torch.arange(17_000)
    drawn = warpdraw.sample(rows, top_k=50, position=position)
    assert drawn.valid.all()
    assert (drawn.tokens >= 0).all()
    assert torch.equal(drawn.tokens[-3:], warpdraw.sample(rows[:3], top_k=50, position=position[-3:]).tokens)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_that_lie_more_than_two_to_the_31_elements_apart(native, tmp_path, dtype):
    """In a file with holes: three short rows take three pages."""

    def far_apart(name, dtype):
        storage = torch.from_file(str(tmp_path / name), shared=True, size=2**31 + 1000, dtype=dtype)
        return storage.as_strided((3, 500), (2**30, 1))

    values = rows_of(("random",) * 3, 500, seed=6).to(dtype)
    rows = far_apart("logits", dtype).copy_(values)
    params = {"top_k": 20, "top_p": 0.9}
    assert torch.equal(warpdraw.sample(rows, **params).tokens, warpdraw.sample(values, **params).tokens)
    want = warpdraw.filter_probs(values, **params)
    assert torch.equal(warpdraw.filter_probs(rows, **params, out=far_apart("probs", torch.float32)), want)


# Any shapes and parameters: the CPU kernels equal the oracle.

finite = {"allow_nan": False, "allow_infinity": False}
parameters = st.fixed_dictionaries(
    {
        "temperature": st.one_of(st.just(0.0), st.floats(0, 3, width=32), st.floats(0, 2.0**127, width=32)),
        "top_k": st.one_of(st.integers(0, 12), st.integers(0, 2**31 - 1)),
        "top_p": st.one_of(st.just(1.0), st.floats(0, 1, width=32)),
        "min_p": st.one_of(st.just(0.0), st.floats(0, 1, width=32)),
        "order": st.sampled_from(ORDERS),
    }
)
rows = st.lists(
    st.one_of(
        st.floats(-20, 20, width=16),
        st.floats(width=32),
        st.sampled_from([0.0, 1.0, float("inf"), float("-inf"), float("nan")]),
    ),
    min_size=1,
    max_size=150,
)


@settings(max_examples=300)
@given(
    row=rows, params=parameters, seed=st.integers(-(2**63), 2**63 - 1), dtype=st.sampled_from(["float32", "bfloat16"])
)
def test_any_row(row, params, seed, dtype):
    logits = torch.tensor([row, row[::-1]]).to(getattr(torch, dtype))
    results = {}
    for name in ("cpu", "scalar"):
        with warpdraw.use(name):
            drawn = warpdraw.sample(logits, **params, seed=seed, position=seed, logprob=True, raw_logprob=True)
            results[name] = {**drawn._asdict(), "logits": warpdraw.filter_logits(logits, **params)}
            results[name]["probs"] = warpdraw.filter_probs(logits, **params)
    assert_same(results["cpu"], results["scalar"], params)


@settings(max_examples=100)
@given(
    data=st.data(),
    shape=st.tuples(st.integers(0, 5), st.integers(1, 300)),
    padding=st.integers(0, 9),
    offset=st.integers(0, 9),
)
def test_any_shape_stride_and_offset(data, shape, padding, offset):
    rows, V = shape
    storage = torch.randn(offset + rows * (V + padding) + 1, generator=torch.Generator().manual_seed(V))
    logits = storage.as_strided((rows, V), (V + padding, 1), offset)
    op = OPS[data.draw(st.sampled_from(sorted(OPS)))]
    out = op(**least(op, logits))
    with warpdraw.use("scalar"):
        want = op(**least(op, logits.contiguous()))
    for found, expected in zip(*(x if isinstance(x, tuple) else (x,) for x in (out, want)), strict=True):
        assert found is expected is None or torch.equal(found, expected)


# The grammar.


def test_contracts_are_parsed():
    contract = Contract.parse(
        "a: float[B V], b: i32[B W]?, c: f32[B] = 1.0 in (0, 2], d: x|y|z = y -> e: a.dtype[B], f: i64|i32[B]?"
    )
    a, b, c, d = contract.inputs
    e, f = contract.outputs
    assert (a.dtypes, a.sizes, a.optional) == ((torch.float32, torch.float16, torch.bfloat16), ("B", "V"), False)
    assert (b.dtypes, b.sizes, b.optional, b.default) == ((torch.int32,), ("B", "W"), True, None)
    assert (c.default, c.range_text, c.high) == (1.0, "(0, 2]", 2.0)
    assert 0 < c.low < 1e-40
    assert (d.choices, d.default) == (("x", "y", "z"), "y")
    assert (e.same_dtype_as, e.optional) == ("a", False)
    assert (f.dtypes, f.optional) == ((torch.int64, torch.int32), True)


def test_sizes_partners_and_ends_that_are_sizes_are_parsed():
    contract = Contract.parse(
        "a: float[B V], b: i32[B] = 0 in [0, V], c: i32[B b/32]?, d: i32[B C]? with e, e: f32[B C]? with d,"
        " n: N = 0 in [0, V], w: x|y = y -> f: i32[B N]?"
    )
    a, b, c, d, e, n, w = contract.inputs
    assert (b.high_size, b.low, b.default, a.high_size) == ("V", 0, 0, None)
    assert (c.sizes, c.optional, c.partner) == (("B", "b/32"), True, None)
    assert (d.partner, e.partner) == ("e", "d")
    assert isinstance(n, SizeSpec)
    assert (n.name, n.letter, n.default, n.high_size) == ("n", "N", 0, "V")
    assert w.default == "y"
    assert contract.outputs[0].sizes == ("B", "N")


@pytest.mark.parametrize("text", ["a float[B]", "a: f32[B],b: f32[B]", "a: f32[B]; b: f32[B]"])
def test_contracts_that_cannot_be_read(text):
    with pytest.raises(ValueError, match="contract"):
        Contract.parse(f"{text} -> out: f32[B]")


def test_every_op_says_its_contract_in_its_documentation_and_signature():
    import inspect

    for name, op in OPS.items():
        assert op.contract.text in op.__doc__
        names = [spec.name for spec in (*op.contract.inputs, *op.contract.outputs)]
        assert list(inspect.signature(op).parameters) == names
        assert collections.Counter(names).most_common(1)[0][1] == 1
        assert name in repr(op)
