"""llama.cpp's published expectations of its samplers hold in the order "llama.cpp": its test-sampling.cpp, re-typed.

Each line is one of its lines. Where llama.cpp lists tokens by falling probability, they are listed by id here.
"""

import math

import pytest
import torch
from truth import P, for_rows, ids, logits_of

import warpdraw

FIFTHS, QUARTERS = [0.2] * 5, [0.25] * 4
NINTHS = [0, 2 / 9, 3 / 9, 4 / 9]
SEVENTHS = [0, 0, 3 / 7, 4 / 7]


@pytest.fixture(autouse=True)
def _on_every_backend(backend):
    pass


def gives(probabilities, expected, **params):
    """The distribution of the draw, to the millionth that llama.cpp prints."""
    found = warpdraw.filter_probs(logits_of(probabilities), order="llama.cpp", **params)[0].tolist()
    assert found == pytest.approx(expected, abs=2e-6)
    return True


def test_temperature():
    assert gives(P, P, temperature=1.0)
    assert gives(P, [0, 0, 0, 1], temperature=0.0)


def test_dynamic_temperature():
    assert gives(P, P, temperature=1.0, dynatemp_range=0.0, dynatemp_exponent=1.0)
    assert gives(P, [0, 0, 0, 1], temperature=0.0, dynatemp_range=0.0, dynatemp_exponent=1.0)


def test_top_k():
    assert gives(P, [0, 0, 0, 1], top_k=1)
    assert gives(P, NINTHS, top_k=3)
    assert gives(P, P, top_k=4)
    assert gives(P, P, top_k=0)


def test_top_p():
    assert gives(P, [0, 0, 0, 1], top_p=0.0)
    assert gives(P, SEVENTHS, top_p=0.7 - 1e-6)  # 0.4 + 0.3 is 0.7 but for rounding
    assert gives(P, NINTHS, top_p=0.8)
    assert gives(P, P, top_p=1.0)


def test_min_p():
    assert gives(P, P, min_p=0.0)
    assert gives(P, P, min_p=0.24)
    assert gives(P, NINTHS, min_p=0.26)
    assert gives(P, NINTHS, min_p=0.49)
    assert gives(P, SEVENTHS, min_p=0.51)
    assert gives(P, SEVENTHS, min_p=0.74)
    assert gives(P, [0, 0, 0, 1], min_p=0.76)
    assert gives(P, [0, 0, 0, 1], min_p=1.0)


def gives_by_coin(probabilities, expected, threshold):
    """With a coin of 0.99, nearly every position gives what is expected, and the others the row as it was."""
    assert gives(probabilities, expected, xtc_probability=1.0, xtc_threshold=threshold)
    rows, coins = logits_of(probabilities).expand(100, -1), {"xtc_probability": 0.99, "xtc_threshold": threshold}
    found = warpdraw.filter_probs(rows, position=torch.arange(100), order="llama.cpp", **coins)
    wanted = (found - torch.tensor(expected)).abs().amax(-1) < 2e-6
    untouched = (found - torch.tensor(probabilities)).abs().amax(-1) < 2e-6
    assert (wanted | untouched).all()
    assert wanted.sum() >= 95
    return True


def test_xtc():
    row = [0.4, 0.3, 0.2, 0.1]
    assert gives_by_coin(row, [0, 0, 0, 1], threshold=0.09)
    assert gives_by_coin(row, [0, 0, 2 / 3, 1 / 3], threshold=0.19)
    assert gives_by_coin(row, [0, 1 / 2, 1 / 3, 1 / 6], threshold=0.29)
    assert gives_by_coin(row, row, threshold=0.39)


def test_typical():
    assert gives([0.97, 0.01, 0.01, 0.01], [1, 0, 0, 0], typical_p=0.5)
    assert gives([0.4, 0.2, 0.2, 0.2], [0, 1 / 3, 1 / 3, 1 / 3], typical_p=0.5)


def penalised(expected, history, repeat, frequency, presence):
    params = {"repetition_penalty": repeat, "frequency_penalty": frequency, "presence_penalty": presence}
    return gives(FIFTHS, expected, history=ids(*history), **params)


def test_penalties():
    assert penalised([0, 0.25, 0.25, 0.25, 0.25], [0], 50.0, 0.0, 0.0)
    assert penalised([0, 0, 0, 0.5, 0.5], [0, 1, 2], 50.0, 0.0, 0.0)
    assert penalised([0, 0, 0, 0.5, 0.5], [0, 1, 2, 0, 0], 50.0, 0.0, 0.0)
    assert penalised([0.000011, 0.249997, 0.249997, 0.249997, 0.249997], [0], 1.0, 5.0, 5.0)
    assert penalised([0.000023, 0.000023, 0.000023, 0.499966, 0.499966], [0, 1, 2], 1.0, 5.0, 5.0)
    assert penalised([0.000000, 0.000023, 0.000023, 0.499977, 0.499977], [0, 1, 2, 0, 0], 1.0, 5.0, 5.0)


def test_penalties_of_single_logits():
    """Logits 2, -2, 4 and 1 of the tokens 4, 1, 1 and 7 after 1, 1, 7: a row for each of the two logits of token 1."""
    rows = torch.tensor([[0, -2, 0, 0, 2, 0, 0, 1], [0, 4, 0, 0, 2, 0, 0, 1]]).float()
    edited = torch.tensor([[0, -5, 0, 0, 2, 0, 0, -0.25], [0, 1, 0, 0, 2, 0, 0, -0.25]])
    history = for_rows(2, {"history": ids(1, 1, 7)})
    params = {"repetition_penalty": 2.0, "frequency_penalty": 0.25, "presence_penalty": 0.5}
    assert torch.equal(warpdraw.filter_probs(rows, **history, **params), warpdraw.softmax(edited))


def dry(probabilities, expected, history, multiplier, base, allowed, breakers=()):
    params = {"dry_multiplier": multiplier, "dry_base": base, "dry_allowed_length": allowed}
    return gives(probabilities, expected, history=ids(*history), dry_breakers=ids(*breakers, -1), **params)


def test_dry():
    assert dry(QUARTERS, QUARTERS, [0, 1], 1.0, 1.1, 2)
    assert dry(QUARTERS, [0.296923, 0.296923, 0.109232, 0.296923], [0, 1, 2, 0, 1], 1.0, 1.1, 2)
    assert dry(FIFTHS, FIFTHS, [0, 1, 3, 4, 0, 1], 1.0, 1.1, 2, breakers=[3])
    assert dry(FIFTHS, [0.241818, 0.241818, 0.032727, 0.241818, 0.241818], [0, 1, 2, 0, 1], 2.0, 1.1, 2)
    assert dry(FIFTHS, FIFTHS, [0, 1, 2, 3, 4, 0, 1], 1.0, 1.1, 4)


def test_top_n_sigma():
    assert gives(P, [0, 0, 0.428571, 0.571429], top_n_sigma=1.0)
    assert gives(P, P, top_n_sigma=0.0)
    assert gives(P, P, top_n_sigma=3.0)


# Chains of filters over 10,000 tokens whose probabilities are proportional to their ids.

V = 10_000


def chain(count, **params):
    """The chain keeps the last so many ids."""
    rows = torch.arange(V).double().log().float()[None]
    kept = warpdraw.filter_probs(rows, order="llama.cpp", **params)[0] > 0
    assert kept.nonzero().flatten().tolist() == list(range(V - count, V))
    return True


def nucleus(p, first=0):
    """How many of the ids first..V - 1, the largest first, reach the share p of their sum."""
    target, total, count = math.ceil(p * sum(range(first, V))), 0, 0
    while total < target:
        count += 1
        total += V - count
    return count


def test_chains():
    assert chain(1, top_k=1)
    assert chain(100, top_k=100)
    assert chain(1, top_p=0.0)
    assert chain(1, min_p=1.0)
    assert chain(nucleus(0.0003), top_p=0.0003)
    assert chain(nucleus(0.8), top_p=0.8)
    assert chain(2, min_p=9997.9 / 9999)
    assert chain(9000, min_p=0.1)
    assert chain(nucleus(0.8, V - 100), top_k=100, top_p=0.8)
    assert chain(100, top_k=100, min_p=0.1)
    assert chain(nucleus(0.8), top_p=0.8, min_p=0.1)
    assert chain(2, top_p=0.8, min_p=9997.9 / 9999)
    assert chain(nucleus(0.8, V - 100), top_k=100, top_p=0.8, min_p=0.1)
