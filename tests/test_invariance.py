"""A token depends on its row's logits, parameters, seed and position alone: equality over 101,000 rows.

Not on the batch, the slot in it, the other rows, the number of threads, the instruction set, or fp32 against bf16.
"""

import functools
import threading

import checks
import pytest
import torch
from cases import NAN, ORDERS, rows_of
from conftest import BACKENDS, VECTOR

import warpdraw

# Vocabulary size: how many rows of it. 101,000 in all.
ROWS = {257: 60_000, 700: 30_000, 2003: 10_940, 128256: 60}
NUMBER = {V: index for index, V in enumerate(ROWS)}


@functools.cache
def case(V):
    """Rows that bf16 holds exactly, a parameter set each, and the tokens that one big batch on one thread gives."""
    generator = torch.Generator().manual_seed(V)
    count = ROWS[V]
    logits = torch.randn(count, V, generator=generator).mul_(2).bfloat16()
    pick = torch.randint(0, 6, (4, count), generator=generator)
    params = {
        "temperature": torch.tensor([0.0, 0.3, 0.7, 1.0, 1.0, 1.8])[pick[0]],
        "top_k": torch.tensor([0, 0, 1, 20, 50, 300], dtype=torch.int32)[pick[1]],
        "top_p": torch.tensor([0.3, 0.8, 0.95, 1.0, 1.0, 1.0])[pick[2]],
        "min_p": torch.tensor([0.0, 0.0, 0.0, 0.01, 0.05, 0.2])[pick[3]],
        "seed": torch.randint(-(2**63), 2**63 - 1, (count,), generator=generator),
        "position": torch.randint(0, 2**40, (count,), generator=generator),
    }
    if V in (700, 2003):
        params |= features(logits, generator)
    inputs = {"logits": logits, **params}
    return inputs, draw(inputs, V)


def features(logits, g):
    """The rest of what a row may ask for: about half of the rows each."""
    count, V = logits.shape

    def some(choices):
        return torch.tensor(choices)[torch.randint(0, len(choices), (count,), generator=g)]

    likely = logits[:, :50].float().topk(6, -1).indices
    history = likely.gather(-1, torch.randint(0, 6, (count, 24), generator=g)).int()
    return {
        "top_n_sigma": some([0.0, 0.0, 2.0]), "typical_p": some([1.0, 1.0, 0.9]), "eta": some([0.0, 0.0, 1e-3]),
        "xtc_probability": some([0.0, 0.5]), "xtc_threshold": some([0.01, 0.1]), "dynatemp_range": some([0.0, 0.4]),
        "history": history, "history_length": torch.randint(0, 25, (count,), generator=g, dtype=torch.int32),
        "repetition_penalty": some([1.0, 1.2]), "frequency_penalty": some([0.0, 0.2]),
        "dry_multiplier": some([0.0, 0.8]), "no_repeat_ngram": some([0, 3]).int(),
        "bitmask": torch.full((count, (V + 31) // 32), -5, dtype=torch.int32),
        "banned_ids": likely[:, :1].int(), "bias_ids": likely[:, 1:3].int(),
        "bias": some([0.5, -1.0])[:, None].repeat(1, 2),
        "vocab_size": some([0, V - 3]).int(),
    }  # fmt: skip


def draw(inputs, V):
    """All outputs of sample for a batch; every vocabulary size has an order of its own."""
    reports = {"logprob": True, "rank": True, "kept_count": True, "top_n": 2, "top_of": "filtered"}
    result = warpdraw.sample(**inputs, order=ORDERS[NUMBER[V]], **reports)
    lists = [*result.top_ids.unbind(-1), *result.top_logprobs.unbind(-1)]
    return torch.stack([x.double() for x in (result.tokens, result.logprob, result.rank, result.kept_count, *lists)])


def some(inputs, rows):
    return {name: value[rows] for name, value in inputs.items()}


@pytest.mark.parametrize("V", ROWS)
def test_batches_of_1_7_and_64_in_any_slot(V):
    inputs, expected = case(V)
    count = ROWS[V]
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(1))
    for size in (1, 7, 64):
        order = torch.arange(count) if size == 1 else shuffled
        mixed = inputs if size == 1 else some(inputs, shuffled)
        found = [draw(some(mixed, slice(begin, begin + size)), V) for begin in range(0, count, size)]
        assert torch.equal(torch.cat(found, -1), expected[:, order])


@pytest.mark.parametrize("V", ROWS)
def test_one_and_two_threads(threads, V):
    inputs, expected = case(V)
    threads(2)
    assert torch.equal(draw(inputs, V), expected)


@pytest.mark.parametrize("V", ROWS)
def test_fp32_and_bf16(V):
    inputs, expected = case(V)
    logits = inputs["logits"].float()
    assert torch.equal(logits.bfloat16(), inputs["logits"])
    assert torch.equal(draw({**inputs, "logits": logits}, V), expected)


@pytest.mark.parametrize("V", ROWS)
def test_every_instruction_set(threads, vector, V):
    """The scalar oracle takes part too, on a slice: sorting every row in full is slow."""
    threads(2)
    inputs, expected = case(V)
    with warpdraw.use(vector):
        assert torch.equal(draw(inputs, V), expected)
    part = slice(0, 1500 if V < 10_000 else 10)
    with warpdraw.use("scalar"):
        assert torch.equal(draw(some(inputs, part), V), expected[:, part])


def test_every_instruction_set_of_this_machine_takes_part():
    assert sum(ROWS.values()) >= 100_000
    assert [name for name in VECTOR if BACKENDS[name].available]


def test_flushed_subnormals_change_nothing(threads):
    """torch.set_flush_denormal changes the arithmetic of the calling thread, not the draw, and stays as it was set."""
    inputs, expected = case(257)
    tiny, temperature = torch.tensor([[0.0, 1e-40, 2e-40, 3e-40]]), torch.tensor([1e-40])
    before = warpdraw.softmax(tiny, temperature)
    assert before[0, 0] < before[0, 3]
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormals")
    try:
        for count in (1, 2):
            threads(count)
            assert torch.equal(draw(inputs, 257), expected)
            assert torch.equal(warpdraw.softmax(tiny, temperature), before)
        assert (temperature * 1.0).item() == 0.0
    finally:
        torch.set_flush_denormal(False)
    assert torch.equal(draw(inputs, 257), expected)


@pytest.mark.parametrize("other", [NAN, float("inf"), float("-inf"), 1e30])
def test_bad_neighbours_change_nothing(other):
    inputs, expected = case(257)
    inputs = some(inputs, slice(0, 2000))
    logits = inputs["logits"].clone()
    logits[1::2] = other
    params = {**inputs, "logits": logits}
    params["temperature"] = inputs["temperature"].clone()
    params["temperature"][1::4] = NAN
    assert torch.equal(draw(params, 257)[:, ::2], expected[:, :2000:2])


def test_inference_mode_and_gradients_change_nothing():
    inputs, expected = case(257)
    inputs, expected = some(inputs, slice(0, 1000)), expected[:, :1000]
    with torch.inference_mode():
        assert torch.equal(draw(inputs, 257), expected)
        inner = {name: value.clone() for name, value in inputs.items()}
        assert torch.equal(draw(inner, 257), expected)
    with torch.no_grad():
        assert torch.equal(draw(inputs, 257), expected)


def test_python_threads_at_the_same_time():
    """Kernels release the interpreter lock and keep their workspaces by thread."""
    expected = {V: case(V)[1][:, :1000] for V in (257, 700, 2003)}
    found = {}

    def work(name, V, part):
        found[name] = torch.cat([draw(some(case(V)[0], slice(i, i + part)), V) for i in range(0, 1000, part)], -1)

    workers = [
        threading.Thread(target=work, args=((V, part), V, part)) for V in (257, 700, 2003) for part in (10, 100, 1000)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 9
    for (V, _), tokens in found.items():
        assert torch.equal(tokens, expected[V])


@pytest.mark.parametrize("name", ["scalar", *VECTOR])
@pytest.mark.parametrize("V", [1, 63, 130, 1000])
def test_every_op_treats_rows_alone(name, V):
    """All outputs of all ops, with rows and parameters of every kind."""
    if not BACKENDS[name].available:
        pytest.skip(BACKENDS[name].reason)
    with warpdraw.use(name):
        checks.check_rows_are_independent(V)


def test_what_an_earlier_call_left_in_the_workspace_changes_nothing():
    """Long rows, short rows and rows with +inf, one after the other in one thread, in every order of sizes."""
    sizes = (5000, 3, 700, 64, 2048, 1, 130)
    rows = {V: rows_of(("random", "+inf", "lumpy", "tied"), V, seed=V) for V in sizes}
    params = {"temperature": 1.1, "top_p": 0.9, "min_p": 0.001, "seed": 4}
    first = {V: warpdraw.sample(rows[V], **params).tokens for V in sizes}
    for order in (sorted(sizes), sorted(sizes, reverse=True), sizes[::-1]):
        for V in order:
            for top_k in (0, 40):
                drawn = warpdraw.sample(rows[V], **params, top_k=top_k).tokens
                assert top_k or torch.equal(drawn, first[V])
