"""SamplingParams refuses what it cannot mean, and every sample has a seed of its own."""

import math

import pytest

from warpdraw.generation.params import ORDERS, SamplingParams, _mix, fresh_seed, sample_seed


def test_defaults_draw_from_the_model_as_it_is():
    params = SamplingParams()
    assert (params.temperature, params.top_k, params.top_p, params.min_p) == (1.0, 0, 1.0, 0.0)
    assert (params.seed, params.n, params.stop, params.stop_ids, params.logprobs) == (None, 1, (), (), None)


def test_lists_and_single_values_become_tuples():
    assert SamplingParams(stop=[".", "!"], stop_ids=[1, 2]) == SamplingParams(stop=(".", "!"), stop_ids=(1, 2))
    assert SamplingParams(stop="END", stop_ids=7) == SamplingParams(stop=("END",), stop_ids=(7,))
    assert hash(SamplingParams(stop=["."])) == hash(SamplingParams(stop=(".",)))


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_is_accepted(order):
    assert SamplingParams(order=order).order == order


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", 1e39),
        ("top_k", -1),
        ("top_k", 2**31),
        ("top_p", -0.1),
        ("top_p", 1.1),
        ("top_p", math.nan),
        ("min_p", -1e-9),
        ("min_p", 2),
        ("min_p", math.nan),
        ("order", "alphabetical"),
        ("seed", 2**63),
        ("seed", -(2**63) - 1),
        ("n", 0),
        ("max_tokens", 0),
        ("min_tokens", -1),
        ("min_tokens", 65),
        ("stop", [""]),
        ("stop_ids", [-1]),
        ("logprobs", -1),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=rf"^{field}: expected .*, got "):
        SamplingParams(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", "1"),
        ("temperature", True),
        ("temperature", None),
        ("top_k", 1.0),
        ("top_k", True),
        ("top_p", "0.9"),
        ("min_p", None),
        ("seed", 1.5),
        ("seed", "7"),
        ("seed", False),
        ("n", 2.0),
        ("max_tokens", None),
        ("min_tokens", "1"),
        ("stop", [1]),
        ("stop", 5),
        ("stop_ids", ["a"]),
        ("stop_ids", "a"),
        ("logprobs", True),
        ("ignore_eos", 1),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_name(field, value):
    with pytest.raises(TypeError, match=rf"^{field}: expected .*, got "):
        SamplingParams(**{field: value})


def test_the_message_says_what_it_was():
    with pytest.raises(ValueError, match=r"^top_p: expected a number in \[0, 1\], got 1\.5$"):
        SamplingParams(top_p=1.5)
    with pytest.raises(ValueError, match=r"^min_tokens: expected at most max_tokens = 8, got 9$"):
        SamplingParams(max_tokens=8, min_tokens=9)


def test_the_first_sample_keeps_the_seed():
    for seed in (0, 7, -1, 2**63 - 1, -(2**63)):
        assert sample_seed(seed, 0) == seed


def test_the_other_samples_are_known_answers():
    # The mixer is splitmix64's: its published first output for the state 0.
    assert _mix(0) == 0xE220A8397B1DCDAF
    # A seed must mean the same text in every release.
    assert (sample_seed(7, 1), sample_seed(7, 2)) == (2875738036014693257, -2317588740234443029)


def test_seeds_do_not_repeat_among_samples_or_neighbouring_seeds():
    seeds = [sample_seed(seed, sample) for seed in range(-50, 50) for sample in range(100)]
    assert len(set(seeds)) == len(seeds)
    assert all(-(2**63) <= seed < 2**63 for seed in seeds)


def test_fresh_seeds_are_valid_and_differ():
    seeds = {fresh_seed() for _ in range(100)}
    assert len(seeds) == 100
    assert all(SamplingParams(seed=seed).seed == seed for seed in seeds)
