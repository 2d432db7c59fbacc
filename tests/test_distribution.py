"""The draw follows the exact distribution: a million draws a parameter set against float64, and negative controls."""

import checks
import pytest
import torch
from cases import INF
from checks import LEVEL, RARE, check_distribution, draw_many, few_tokens, spread_row

import warpdraw
from warpdraw.ops.noise import uniforms

MILLION = 1_000_000
JOINT, LLAMA = "flashinfer-joint", "llama.cpp"

PENALTIES = {
    "history": torch.tensor([[5, 6, 7, 8, 5, 6, 7, 9, 5, 6]], dtype=torch.int32),
    "prompt_length": 3, "repetition_penalty": 1.4, "frequency_penalty": 0.3, "presence_penalty": -0.9,
    "dry_multiplier": 1.1, "no_repeat_ngram": 4,
}  # fmt: skip
EDITS = {
    "bias_ids": torch.tensor([[3, 150, 3, -1]], dtype=torch.int32),
    "bias": torch.tensor([[1.5, 3.0, 0.5, 9.0]]),
    "banned_ids": torch.tensor([[9, 64, -1]], dtype=torch.int32),
    "bitmask": torch.tensor([[-1, -2, 0x7FFFFFF0, -1, -1, -1, -1]], dtype=torch.int32),
    "vocab_size": 190,
}

# V, standard deviation of the logits, what varies from draw to draw, parameters.
SETS = [
    (257, 2.0, "position", {}),
    (3001, 1.0, "seed", {"position": 2**40}),
    (1000, 3.0, "position", {"temperature": 0.5, "seed": -7}),
    (640, 2.0, "seed", {"temperature": 2.5, "position": 9}),
    (2050, 2.0, "position", {"top_k": 50, "seed": 2**62}),
    (300, 2.0, "seed", {"top_p": 0.9}),
    (1500, 2.0, "position", {"min_p": 0.02, "seed": 3}),
    (1000, 2.0, "position", {"temperature": 0.8, "top_k": 50, "top_p": 0.9, "min_p": 0.05, "seed": 11}),
    (450, 1.5, "seed", {"temperature": 1.3, "top_p": 0.7, "min_p": 0.01, "order": "hf", "position": -1}),
    (500, 1.5, "position", {"temperature": 1.2, "top_k": 100, "top_p": 0.5, "order": JOINT, "seed": 5}),
    (700, 2.0, "seed", {"temperature": 1.6, "top_k": 80, "top_p": 0.95, "min_p": 0.02, "order": LLAMA}),
    (333, 0.7, "position", {"temperature": 0.3, "top_p": 0.99, "order": LLAMA, "seed": 2**33}),
    (400, 2.0, "position", {"typical_p": 0.6, "seed": 12}),
    (400, 2.0, "seed", {"typical_p": 0.8, "top_p": 0.95, "order": LLAMA}),
    (300, 1.5, "position", {"xtc_probability": 0.3, "xtc_threshold": 0.02, "seed": 1}),
    (300, 1.5, "seed", {"xtc_probability": 0.7, "xtc_threshold": 0.03, "top_k": 9, "temperature": 1.4, "order": LLAMA}),
    (500, 2.0, "position", {"dynatemp_range": 0.6, "dynatemp_exponent": 1.5, "min_p": 0.01}),
    (500, 2.0, "seed", {"dynatemp_range": 0.6, "temperature": 1.2, "top_k": 60, "order": LLAMA}),
    (500, 2.0, "position", {"top_n_sigma": 1.5, "epsilon": 0.004, "eta": 0.02}),
    (200, 1.0, "position", {**PENALTIES, "temperature": 0.8}),
    (200, 1.0, "seed", {**PENALTIES, **EDITS, "top_p": 0.97, "order": "hf"}),
]


@pytest.mark.parametrize("case", range(len(SETS)), ids=lambda case: f"V{SETS[case][0]} {'+'.join(SETS[case][3])}")
def test_a_million_draws(threads, case):
    threads(2)
    V, deviation, vary, params = SETS[case]
    inside_band = check_distribution(spread_row(V, case, deviation), MILLION, vary, **params)
    assert inside_band <= 10  # draws of tokens that only the 1e-6 band at the boundary allows


def test_draws_of_neighbouring_positions_and_seeds_are_independent(threads):
    threads(2)
    checks.check_independence(300_000)


def test_three_draws_in_a_row_are_independent():
    """All triples of consecutive positions, of tokens in one tile and in three."""
    for ids in ((0, 1, 2, 3), (0, 64, 128, 129)):
        row = few_tokens(ids, 192)
        tokens = draw_many(row, 300_000, "position", seed=21)
        index = torch.stack([(tokens == token).long() * number for number, token in enumerate(ids)]).sum(0).view(-1, 3)
        counts = torch.bincount(index @ torch.tensor([16, 4, 1]), minlength=64)
        single = row[list(ids)].double().softmax(0)
        joint = torch.einsum("i,j,k->ijk", single, single, single).flatten()
        checks.assert_distribution(counts, joint, f"triples of {ids}")


def test_the_winning_tile_says_nothing_about_the_token_inside():
    """Two full tiles with the same logits: which one wins must not change the distribution within."""
    inner = 0.7 * torch.randn(64, generator=torch.Generator().manual_seed(2))
    tokens = draw_many(inner.repeat(2), 400_000, "position", seed=4)
    joint = (inner.double().softmax(0) / 2).repeat(2)
    checks.assert_distribution(torch.bincount(tokens, minlength=128), joint, "two equal tiles")


def test_all_rows_of_a_batch_are_independent():
    """One position, one seed a row: different rows of a batch do not share noise."""
    ids = (0, 70, 140)
    rows = few_tokens(ids, 192).expand(200_000, -1)
    tokens = warpdraw.sample(rows, seed=torch.arange(200_000), position=1).tokens // 64
    counts = torch.bincount(tokens[::2] * 3 + tokens[1::2], minlength=9)
    single = few_tokens(ids, 192)[list(ids)].double().softmax(0)
    checks.assert_distribution(counts, torch.outer(single, single).flatten(), "pairs of rows")


def test_noise_in_the_tails(native):
    """Rare numbers, found by search: there a uniform number of 24 bits would draw another token."""
    checks.check_tails()


def test_equal_keys(native):
    checks.check_level_keys()


@pytest.mark.parametrize("stream", RARE)
def test_a_uniform_number_of_24_bits_would_fail_the_tail_test(stream):
    """Negative control: cut the 32 bits to 24, and the turning point moves by more than the tail test allows."""
    from warpdraw import _C

    moved = 0
    for position in RARE[stream]:
        for index in (0, 1):
            bits = _C.numerics.noise_bits(1, position, list(RARE).index(stream), index)
            fine = -torch.log1p(-(torch.tensor(bits, dtype=torch.float64) + 0.5) / 2**32)
            coarse = -torch.log1p(-(torch.tensor(bits >> 8, dtype=torch.float64) + 0.5) / 2**24)
            moved += abs((coarse / fine).log().item()) > 0.01
    assert moved >= len(RARE[stream])


def test_positions_of_equal_keys_have_different_bits():
    from warpdraw import _C

    for number, positions in enumerate(LEVEL.values()):
        for position in positions:
            first, second = (_C.numerics.noise_bits(1, position, number, index) for index in (0, 1))
            assert first != second
            assert _C.numerics.exponential(first) == _C.numerics.exponential(second)


# XTC's coin.


def test_the_coin_of_xtc_comes_up_as_often_as_it_should():
    row = few_tokens((0, 1), 64)
    for probability in (0.001, 0.25, 0.5, 0.999):
        for vary, other in (("position", "seed"), ("seed", "position")):
            params = {"xtc_probability": probability, "xtc_threshold": 0.1, "top_k": 2, other: 9}
            tokens = draw_many(row, 200_000, vary, **params)
            heads, first = probability, torch.tensor([0.0, -0.35]).double().softmax(0)[0].item()
            expected = torch.tensor([(1 - heads) * first, 1 - (1 - heads) * first]).double()
            checks.assert_distribution(torch.bincount(tokens, minlength=2), expected, f"coin of {probability}")


def test_the_coin_of_xtc_is_independent_of_the_draw():
    """Four tokens, of which the coin drops the first: where it says no, the draw is as ever; pairs of coin and draw."""
    ids = (0, 1, 64, 130)
    rows = few_tokens(ids, 192)
    params = {"xtc_probability": 0.5, "xtc_threshold": 0.27, "seed": 3}
    position = torch.arange(400_000)
    kept = warpdraw.sample(rows.expand(400_000, -1), **params, position=position, kept_count=True)
    plain = warpdraw.sample(rows.expand(400_000, -1), seed=3, position=position)
    tails = kept.kept_count == 4
    assert torch.equal(kept.tokens[tails], plain.tokens[tails])
    number = torch.stack([(plain.tokens == token).long() * place for place, token in enumerate(ids)]).sum(0)
    single = rows[list(ids)].double().softmax(0)
    joint = torch.outer(torch.tensor([0.5, 0.5]).double(), single).flatten()
    checks.assert_distribution(torch.bincount(tails.long() * 4 + number, minlength=8), joint, "coin and token")


def test_coins_of_neighbouring_positions_are_independent():
    row = few_tokens((0, 1), 64).expand(400_000, -1)
    params = {"xtc_probability": 0.5, "xtc_threshold": 0.1, "kept_count": True}
    coins = warpdraw.sample(row, **params, position=torch.arange(400_000)).kept_count - 1
    for step in (1, 2, 4):
        pairs = coins[:-step] * 2 + coins[step:]
        checks.assert_distribution(torch.bincount(pairs, minlength=4), torch.full((4,), 0.25).double(), f"step {step}")


def test_a_coin_that_shares_noise_with_the_draw_is_refused():
    """Negative control: a coin from the tile's stream is tied to the winner."""
    ids = (0, 64)
    rows = few_tokens(ids, 128).expand(100_000, -1)
    position = torch.arange(100_000)
    tokens = warpdraw.sample(rows, position=position).tokens
    noise = uniforms(torch.zeros(100_000, dtype=torch.int64), position, "tile", 1)[:, 0]
    pairs = (noise < 0.5).long() * 2 + (tokens == 64).long()
    single = rows[0, list(ids)].double().softmax(0)
    joint = torch.outer(torch.tensor([0.5, 0.5]).double(), single).flatten()
    with pytest.raises(AssertionError, match="chi-square"):
        checks.assert_distribution(torch.bincount(pairs, minlength=4), joint, "coin and token")


# Negative controls: what the statistics must refuse. Each planted error changes the draw, not the expectation.

WRONG = {
    "a hundredth hotter": ({"temperature": 1.01}, {"temperature": 1.0}),
    "temperature ignored": ({"temperature": 1.0}, {"temperature": 0.9}),
    "one token more": ({"top_k": 51}, {"top_k": 50}),
    "one token less": ({"top_k": 49}, {"top_k": 50}),
    "top-p of all mass": ({"top_k": 50, "top_p": 0.9, "order": JOINT}, {"top_k": 50, "top_p": 0.9}),
    "another order": ({"min_p": 0.05, "top_p": 0.9, "order": "hf"}, {"min_p": 0.05, "top_p": 0.9}),
    "temperature first": (
        {"temperature": 0.7, "top_p": 0.9},
        {"temperature": 0.7, "top_p": 0.9, "order": LLAMA},
    ),
    "min-p a little loose": ({"min_p": 0.02}, {"min_p": 0.05}),
    "coin a hundredth too often": (
        {"xtc_probability": 0.51, "xtc_threshold": 0.02},
        {"xtc_probability": 0.5, "xtc_threshold": 0.02},
    ),
    "typical from the top": ({"top_p": 0.6}, {"typical_p": 0.6}),
    "dynamic temperature of another exponent": (
        {"dynatemp_range": 0.5, "dynatemp_exponent": 1.1},
        {"dynatemp_range": 0.5, "dynatemp_exponent": 1.0},
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_draws_are_refused(threads, monkeypatch, name):
    threads(2)
    drawn, claimed = WRONG[name]
    original = warpdraw.sample
    row = spread_row(120, seed=1)
    check_distribution(row, MILLION, **claimed)
    monkeypatch.setattr(
        warpdraw, "sample", lambda rows, **kwargs: original(rows, **{"position": kwargs["position"], **drawn})
    )
    with pytest.raises(AssertionError, match=r"chi-square|outside the support"):
        check_distribution(row, MILLION, **claimed)


def test_shared_noise_is_refused(monkeypatch):
    original = warpdraw.sample
    monkeypatch.setattr(
        warpdraw, "sample", lambda rows, position, **kwargs: original(rows, position=position // 2, **kwargs)
    )
    with pytest.raises(AssertionError, match="pairs at position"):
        checks.check_independence(20_000)


def test_one_missing_rare_token_is_refused():
    row = spread_row(257, seed=0)
    probabilities = checks.reference_probabilities(row)
    counts = torch.bincount(draw_many(row, 200_000, "position"), minlength=257)
    checks.assert_distribution(counts, probabilities, "as drawn")
    token = int((probabilities - 0.002).abs().argmin())
    counts[token] = 0
    with pytest.raises(AssertionError, match="chi-square"):
        checks.assert_distribution(counts, probabilities, "one token missing")


def test_chi_square_merges_rare_bins():
    counts, expected = torch.tensor([0, 1, 3, 30, 66]), torch.tensor([1.0, 2.0, 4.0, 31.0, 62.0])
    statistic, df = checks.chi_square(counts, expected)
    assert df == 1
    assert statistic == pytest.approx((34 - 38) ** 2 / 38 + (66 - 62) ** 2 / 62)
    assert (checks.few_tokens((1,), 3) == torch.tensor([-INF, 0.0, -INF])).all()
