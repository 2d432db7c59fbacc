"""What candidates, bias, penalties, bans, the long tail of filters and the reports mean, as one-line truth tables.

The tests take no arguments: they run on the backend in force, here and on the planted bugs of test_mutants.py.
"""

import math

import pytest
import torch
from cases import INF, KINDS, NAN, ORDERS, rows_of
from truth import P, ids, kept, kept_logits, logits_of, near, probabilities_of

import warpdraw

LOG2 = math.log(2)
LOG2E = 1.4426950408889634  # the temperature at which logits are octaves


@pytest.fixture(autouse=True)
def _on_every_backend(backend):
    pass


def floats(*values):
    return torch.tensor([values])


def one(value, dtype=torch.int32):
    return torch.tensor([value], dtype=dtype)


def is_edited(row, expected, **params):
    """The edits turn a row into another one."""
    found = probabilities_of([float(x) for x in row], **params)
    assert found == near(torch.tensor(expected, dtype=torch.float64).softmax(0).tolist())
    return True


# Candidates.


def test_vocab_size():
    assert kept(P, vocab_size=0) == {0, 1, 2, 3}
    assert kept(P, vocab_size=1) == {0}
    assert kept(P, vocab_size=3) == {0, 1, 2}
    assert kept(P, vocab_size=4) == {0, 1, 2, 3}
    assert kept(P, vocab_size=3, top_k=1) == {2}
    assert kept(P, vocab_size=2, top_p=0.6) == {1}
    assert probabilities_of([0.0, LOG2, 9.0], vocab_size=2) == near([1 / 3, 2 / 3, 0])
    assert kept_logits([0.0, 1.0, INF], vocab_size=2) == {0, 1}
    assert kept_logits([-INF, NAN, 1.0], vocab_size=2) == set()


def test_bitmask_reads_from_the_least_significant_bit():
    assert kept(P, bitmask=ids(0b1111)) == {0, 1, 2, 3}
    assert kept(P, bitmask=ids(0b0101)) == {0, 2}
    assert kept(P, bitmask=ids(0b1000)) == {3}
    assert kept(P, bitmask=ids(-1)) == {0, 1, 2, 3}
    assert kept(P, bitmask=ids(-16)) == set()
    assert kept(P, bitmask=ids(0)) == set()
    assert kept_logits([0.0] * 70, bitmask=ids(1 << 30, -(2**31), 0b100001)) == {30, 63, 64, 69}
    assert kept_logits([0.0] * 70, bitmask=ids(0, 0, -1)) == {64, 65, 66, 67, 68, 69}
    assert kept_logits([1.0, INF, NAN, -INF, 0.0], bitmask=ids(0b11101)) == {0, 4}


def test_a_bitmask_may_end_where_the_vocabulary_does():
    row = [0.0] * 40
    assert kept_logits(row, bitmask=ids(-1), vocab_size=32) == set(range(32))
    assert kept_logits(row, bitmask=ids(-1), vocab_size=20) == set(range(20))
    assert kept_logits(row, bitmask=ids(-1, -1), vocab_size=20) == set(range(20))
    assert kept_logits(row, bitmask=ids(-1), vocab_size=one(32)) == set(range(32))
    assert kept_logits(row, bitmask=ids(-1), vocab_size=one(33)) == set()
    assert kept_logits(row, bitmask=ids(-1), vocab_size=one(0)) == set()
    assert kept_logits(row, bitmask=ids(-1, -1), vocab_size=one(0)) == set(range(40))


def test_allowed_and_banned_ids():
    assert kept(P, allowed_ids=ids(1, 3)) == {1, 3}
    assert kept(P, allowed_ids=ids(-1, 3, -1, 0, 3)) == {0, 3}
    assert kept(P, allowed_ids=ids(-1, -1)) == {0, 1, 2, 3}
    assert kept(P, banned_ids=ids(-1, 3, -1, 0, 3)) == {1, 2}
    assert kept(P, banned_ids=ids(-1)) == {0, 1, 2, 3}
    assert kept(P, banned_ids=ids(0, 1, 2, 3)) == set()
    assert kept(P, allowed_ids=ids(1, 3), banned_ids=ids(3)) == {1}
    assert kept(P, allowed_ids=ids(1, 3), bitmask=ids(0b0110)) == {1}
    assert kept(P, allowed_ids=ids(1, 3), vocab_size=3) == {1}
    assert kept(P, allowed_ids=ids(1, 3), bitmask=ids(0b0101)) == set()
    assert kept(P, banned_ids=ids(3), top_k=1) == {2}
    assert kept(P, banned_ids=ids(3), temperature=0.0) == {2}
    assert kept(P, banned_ids=ids(3), top_p=0.45) == {2}
    assert kept(P, banned_ids=ids(3), min_p=0.6) == {1, 2}
    assert probabilities_of([0.0, LOG2, 9.0], banned_ids=ids(2)) == near([1 / 3, 2 / 3, 0])


def test_what_is_banned_says_nothing_about_infinity_either():
    assert kept_logits([INF, 0.0, 1.0], banned_ids=ids(0)) == {1, 2}
    assert kept_logits([INF, 0.0, INF], banned_ids=ids(0)) == {2}
    assert kept_logits([NAN, 0.0, -INF], allowed_ids=ids(0, 2)) == set()
    assert kept_logits([NAN, 0.0, -INF], bias_ids=ids(0, 2), bias=floats(5.0, 5.0)) == {1}
    assert kept_logits([INF, 0.0, 1.0], bias_ids=ids(0), bias=floats(-1e30)) == {0}
    assert kept_logits([INF, 0.0, 1.0], bias_ids=ids(0), bias=floats(-INF)) == {1, 2}
    assert kept_logits([0.0, 1.0, 2.0], bias_ids=ids(0), bias=floats(INF)) == {0}
    assert kept_logits([INF, INF, 2.0], history=ids(0), repetition_penalty=3.0, presence_penalty=9.0) == {0, 1}


# Bias and penalties.


def test_bias_is_added():
    assert is_edited([0, 1, 2], [3.0, 1, 2], bias_ids=ids(0), bias=floats(3.0))
    assert is_edited([0, 1, 2], [1.5, 1, -2], bias_ids=ids(2, -1, 0), bias=floats(-4.0, 7.0, 1.5))
    assert is_edited([0, 1, 2], [0.0, 1, 7], bias_ids=ids(2, 2), bias=floats(2.0, 3.0))
    assert is_edited([1, 0], [0.0, 0], bias_ids=ids(0, 0), bias=floats(1e8, -1e8))  # in order, rounded each time
    assert is_edited([0, 1], [0.0, 1], bias_ids=ids(-1, -1), bias=floats(NAN, INF))
    assert kept(P, bias_ids=ids(3), bias=floats(-INF)) == {0, 1, 2}
    assert kept(P, bias_ids=ids(3, 3), bias=floats(-INF, INF)) == {0, 1, 2}
    assert kept(P, bias_ids=ids(0), bias=floats(9.0), top_k=1) == {0}
    assert kept(P, bias_ids=ids(3), bias=floats(9.0), vocab_size=3) == {0, 1, 2}
    assert kept([0.25] * 4, bias_ids=ids(2), bias=floats(1e-3), temperature=0.0) == {2}


def test_repetition_penalty_divides_what_is_positive_and_multiplies_the_rest():
    assert is_edited([2, -2, 1], [1.0, -4, 1], history=ids(0, 1), repetition_penalty=2.0)
    assert is_edited([2, -2, 1], [4.0, -1, 1], history=ids(0, 1), repetition_penalty=0.5)
    assert is_edited([2, -2, 1], [1.0, -2, 1], history=ids(0, 0, 0), repetition_penalty=2.0)  # once, however often
    assert is_edited([2, -2, 1], [1.0, -4, 1], history=ids(0, 1), prompt_length=2, repetition_penalty=2.0)
    assert is_edited([0, 1], [0.0, 1], history=ids(0), repetition_penalty=2.0)
    assert is_edited([2, 3], [2.0, 3], history=ids(0), repetition_penalty=1.0)
    assert is_edited([2, 3], [2.0, 3], repetition_penalty=2.0)
    assert kept_logits([3.0, 2.0], history=ids(0), repetition_penalty=2.0, top_k=1) == {1}


def test_frequency_and_presence_penalties_see_the_output_alone():
    history = ids(0, 1, 1, 2, 1)
    assert is_edited([0] * 4, [-1.0, -3, -1, 0], history=history, frequency_penalty=1.0)
    assert is_edited([0] * 4, [-1.0, -1, -1, 0], history=history, presence_penalty=1.0)
    assert is_edited([0] * 4, [0.0, -1, -0.5, 0], history=history, frequency_penalty=0.5, prompt_length=2)
    assert is_edited([0] * 4, [0.0, -1, -1, 0], history=history, presence_penalty=1.0, prompt_length=2)
    assert is_edited([0] * 4, [0.0, 0, 0, 0], history=history, presence_penalty=1.0, prompt_length=5)
    assert is_edited([0] * 4, [1.0, 3, 1, 0], history=history, frequency_penalty=-1.0)
    assert is_edited([0] * 4, [-1.5, -3.5, -1.5, 0], history=history, frequency_penalty=1.0, presence_penalty=0.5)
    assert is_edited([0, 1], [0.0, 1], frequency_penalty=1.0, presence_penalty=1.0)


def test_bias_then_repetition_then_frequency_then_presence_then_dry():
    penalties = {"repetition_penalty": 2.0, "frequency_penalty": 1.0, "presence_penalty": 0.5}
    assert is_edited([4, 0], [4 / 2 - 3 * 1.0 - 0.5, 0], history=ids(0, 0, 0), **penalties)
    assert is_edited([0, 0], [4 / 2 - 1 - 0.5, 0], history=ids(0), bias_ids=ids(0), bias=floats(4.0), **penalties)
    dry = {"dry_multiplier": 1.0, "dry_base": 2.0, "dry_allowed_length": 1}
    assert is_edited([8, 6], [4 - 2 - 0.5, 3 - 1 - 0.5 - 1], history=ids(0, 1, 0), **penalties, **dry)


def test_history_counts_as_far_as_its_length():
    history = ids(0, 1, 2, 99, -7)
    assert is_edited([0] * 4, [-1.0, -1, -1, 0], history=history, history_length=one(3), presence_penalty=1.0)
    assert is_edited([0] * 4, [-1.0, 0, 0, 0], history=history, history_length=one(1), presence_penalty=1.0)
    assert is_edited([0] * 4, [0.0, 0, 0, 0], history=history, history_length=one(0), presence_penalty=1.0)
    assert is_edited([0] * 4, [0.0, 0, 0, 0], history=history)  # nothing reads it
    assert kept(P, history=history, presence_penalty=1.0) == set()
    assert kept(P, history=history, history_length=one(4), no_repeat_ngram=1) == set()


def dry(row, expected, history, multiplier=1.0, base=2.0, allowed=2, **params):
    params |= {"dry_multiplier": multiplier, "dry_base": base, "dry_allowed_length": allowed}
    return is_edited(row, expected, history=ids(*history), **params)


def test_dry_penalises_what_followed_an_earlier_copy_of_the_end():
    zeros = [0.0] * 5
    assert dry(zeros, [0, 0, -1.0, 0, 0], [0, 1, 2, 0, 1])  # n = 2
    assert dry(zeros, [0, 0, 0, -2.0, 0], [0, 1, 2, 3, 0, 1, 2])  # n = 3
    assert dry(zeros, [0, 0, 0, -6.0, 0], [0, 1, 2, 3, 0, 1, 2], multiplier=3.0)
    assert dry(zeros, [0, 0, 0, -4.0, 0], [0, 1, 2, 3, 0, 1, 2], allowed=1)
    assert dry(zeros, [0, 0, 0, -1.0, 0], [0, 1, 2, 3, 0, 1, 2], allowed=3)
    assert dry(zeros, [0, 0, 0, 0.0, 0], [0, 1, 2, 3, 0, 1, 2], allowed=4)
    assert dry(zeros, [0, 0, 0, 0.0, 0], [0, 1, 2, 3, 0, 1, 2], multiplier=0.0)
    assert dry(zeros, [0, 0, 0, -1.0, 0], [0, 1, 2, 3, 0, 1, 2], base=1.0)
    assert dry(zeros, [0, 0, 0, -1.0, 0], [0, 1, 2, 3, 0, 1, 2], prompt_length=5, allowed=3)  # prompts count
    assert dry(zeros, [0, 0, -1.0, -1.0, 0], [0, 1, 2, 0, 1, 3, 0, 1])  # two tokens
    assert dry(zeros, [-2.0, 0, 0, 0, 0], [0, 0, 0, 0])  # copies may overlap: n = 3
    assert dry(zeros, [0.0] * 5, [0, 1])
    assert dry(zeros, [0.0] * 5, [4])


def test_dry_takes_the_longest_copy_once():
    zeros = [0.0] * 6
    assert dry(zeros, [0, 0, 0, -64.0, 0, 0], [1, 2, 3, 5, 0, 4, 1, 2, 3, 5, 0, 4, 1, 2])  # n = 8, and n = 2 before it
    assert dry(zeros, [0, 0, 0, -2.0, 0, 0], [1, 2, 3, 0, 1, 2, 3, 5, 0, 1, 2])  # n = 2 and n = 3 before token 3


def test_dry_breakers_end_copies_and_are_not_penalised():
    zeros = [0.0] * 5
    history = [0, 1, 2, 3, 0, 1, 2]
    assert dry(zeros, [0, 0, 0, -2.0, 0], history, dry_breakers=ids(-1, 4))
    assert dry(zeros, [0, 0, 0, -1.0, 0], history, dry_breakers=ids(0))  # n = 2 is left
    assert dry(zeros, [0.0] * 5, history, dry_breakers=ids(1))
    assert dry(zeros, [0.0] * 5, history, dry_breakers=ids(2))
    assert dry(zeros, [0.0] * 5, history, dry_breakers=ids(3, -1))
    assert dry(zeros, [0, 0, 0, -2.0, 0], history, dry_breakers=ids(-1, -1))


def test_a_huge_dry_penalty_is_finite():
    history = ids(*[0] * 300)
    on = {"history": history, "dry_multiplier": 1.0, "dry_base": 10.0}
    assert kept_logits([0.0, 0.0], **on, top_k=1) == {1}
    assert kept_logits([0.0, 0.0], **on, banned_ids=ids(1)) == {0}
    assert kept_logits([0.0], **on) == {0}


# Bans from the history.


def test_no_repeat_ngram_bans_what_would_complete_one():
    history = ids(0, 1, 2, 0, 1)
    assert kept(P, history=history, no_repeat_ngram=0) == {0, 1, 2, 3}
    assert kept(P, history=history, no_repeat_ngram=1) == {3}
    assert kept(P, history=history, no_repeat_ngram=2) == {0, 1, 3}
    assert kept(P, history=history, no_repeat_ngram=3) == {0, 1, 3}
    assert kept(P, history=history, no_repeat_ngram=4) == {0, 1, 2, 3}
    assert kept(P, history=history, no_repeat_ngram=2**31 - 1) == {0, 1, 2, 3}
    assert kept(P, history=ids(0, 0), no_repeat_ngram=2) == {1, 2, 3}
    assert kept(P, history=ids(0), no_repeat_ngram=2) == {0, 1, 2, 3}
    assert kept(P, history=ids(2, 3, 2), no_repeat_ngram=2) == {0, 1, 2}
    assert kept(P, history=ids(2, 3, 2, 1, 2), no_repeat_ngram=2) == {0, 2}
    assert kept(P, history=ids(2, 3, 2), history_length=one(2), no_repeat_ngram=2) == {0, 1, 2, 3}
    assert kept(P, history=history, prompt_length=4, no_repeat_ngram=3) == {0, 1, 3}
    assert kept(P, no_repeat_ngram=1) == {0, 1, 2, 3}
    assert kept(P, history=ids(0, 1, 2, 3), no_repeat_ngram=1) == set()


def test_stop_ids_are_banned_until_min_tokens():
    stop = {"stop_ids": ids(3, -1, 2)}
    assert kept(P, **stop) == {0, 1, 2, 3}
    assert kept(P, **stop, min_tokens=1) == {0, 1}
    assert kept(P, **stop, min_tokens=2, history=ids(0)) == {0, 1}
    assert kept(P, **stop, min_tokens=2, history=ids(0, 0)) == {0, 1, 2, 3}
    assert kept(P, **stop, min_tokens=2, history=ids(0, 0), prompt_length=1) == {0, 1}
    assert kept(P, **stop, min_tokens=2, history=ids(0, 0, 99), history_length=one(2)) == {0, 1, 2, 3}
    assert kept(P, **stop, min_tokens=2**31 - 1, history=ids(0, 0)) == {0, 1}
    assert kept(P, min_tokens=5) == {0, 1, 2, 3}


# Filters.


def test_top_n_sigma_keeps_what_is_near_the_maximum():
    row = [0.0, 1.0, 2.0, 3.0]  # sigma is sqrt(1.25)
    assert kept_logits(row, top_n_sigma=0.0) == {0, 1, 2, 3}
    assert kept_logits(row, top_n_sigma=0.5) == {3}
    assert kept_logits(row, top_n_sigma=1.0) == {2, 3}
    assert kept_logits(row, top_n_sigma=2.0) == {1, 2, 3}
    assert kept_logits(row, top_n_sigma=3.0) == {0, 1, 2, 3}
    assert kept_logits(row, top_n_sigma=1e-30) == {3}
    assert kept_logits(row, top_n_sigma=3e38) == {0, 1, 2, 3}
    assert kept_logits([*row, -INF, NAN], top_n_sigma=1.0) == {2, 3}
    assert kept_logits(row, top_n_sigma=1.0, banned_ids=ids(0)) == {3}
    assert kept_logits(row, top_n_sigma=1.0, temperature=9.0) == {2, 3}
    assert kept_logits([0.0, 10.0], top_n_sigma=2.0) == {0, 1}
    assert kept_logits([0.0, 10.0], top_n_sigma=1.99) == {1}
    assert kept_logits([7.0] * 5, top_n_sigma=1.0) == {0, 1, 2, 3, 4}
    assert kept_logits([1e38] * 3, top_n_sigma=1.0) == {0, 1, 2}
    assert kept_logits([5.0], top_n_sigma=1.0) == {0}
    assert kept_logits([INF, 0.0, INF], top_n_sigma=1.0) == {0, 2}
    for scale in (1e-42, 1e-30, 1e30):
        assert kept_logits([x * scale for x in row], top_n_sigma=1.0, temperature=1e30) == {2, 3}
    for order in ORDERS:
        assert kept_logits(row, top_n_sigma=1.0, top_k=3, order=order) == {2, 3}
        assert kept_logits(row, top_n_sigma=2.0, top_k=2, order=order) == {2, 3}


def test_typical_keeps_the_tokens_nearest_to_the_entropy():
    """Distances of 0.4, 0.3, 0.2, 0.1 from the entropy 1.28: 0.36, 0.08, 0.33, 1.02."""
    assert kept(P, typical_p=0.0) == {2}
    assert kept(P, typical_p=0.29) == {2}
    assert kept(P, typical_p=0.31) == {1, 2}
    assert kept(P, typical_p=0.49) == {1, 2}
    assert kept(P, typical_p=0.51) == {1, 2, 3}
    assert kept(P, typical_p=0.89) == {1, 2, 3}
    assert kept(P, typical_p=0.91) == {0, 1, 2, 3}
    assert kept(P, typical_p=1.0) == {0, 1, 2, 3}
    assert kept([0.97, 0.01, 0.01, 0.01], typical_p=0.5) == {0}
    assert kept_logits([INF, 0.0, INF, INF, INF], typical_p=0.5) == {0, 2}
    assert kept_logits([3.0], typical_p=0.5) == {0}
    assert kept_logits([0.0] * 320, typical_p=0.25) == set(range(80))


def test_typical_breaks_ties_from_the_entropy_outwards():
    assert kept([0.4, 0.2, 0.2, 0.2], typical_p=0.1) == {1}  # below the entropy: the earlier id
    assert kept([0.4, 0.2, 0.2, 0.2], typical_p=0.3) == {1, 2}
    assert kept([0.4, 0.2, 0.2, 0.2], typical_p=0.5) == {1, 2, 3}
    assert kept([0.3, 0.3, 0.3, 0.1], typical_p=0.25) == {2}  # above it: the later one
    assert kept([0.3, 0.3, 0.3, 0.1], typical_p=0.5) == {1, 2}
    assert kept([0.3, 0.3, 0.3, 0.1], typical_p=0.7) == {0, 1, 2}
    octave = {"temperature": LOG2E}
    assert kept_logits([0.0, -1.0, -1.0], typical_p=0.3, **octave) == {0}  # both as far: the more probable side
    assert kept_logits([0.0, -1.0, -1.0], typical_p=0.6, **octave) == {0, 1}
    assert kept_logits([-1.0, 0.0, -1.0], typical_p=0.6, **octave) == {0, 1}


def test_typical_sees_the_temperature():
    assert kept(P, typical_p=0.505, temperature=2.0) == {1, 2}  # 0.28 + 0.23
    assert kept(P, typical_p=0.505, temperature=2.0, order="llama.cpp") == {1, 2, 3}


def test_epsilon_is_a_floor_of_probability():
    assert kept(P, epsilon=0.0) == {0, 1, 2, 3}
    assert kept(P, epsilon=0.05) == {0, 1, 2, 3}
    assert kept(P, epsilon=0.15) == {1, 2, 3}
    assert kept(P, epsilon=0.25) == {2, 3}
    assert kept(P, epsilon=0.35) == {3}
    assert kept(P, epsilon=0.5) == {3}
    assert kept(P, epsilon=1.0) == {3}
    assert kept([0.25] * 4, epsilon=0.25) == {0, 1, 2, 3}
    assert kept([0.25] * 4, epsilon=0.3) == {0}
    assert kept(P, epsilon=0.25, temperature=9.0) == {2, 3}
    assert kept(P, epsilon=0.25, temperature=9.0, banned_ids=ids(0)) == {1, 2, 3}
    assert kept(P, top_k=2, epsilon=0.43) == {3}
    assert kept(P, top_k=2, epsilon=0.42) == {2, 3}


def test_eta_is_a_floor_that_sinks_with_the_entropy():
    """exp(-H) is 0.278."""
    assert kept(P, eta=0.0) == {0, 1, 2, 3}
    assert kept(P, eta=0.1) == {0, 1, 2, 3}  # 0.088
    assert kept(P, eta=0.2) == {1, 2, 3}  # 0.124
    assert kept(P, eta=0.5) == {1, 2, 3}  # 0.197
    assert kept(P, eta=0.6) == {2, 3}  # 0.215
    assert kept([0.04, 0.96], eta=0.05) == {1}  # 0.05 itself
    assert kept([0.04, 0.96], eta=0.03) == {0, 1}
    assert kept([0.5, 0.5], eta=0.99) == {0, 1}


def test_xtc_drops_the_top_choices_but_the_last():
    assert kept(P, xtc_probability=0.0, xtc_threshold=0.1) == {0, 1, 2, 3}
    assert kept(P, xtc_probability=1.0, xtc_threshold=0.0) == {0}
    assert kept(P, xtc_probability=1.0, xtc_threshold=0.09) == {0}
    assert kept(P, xtc_probability=1.0, xtc_threshold=0.15) == {0, 1}
    assert kept(P, xtc_probability=1.0, xtc_threshold=0.25) == {0, 1, 2}
    assert kept(P, xtc_probability=1.0, xtc_threshold=0.35) == {0, 1, 2, 3}
    assert kept(P, xtc_probability=1.0, xtc_threshold=0.5) == {0, 1, 2, 3}
    assert kept(P, xtc_probability=1.0, xtc_threshold=1.0) == {0, 1, 2, 3}
    assert kept([0.19, 0.11, 0.3, 0.4], xtc_probability=1.0) == {1}  # the threshold is 0.1 by default
    assert kept([0.21, 0.09, 0.3, 0.4], xtc_probability=1.0) == {0, 1}
    assert kept([0.25] * 4, xtc_probability=1.0, xtc_threshold=0.2) == {3}
    assert kept([0.25] * 4, xtc_probability=1.0, xtc_threshold=0.26) == {0, 1, 2, 3}
    assert kept(P, xtc_probability=1.0, xtc_threshold=0.25, top_k=2) == {2}
    assert kept(P, xtc_probability=1.0, xtc_threshold=0.25, temperature=0.0) == {3}
    assert kept(P, xtc_probability=1.0, xtc_threshold=0.25, top_k=1) == {3}
    assert kept([0.97, 0.03], xtc_probability=1.0, xtc_threshold=0.1) == {0, 1}


def dynamic(T, r, e, probabilities):
    """The temperature by definition."""
    entropy = -sum(p * math.log(p) for p in probabilities)
    low = max(0.0, T - r)
    return low + (T + r - low) * (entropy / math.log(len(probabilities))) ** e


def test_dynamic_temperature_follows_the_entropy():
    row = logits_of(P)
    for T, r, e in ((1.0, 0.5, 1.0), (1.0, 0.5, 2.0), (0.3, 0.6, 0.5), (2.0, 2.0, 3.0), (1.0, 0.9, 0.0)):
        found = warpdraw.filter_probs(row, temperature=T, dynatemp_range=r, dynatemp_exponent=e)[0].tolist()
        assert found == near((row[0].double() / dynamic(T, r, e, P)).softmax(0).tolist())
    flat = warpdraw.filter_probs(torch.tensor([[0.0, 0.0, -1e-3]]), temperature=1.0, dynatemp_range=0.5)
    assert flat[0].tolist() == near((torch.tensor([0.0, 0.0, -1e-3]).double() / 1.5).softmax(0).tolist())
    assert kept_logits([0.0, 0.0, -5.0], temperature=1.0, dynatemp_range=0.0, dynatemp_exponent=3.0) == {0, 1, 2}
    assert probabilities_of([5.0, -INF], temperature=1.0, dynatemp_range=1.0) == [1.0, 0.0]
    assert kept(P, temperature=0.0) == {3}


def test_dynamic_temperature_counts_candidates_alone_and_after_the_edits():
    want = (torch.tensor([0.2, 0.3]).double().log() / dynamic(1.0, 0.5, 1.0, [0.4, 0.6])).softmax(0).tolist()
    found = warpdraw.filter_probs(logits_of(P), temperature=1.0, dynatemp_range=0.5, banned_ids=ids(0, 3))
    assert found[0].tolist() == [0.0, *near_each(want), 0.0]
    assert kept_logits([1.0, 1.0, -3.0], temperature=0.5, dynatemp_range=0.5, dynatemp_exponent=1e4) == {0}


def near_each(values):
    return [near(value) for value in values]


def test_dynamic_temperature_of_llama_cpp_sees_what_is_kept():
    three = [2 / 9, 3 / 9, 4 / 9]
    want = (torch.tensor(three).double().log() / dynamic(1.0, 0.5, 1.0, three)).softmax(0).tolist()
    found = warpdraw.filter_probs(logits_of(P), temperature=1.0, dynatemp_range=0.5, top_k=3, order="llama.cpp")
    assert found[0].tolist() == [0.0, *near_each(want)]


# How the filters follow each other.


def test_orders_of_the_long_tail():
    # Typical after top-p or before it: 0.4 and 0.3 of all are 0.7; of {0.3, 0.2} the first has 0.6.
    assert kept(P, typical_p=0.45, top_p=0.55, order="llama.cpp") == {2}
    assert kept(P, typical_p=0.45, top_p=0.55, order="vllm") == {3}  # 0.57 of the two is nearest to their entropy
    # min-p after typical compares with the largest that is left.
    assert kept(P, typical_p=0.45, min_p=0.6, order="llama.cpp") == {1, 2}
    assert kept(P, typical_p=0.45, min_p=0.6, order="hf") == {3}
    # Epsilon sees the mass that is left.
    for order in ORDERS:
        assert kept(P, top_k=2, epsilon=0.43, order=order) == {3}
        assert kept(P, top_k=3, xtc_probability=1.0, xtc_threshold=0.3, order=order) == {1, 2}
        assert kept(P, epsilon=0.15, xtc_probability=1.0, xtc_threshold=0.35, order=order) == {1, 2, 3}
        assert kept(P, eta=0.6, epsilon=0.5, order=order) == {3}


def test_everything_off_is_off_in_every_order():
    off = {
        "dynatemp_range": 0.0, "top_n_sigma": 0.0, "typical_p": 1.0, "epsilon": 0.0, "eta": 0.0, "vocab_size": 0,
        "xtc_probability": 0.0, "xtc_threshold": 0.0, "min_tokens": 0, "repetition_penalty": 1.0,
        "frequency_penalty": 0.0, "presence_penalty": 0.0, "dry_multiplier": 0.0, "no_repeat_ngram": 0,
        "banned_ids": ids(-1), "allowed_ids": ids(-1), "stop_ids": ids(3), "bias_ids": ids(-1), "bias": floats(9.0),
        "history": ids(3, 3, 3), "bitmask": ids(-1),
    }  # fmt: skip
    for order in ORDERS:
        found = probabilities_of(logits_of(P)[0].tolist(), **off, order=order)
        assert found == probabilities_of(logits_of(P)[0].tolist(), order=order)


def test_greedy_with_everything_on():
    row = [3.0, 3.5, 2.0, 3.5, 1.0, -1.0]
    on = {
        "dynatemp_range": 0.5, "top_n_sigma": 0.5, "typical_p": 0.1, "epsilon": 0.5, "eta": 0.5, "top_p": 0.1,
        "xtc_probability": 1.0, "xtc_threshold": 0.01, "min_p": 0.9, "top_k": 3,
    }  # fmt: skip
    edits = {
        "history": ids(1, 4, 1),
        "presence_penalty": 1.0,
        "no_repeat_ngram": 2,
        "bias_ids": ids(2),
        "bias": floats(1.5),
    }
    for order in ORDERS:
        assert kept_logits(row, temperature=0.0, **on, order=order) == {1}
        assert kept_logits(row, temperature=0.0, **on, **edits, order=order) == {2}
        assert kept_logits(row, temperature=0.0, **on, banned_ids=ids(1), order=order) == {3}
        assert kept_logits(row, **{**on, "top_k": 1}, order=order) == {1}


# Rows of every kind, and invalid ones.


def test_filters_keep_at_least_one_token_of_every_row_that_has_one():
    rows = rows_of(tuple(KINDS), 130, seed=7)
    has_one = (~rows.isnan() & (rows > -INF)).any(-1)
    tight = {"top_p": 0.0, "min_p": 1.0, "top_n_sigma": 1e-30, "typical_p": 0.0, "epsilon": 1.0, "eta": 1.0}
    xtc = {"xtc_probability": 1.0, "xtc_threshold": 0.0}
    for order in ORDERS:
        for name, value in {**tight, "xtc_probability": 1.0}.items():
            found = warpdraw.sample(rows, **{name: value}, xtc_threshold=0.0, order=order, kept_count=True)
            assert torch.equal(found.kept_count > 0, has_one)
            assert torch.equal(found.valid, has_one)
        found = warpdraw.sample(rows, **tight, **xtc, order=order, kept_count=True)
        assert torch.equal(found.kept_count, has_one.int())


INVALID = {
    "dynatemp_range": [-0.1, NAN, INF],
    "dynatemp_exponent": [-0.1, NAN, INF],
    "top_n_sigma": [-0.1, NAN, INF],
    "typical_p": [-0.1, NAN, INF],
    "epsilon": [-0.1, NAN, 1.5],
    "eta": [-0.1, NAN, 1.5],
    "xtc_probability": [-0.1, NAN, 1.5],
    "xtc_threshold": [-0.1, NAN, 1.5],
    "repetition_penalty": [0.0, -1.0, NAN, INF],
    "frequency_penalty": [NAN, INF, -INF],
    "presence_penalty": [NAN, INF, -INF],
    "dry_multiplier": [-0.1, NAN, INF],
    "dry_base": [0.5, NAN, INF],
    "vocab_size": [-1, 5, 2**31 - 1],
    "min_tokens": [-1],
    "prompt_length": [-1, 4],
    "history_length": [-1, 4],
    "dry_allowed_length": [0, -1],
    "no_repeat_ngram": [-1],
    "allowed_ids": [-2, 4, 2**31 - 1],
    "banned_ids": [-2, 4],
    "stop_ids": [-2, 4],
    "bias_ids": [-2, 4],
    "dry_breakers": [-2, 4],
    "history": [-1, 4],
    "bias": [NAN],
}


def test_an_invalid_entry_makes_only_its_row_invalid():
    good = {
        "dynatemp_range": torch.full((3,), 0.1), "dynatemp_exponent": torch.ones(3),
        "top_n_sigma": torch.full((3,), 9.0),
        "typical_p": torch.full((3,), 0.99), "epsilon": torch.full((3,), 1e-3), "eta": torch.full((3,), 1e-3),
        "xtc_probability": torch.full((3,), 0.5), "xtc_threshold": torch.full((3,), 0.45),
        "repetition_penalty": torch.full((3,), 1.1), "frequency_penalty": torch.full((3,), 0.1),
        "presence_penalty": torch.full((3,), 0.1), "dry_multiplier": torch.full((3,), 0.1),
        "dry_base": torch.full((3,), 1.5), "bias": torch.full((3, 2), 0.1),
        **dict.fromkeys(("vocab_size", "history_length", "dry_allowed_length"), one(3).repeat(3)),
        **dict.fromkeys(("min_tokens", "prompt_length", "no_repeat_ngram"), one(0).repeat(3)),
        **dict.fromkeys(("allowed_ids", "bias_ids", "dry_breakers"), ids(1, -1).repeat(3, 1)),
        **dict.fromkeys(("banned_ids", "stop_ids"), ids(0, -1).repeat(3, 1)),
        "history": ids(0, 1, 0).repeat(3, 1),
    }  # fmt: skip
    assert set(INVALID) == set(good)
    logits = logits_of(P).expand(3, -1)
    reports = {"logprob": True, "raw_logprob": True, "rank": True, "kept_count": True, "top_n": 2, "max_kept": 3}
    alone = warpdraw.sample(logits, **good, **reports)
    assert alone.valid.all()
    for name, values in INVALID.items():
        for value in values:
            entries = good[name].clone()
            entries[(1, 0)[: entries.dim()]] = value
            drawn = warpdraw.sample(logits, **{**good, name: entries}, **reports)
            assert drawn.valid.tolist() == [True, False, True], (name, value)
            assert drawn.tokens.tolist()[1] == -1
            assert drawn.rank.tolist()[1] == drawn.kept_count.tolist()[1] == 0
            assert drawn.logprob.isnan().tolist() == drawn.raw_logprob.isnan().tolist() == [False, True, False]
            assert drawn.kept_ids[1].tolist() == [-1] * 3
            assert drawn.top_ids[1].tolist() == [-1] * 2
            assert drawn.top_logprobs[1].tolist() == [-INF] * 2
            for row in (0, 2):
                assert [x[row].tolist() for x in drawn] == [x[row].tolist() for x in alone]
            filtered = warpdraw.filter_logits(logits, **{**good, name: entries})
            assert (filtered == -INF).all(-1).tolist() == [False, True, False]


def test_an_unread_history_may_hold_anything():
    assert kept(P, history=ids(-5, 99, 2**31 - 1)) == {0, 1, 2, 3}
    assert kept(P, history=ids(-5, 99), min_tokens=2, stop_ids=ids(3)) == {0, 1, 2, 3}
    assert kept(P, history=ids(-5, 99), min_tokens=3, stop_ids=ids(3)) == {0, 1, 2}


# Reports.


def report(row, **params):
    reports = {"logprob": True, "raw_logprob": True, "rank": True, "kept_count": True}
    return warpdraw.sample(torch.tensor([row]), **{**reports, **params})


def test_rank_and_raw_logprob_are_of_the_row_as_it_was_given():
    drawn = report(logits_of(P)[0].tolist(), temperature=0.0)
    assert (drawn.tokens.item(), drawn.rank.item(), drawn.kept_count.item(), drawn.logprob.item()) == (3, 1, 1, 0.0)
    drawn = report(logits_of(P)[0].tolist(), temperature=0.0, banned_ids=ids(3))
    assert (drawn.tokens.item(), drawn.rank.item(), drawn.kept_count.item(), drawn.logprob.item()) == (2, 2, 1, 0.0)
    assert drawn.raw_logprob.item() == near(math.log(0.3))
    drawn = report(logits_of(P)[0].tolist(), bias_ids=ids(0), bias=floats(30.0), temperature=0.5)
    assert (drawn.tokens.item(), drawn.rank.item(), drawn.kept_count.item()) == (0, 4, 4)
    assert drawn.raw_logprob.item() == near(math.log(0.1))
    assert report([1.0, 1.0, 1.0], allowed_ids=ids(2)).rank.item() == 3
    assert report([NAN, 1.0, -INF, 0.0], allowed_ids=ids(3)).rank.item() == 2
    drawn = report([INF, 1.0, INF, 0.0], banned_ids=ids(0, 2), temperature=0.0)
    assert (drawn.tokens.item(), drawn.rank.item(), drawn.raw_logprob.item()) == (1, 3, -INF)
    drawn = report([-0.0, 0.0], allowed_ids=ids(1))
    assert drawn.rank.item() == 2


def test_kept_ids_are_ascending_and_padded():
    row = logits_of(P)[0].tolist()
    assert report(row, top_k=3, max_kept=4).kept_ids.tolist() == [[1, 2, 3, -1]]
    assert report(row, top_k=3, max_kept=2).kept_ids.tolist() == [[1, 2]]
    assert report(row, top_k=3, max_kept=2).kept_count.tolist() == [3]
    assert report(row[::-1], top_k=2, max_kept=3).kept_ids.tolist() == [[0, 1, -1]]
    assert report(row).kept_ids is None
    assert report([NAN, -INF], max_kept=2).kept_ids.tolist() == [[-1, -1]]
    xtc = {"xtc_probability": 1.0, "xtc_threshold": 0.25}
    assert report(row, **xtc, max_kept=4).kept_ids.tolist() == [[0, 1, 2, -1]]
    found = report([0.0] * 200, bitmask=ids(0, 1, 0, -(2**31), 0, 6, 0), max_kept=5)
    assert found.kept_ids.tolist() == [[32, 127, 161, 162, -1]]


def test_top_tokens_of_the_raw_and_of_the_filtered_distribution():
    row = logits_of(P)[0].tolist()
    found = report(row, top_n=2)
    assert found.top_ids.tolist() == [[3, 2]]
    assert found.top_logprobs[0].tolist() == near([math.log(0.4), math.log(0.3)])
    found = report(row, top_n=2, temperature=0.5, banned_ids=ids(3), bias_ids=ids(0), bias=floats(9.0))
    assert found.top_ids.tolist() == [[3, 2]]
    assert found.top_logprobs[0].tolist() == near([math.log(0.4), math.log(0.3)])
    found = report(row, top_n=4, top_of="filtered", temperature=0.5, top_k=2)
    assert found.top_ids.tolist() == [[3, 2, -1, -1]]
    assert found.top_logprobs[0].tolist() == [*near_each([math.log(0.64), math.log(0.36)]), -INF, -INF]
    found = report(row, top_n=3, top_of="filtered", bias_ids=ids(0), bias=floats(math.log(6)))
    assert found.top_ids.tolist() == [[0, 3, 2]]
    assert found.top_logprobs[0].tolist() == near([math.log(p) for p in (0.6 / 1.5, 0.4 / 1.5, 0.3 / 1.5)])
    found = report(row, top_n=3, top_of="filtered", xtc_probability=1.0, xtc_threshold=0.15)
    assert found.top_ids.tolist() == [[1, 0, -1]]
    assert report([1.0] * 5, top_n=3).top_ids.tolist() == [[0, 1, 2]]
    assert report([NAN, 0.0, -INF], top_n=3).top_ids.tolist() == [[1, -1, -1]]
    assert report([INF, 0.0, INF], top_n=3).top_ids.tolist() == [[0, 2, -1]]
    assert report([INF, 0.0, INF], top_n=3).top_logprobs[0].tolist() == [near(-LOG2), near(-LOG2), -INF]
    assert report([NAN, -INF], top_n=1).top_ids.tolist() == [[-1]]
    assert report(row, banned_ids=ids(0, 1, 2, 3), top_n=2).top_ids.tolist() == [[-1, -1]]
    assert report(row).top_ids is None


def test_kept_csr_packs_what_was_kept():
    logits = torch.tensor([[3.0, 1.0, 2.0], [NAN, NAN, NAN], [0.0, 9.0, 0.0]])
    drawn = warpdraw.sample(logits, min_p=0.3, kept_count=True, max_kept=3)
    offsets, packed = warpdraw.kept_csr(drawn.kept_count, drawn.kept_ids)
    assert (offsets.dtype, packed.dtype) == (torch.int64, torch.int32)
    assert (offsets.tolist(), packed.tolist()) == ([0, 2, 2, 3], [0, 2, 1])
    cut = warpdraw.sample(logits, kept_count=True, max_kept=2)
    with pytest.raises(ValueError, match="kept_ids: expected max_kept of at least 3 for row 0, got 2"):
        warpdraw.kept_csr(cut.kept_count, cut.kept_ids)
    with pytest.raises(TypeError, match=r"kept_count: expected a tensor \[B\] of int32, got torch.int64"):
        warpdraw.kept_csr(cut.kept_count.long(), cut.kept_ids)
    with pytest.raises(ValueError, match="kept_ids: expected shape"):
        warpdraw.kept_csr(cut.kept_count, cut.kept_ids[:2])
