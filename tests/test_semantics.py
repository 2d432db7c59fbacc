"""What the ops mean, as one-line truth tables. Every test runs on every backend.

The tests take no arguments: they run on the backend in force, here and on the planted bugs of test_mutants.py.
"""

import math

import pytest
import torch
from cases import INF, KINDS, NAN, ORDERS
from certificates import same_bits
from truth import P, kept, kept_logits, logits_of, near, probabilities_of

import warpdraw

LOG2 = math.log(2)


@pytest.fixture(autouse=True)
def _on_every_backend(backend):
    pass


def test_nothing_is_filtered_by_default():
    assert kept(P) == {0, 1, 2, 3}
    assert warpdraw.filter_probs(logits_of(P))[0].tolist() == near(P)
    assert warpdraw.softmax(logits_of(P))[0].tolist() == near(P)


def test_top_k_keeps_exactly_k():
    assert kept(P, top_k=1) == {3}
    assert kept(P, top_k=2) == {2, 3}
    assert kept(P, top_k=3) == {1, 2, 3}
    assert kept(P, top_k=4) == {0, 1, 2, 3}
    assert kept(P, top_k=5) == {0, 1, 2, 3}
    assert kept(P, top_k=2**31 - 1) == {0, 1, 2, 3}
    assert kept(P, top_k=0) == {0, 1, 2, 3}


def test_top_k_breaks_ties_by_the_lower_id():
    assert kept([0.25] * 4, top_k=1) == {0}
    assert kept([0.25] * 4, top_k=2) == {0, 1}
    assert kept([0.25] * 4, top_k=3) == {0, 1, 2}
    assert kept([0.1, 0.2, 0.2, 0.5], top_k=2) == {1, 3}
    assert kept([0.2, 0.1, 0.2, 0.5], top_k=2) == {0, 3}
    assert kept_logits(torch.zeros(200), top_k=130) == set(range(130))
    assert kept_logits([0.0, -0.0], top_k=1) == {0}
    assert kept_logits([-0.0, 0.0], top_k=1) == {0}


def test_top_p_keeps_the_crossing_token():
    assert kept(P, top_p=0.39) == {3}
    assert kept(P, top_p=0.41) == {2, 3}
    assert kept(P, top_p=0.69) == {2, 3}
    assert kept(P, top_p=0.71) == {1, 2, 3}
    assert kept(P, top_p=0.89) == {1, 2, 3}
    assert kept(P, top_p=0.91) == {0, 1, 2, 3}


def test_top_p_stops_when_the_mass_is_exactly_reached():
    assert kept([0.25] * 4, top_p=0.25) == {0}
    assert kept([0.25] * 4, top_p=0.5) == {0, 1}
    assert kept([0.25] * 4, top_p=0.500001) == {0, 1, 2}
    assert kept([0.25] * 4, top_p=0.75) == {0, 1, 2}
    assert kept_logits(torch.zeros(1024), top_p=0.5) == set(range(512))
    assert kept_logits(torch.full((4096,), -7.0), top_p=0.25) == set(range(1024))


def test_top_p_keeps_at_least_one_token_and_one_is_off():
    assert kept(P, top_p=0.0) == {3}
    assert kept(P, top_p=1e-30) == {3}
    assert kept(P, top_p=1.0) == {0, 1, 2, 3}
    assert kept([0.25] * 4, top_p=0.0) == {0}
    assert kept_logits([0.0, -60.0], top_p=1.0) == {0, 1}
    assert kept_logits(torch.zeros(1000), top_p=0.0) == {0}
    assert kept_logits(torch.zeros(1000), top_p=1e-45) == {0}


def test_min_p_keeps_weights_of_at_least_that_share_of_the_largest():
    assert kept(P, min_p=0.76) == {3}
    assert kept(P, min_p=0.74) == {2, 3}
    assert kept(P, min_p=0.51) == {2, 3}
    assert kept(P, min_p=0.49) == {1, 2, 3}
    assert kept(P, min_p=0.2) == {0, 1, 2, 3}
    assert kept(P, min_p=0.0) == {0, 1, 2, 3}
    assert kept(P, min_p=1.0) == {3}


def test_min_p_keeps_all_ties():
    assert kept([0.25] * 4, min_p=1.0) == {0, 1, 2, 3}
    assert kept([0.2, 0.4, 0.4], min_p=1.0) == {1, 2}
    assert kept_logits(torch.zeros(300), min_p=1.0) == set(range(300))


def test_top_k_one_is_greedy_in_every_order():
    rows = torch.stack([make(torch.Generator().manual_seed(3), 150) for make in KINDS.values()])
    candidates = rows.nan_to_num(nan=-INF, posinf=INF, neginf=-INF)
    first = torch.where((candidates > -INF).any(-1), candidates.argmax(-1), -1)
    assert warpdraw.sample(rows, temperature=0.0).tokens.tolist() == first.tolist()
    for order in ORDERS:
        drawn = warpdraw.sample(rows, temperature=3.0, top_k=1, order=order, seed=5)
        assert drawn.tokens.tolist() == first.tolist()


def test_temperature_zero_is_the_first_token_of_the_total_order():
    assert kept(P, temperature=0.0) == {3}
    assert kept([0.3, 0.4, 0.3, 0.4], temperature=0.0) == {1}
    assert kept([0.3, 0.4, 0.4], temperature=0.0, top_k=3) == {1}
    assert kept([0.25] * 4, temperature=0.0, min_p=1.0) == {0}
    for order in ORDERS:
        assert kept([0.25] * 4, temperature=0.0, top_k=3, top_p=0.9, min_p=0.5, order=order) == {0}
    assert warpdraw.softmax(torch.tensor([[1.0, 2.0, 2.0]]), temperature=0.0).tolist() == [[0.0, 1.0, 0.0]]
    assert warpdraw.log_softmax(torch.tensor([[1.0, 2.0, 2.0]]), temperature=0.0).tolist() == [[-INF, 0.0, -INF]]


def test_temperature_divides_the_logits():
    assert probabilities_of([0.0, LOG2], temperature=0.5) == near([0.2, 0.8])
    assert probabilities_of([0.0, 2 * LOG2], temperature=2.0) == near([1 / 3, 2 / 3])
    assert warpdraw.softmax(torch.tensor([[0.0, LOG2]]), temperature=0.5)[0].tolist() == near([0.2, 0.8])
    assert warpdraw.log_softmax(torch.tensor([[0.0, LOG2]]), temperature=0.5)[0].tolist() == near(
        [math.log(0.2), math.log(0.8)]
    )
    assert kept(P, temperature=0.5, min_p=0.5) == {2, 3}
    assert kept(P, temperature=1.0, min_p=0.55) == {2, 3}
    assert kept(P, temperature=0.5, min_p=0.6) == {3}
    assert kept(P, temperature=2.0, min_p=0.6) == {1, 2, 3}
    assert kept(P, temperature=0.5, top_p=0.5) == {3}
    assert kept(P, temperature=1.0, top_p=0.5) == {2, 3}


def test_vllm_order_is_min_p_then_top_k_then_top_p_on_what_is_left():
    assert kept(P, top_k=2, top_p=0.5) == {3}  # 0.57 of the two
    assert kept(P, top_k=3, top_p=0.76) == {2, 3}  # 0.78 of the three
    assert kept(P, min_p=0.6, top_p=0.5) == {3}  # min-p leaves two
    assert kept(P, min_p=0.6, top_k=3, top_p=0.6) == {2, 3}
    assert kept(P, min_p=0.4, top_k=2) == {2, 3}


def test_hf_order_is_top_k_then_top_p_then_min_p():
    assert kept(P, top_k=2, top_p=0.5, order="hf") == {3}
    assert kept(P, top_k=3, top_p=0.76, order="hf") == {2, 3}
    assert kept(P, min_p=0.6, top_p=0.5, order="hf") == {2, 3}  # top-p saw 0.4 + 0.3
    assert kept(P, min_p=0.8, top_p=0.5, order="hf") == {3}
    assert kept(P, min_p=0.6, top_k=3, top_p=0.6, order="hf") == {2, 3}


def test_joint_order_is_top_p_on_all_mass_and_top_k_and_min_p():
    assert kept(P, top_k=2, top_p=0.5, order="flashinfer-joint") == {2, 3}  # 0.4 + 0.3 of all
    assert kept(P, top_k=3, top_p=0.76, order="flashinfer-joint") == {1, 2, 3}
    assert kept(P, top_k=1, top_p=0.76, order="flashinfer-joint") == {3}
    assert kept(P, top_k=3, top_p=0.5, order="flashinfer-joint") == {2, 3}
    assert kept(P, min_p=0.6, top_p=0.5, order="flashinfer-joint") == {2, 3}
    assert kept(P, min_p=0.8, top_p=0.9, order="flashinfer-joint") == {3}


def test_llama_cpp_order_filters_before_temperature():
    assert kept(P, temperature=0.5, top_p=0.5, order="hf") == {3}
    assert kept(P, temperature=0.5, top_p=0.5, order="llama.cpp") == {2, 3}
    assert kept(P, temperature=2.0, min_p=0.7, order="hf") == {1, 2, 3}
    assert kept(P, temperature=2.0, min_p=0.7, order="llama.cpp") == {2, 3}
    assert kept(P, top_k=2, top_p=0.5, order="llama.cpp") == {3}
    row = logits_of(P)
    sharpened = warpdraw.filter_probs(row, temperature=0.5, top_p=0.5, order="llama.cpp")
    assert sharpened[0].tolist() == [0, 0, near(0.36), near(0.64)]


def test_every_filter_works_alone_in_every_order():
    for order in ORDERS:
        assert kept(P, order=order) == {0, 1, 2, 3}
        assert kept(P, top_k=2, order=order) == {2, 3}
        assert kept(P, top_p=0.71, order=order) == {1, 2, 3}
        assert kept(P, min_p=0.49, order=order) == {1, 2, 3}
        assert kept([0.25] * 4, top_k=2, order=order) == {0, 1}
        assert kept([0.25] * 4, top_p=0.5, order=order) == {0, 1}


def test_masked_and_bad_logits_are_no_candidates():
    assert kept_logits([-INF, 0.0, -INF]) == {1}
    assert kept_logits([NAN, 0.0, 1.0]) == {1, 2}
    assert kept_logits([NAN, 0.0, 1.0], top_k=1) == {2}
    assert kept_logits([0.0, -INF, NAN, 0.0], top_k=3) == {0, 3}
    assert kept_logits([0.0, -INF, NAN, 0.0], top_p=0.6) == {0, 3}
    assert warpdraw.softmax(torch.tensor([[NAN, 0.0, -INF, 0.0]])).tolist() == [[0.0, 0.5, 0.0, 0.5]]
    assert warpdraw.log_softmax(torch.tensor([[NAN, 3.0, -INF]])).tolist() == [[-INF, 0.0, -INF]]


def test_where_plus_infinity_occurs_those_tokens_are_the_candidates_and_equal():
    assert kept_logits([INF, 0.0, INF]) == {0, 2}
    assert kept_logits([INF, NAN, 3e38, INF, -INF], min_p=1.0) == {0, 3}
    assert kept_logits([1.0, INF, INF, INF], top_k=2) == {1, 2}
    assert kept_logits([1.0, INF, INF, INF, INF], top_p=0.5) == {1, 2}
    assert kept_logits([1.0, INF, INF], temperature=0.0) == {1}
    assert probabilities_of([INF, 0.0, INF], temperature=0.3) == [0.5, 0.0, 0.5]
    assert warpdraw.softmax(torch.tensor([[INF, 0.0, INF]])).tolist() == [[0.5, 0.0, 0.5]]
    drawn = warpdraw.sample(torch.tensor([[0.0, INF]]), logprob=True, raw_logprob=True)
    assert [value.item() for value in drawn[:4]] == [1, True, 0.0, 0.0]


def test_a_row_without_a_candidate_is_invalid_and_touches_no_other():
    logits = torch.tensor([[1.0, 2.0], [-INF, -INF], [2.0, 1.0], [NAN, NAN], [NAN, -INF], [INF, INF]])
    drawn = warpdraw.sample(logits, temperature=0.0, logprob=True, raw_logprob=True)
    assert drawn.tokens.tolist() == [1, -1, 0, -1, -1, 0]
    assert drawn.valid.tolist() == [True, False, True, False, False, True]
    assert drawn.logprob.isnan().tolist() == [False, True, False, True, True, False]
    assert drawn.raw_logprob.isnan().tolist() == [False, True, False, True, True, False]
    bad = [False, True, False, True, True, False]
    assert warpdraw.softmax(logits).isnan().all(-1).tolist() == bad
    assert warpdraw.log_softmax(logits).isnan().all(-1).tolist() == bad
    assert warpdraw.filter_probs(logits).isnan().all(-1).tolist() == bad
    assert (warpdraw.filter_logits(logits) == -INF).all(-1).tolist() == bad
    assert kept_logits([-INF, NAN], top_k=1) == set()


def test_every_dtype_is_read_exactly_and_kept_logits_stay_as_they_are():
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        row = torch.tensor([[-3.0, 2.0**-14, 1.5, -0.0, 2.0**-24, 1.25, 60000.0, -INF, NAN]]).to(dtype)
        filtered = warpdraw.filter_logits(row, top_k=5)
        assert filtered.dtype == dtype
        assert same_bits(filtered, torch.where(torch.tensor([0, 1, 1, 0, 1, 1, 1, 0, 0]).bool(), row, -INF)).all()
        row[0, 6] = 2.0
        for op in (warpdraw.softmax, warpdraw.log_softmax, warpdraw.filter_probs):
            assert torch.equal(op(row), op(row.float()))
        position = torch.arange(64)
        drawn = [warpdraw.sample(x.expand(64, -1), position=position).tokens for x in (row, row.float())]
        assert torch.equal(*drawn)


def test_one_token():
    logits = torch.tensor([[3.0], [-1e30], [NAN]])
    drawn = warpdraw.sample(logits, top_p=0.5, top_k=3, min_p=0.1, logprob=True, raw_logprob=True)
    assert drawn.tokens.tolist() == [0, 0, -1]
    assert drawn.logprob[:2].tolist() == [0.0, 0.0]
    assert drawn.raw_logprob[:2].tolist() == [0.0, 0.0]
    assert warpdraw.softmax(logits)[:2].tolist() == [[1.0], [1.0]]


def test_no_rows():
    logits = torch.empty(0, 5)
    drawn = warpdraw.sample(logits, logprob=True)
    assert drawn.tokens.shape == drawn.valid.shape == drawn.logprob.shape == (0,)
    assert drawn.tokens.dtype == torch.int64
    assert warpdraw.softmax(logits).shape == warpdraw.filter_logits(logits).shape == (0, 5)


def test_parameters_are_per_row():
    logits = logits_of(P).expand(5, -1)
    filtered = warpdraw.filter_logits(
        logits,
        temperature=torch.tensor([1.0, 1.0, 1.0, 0.0, 0.5]),
        top_k=torch.tensor([2, 0, 0, 0, 0], dtype=torch.int32),
        top_p=torch.tensor([1.0, 0.91, 1.0, 1.0, 0.5]),
        min_p=torch.tensor([0.0, 0.0, 0.49, 0.0, 0.0]),
    )
    assert [set(row.nonzero().flatten().tolist()) for row in filtered > -INF] == [
        {2, 3}, {0, 1, 2, 3}, {1, 2, 3}, {3}, {3},
    ]  # fmt: skip


INVALID = {
    "temperature": [-0.1, NAN, INF, -INF],
    "top_k": [-1, -(2**31)],
    "top_p": [-0.1, NAN, INF, 1.5],
    "min_p": [-0.1, NAN, 1.5],
}


def test_an_invalid_entry_of_a_parameter_tensor_makes_only_its_row_invalid():
    good = {"temperature": 0.8, "top_k": 3, "top_p": 0.9, "min_p": 0.05}
    for name, values in INVALID.items():
        for value in values:
            dtype = torch.int32 if name == "top_k" else torch.float32
            entries = torch.tensor([good[name], value, good[name]], dtype=dtype)
            logits = logits_of(P).expand(3, -1)
            drawn = warpdraw.sample(logits, **{**good, name: entries}, logprob=True)
            assert drawn.valid.tolist() == [True, False, True]
            assert drawn.tokens[1] == -1
            assert drawn.logprob.isnan().tolist() == [False, True, False]
            alone = warpdraw.sample(logits[:1], **good, logprob=True)
            assert drawn.tokens[0] == drawn.tokens[2] == alone.tokens[0]
            filtered = warpdraw.filter_logits(logits, **{**good, name: entries})
            assert (filtered == -INF).all(-1).tolist() == [False, True, False]
            if name == "temperature":
                for op in (warpdraw.softmax, warpdraw.log_softmax):
                    assert op(logits, entries).isnan().all(-1).tolist() == [False, True, False]


def test_log_probabilities_of_the_drawn_token():
    drawn = warpdraw.sample(logits_of(P), temperature=0.0, logprob=True, raw_logprob=True)
    assert drawn.logprob.item() == 0.0
    assert drawn.raw_logprob.item() == near(math.log(0.4))
    rows, position = logits_of(P).expand(50, -1), torch.arange(50)
    drawn = warpdraw.sample(rows, temperature=0.5, top_k=2, position=position, logprob=True, raw_logprob=True)
    tokens = drawn.tokens.tolist()
    assert set(tokens) == {2, 3}
    assert drawn.logprob.tolist() == near([math.log({2: 0.36, 3: 0.64}[token]) for token in tokens])
    assert drawn.raw_logprob.tolist() == near([math.log(P[token]) for token in tokens])
    assert warpdraw.sample(logits_of(P)).logprob is None


def test_the_draw_depends_on_both_words_of_seed_and_position():
    logits = torch.zeros(1, 4096)
    drawn = {
        warpdraw.sample(logits, seed=seed, position=position).tokens.item()
        for seed in (0, 1, 2**32, -(2**63), 2**63 - 1)
        for position in (0, 1, 2**32, -1)
    }
    assert len(drawn) == 20
    assert warpdraw.sample(logits).tokens == warpdraw.sample(logits, seed=0, position=0).tokens


def test_tiny_temperatures_keep_ties_and_nothing_else():
    for temperature in (1e-30, 1e-37, 1e-40, 1e-45):
        assert probabilities_of([0.0, 1.0, 1.0, 0.5], temperature=temperature) == [0.0, 0.5, 0.5, 0.0]
        assert kept_logits([0.0] * 600, temperature=temperature, top_p=0.5) == set(range(300))
        assert kept_logits([5.0] * 600 + [4.0] * 600, temperature=temperature, top_p=0.5) == set(range(300))
