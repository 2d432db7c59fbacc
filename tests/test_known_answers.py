"""Known answers: Philox against published vectors, the arithmetic against frozen bits and float64, frozen draws."""

import functools
import math

import checks
import pytest
import torch
from conftest import BACKENDS, NATIVE, runnable

import warpdraw
from warpdraw import _C
from warpdraw.ops.noise import philox

# The Random123 distribution's table (kat_vectors, philox4x32 with 10 rounds): counter, key, result.
PHILOX = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
EXPONENTIALS = [
    (0x00000000, "0x1.0000000000000p-33"),
    (0x00000001, "0x1.8000000000000p-32"),
    (0x00000002, "0x1.4000000000000p-31"),
    (0x000000FF, "0x1.ff00000000000p-25"),
    (0x3FFFFFFF, "0x1.2696200000000p-2"),
    (0x40000000, "0x1.2696200000000p-2"),
    (0x40000001, "0x1.2696200000000p-2"),
    (0x7FFFFFFF, "0x1.62e4300000000p-1"),
    (0x80000000, "0x1.62e4300000000p-1"),
    (0xBFFFFFFF, "0x1.62e4300000000p+0"),
    (0xC0000000, "0x1.62e4300000000p+0"),
    (0xDEADBEEF, "0x1.04fd500000000p+1"),
    (0xFFFFFFFE, "0x1.5c67680000000p+4"),
    (0xFFFFFFFF, "0x1.6dfb520000000p+4"),
]
WEIGHTS = [
    (0.0, "0x1.0000000000000p+0"),
    (-0.0, "0x1.0000000000000p+0"),
    (-1e-07, "0x1.fffffe0000000p-1"),
    (-0.25, "0x1.ae89f80000000p-1"),
    (-0.5, "0x1.6a09e80000000p-1"),
    (-0.75, "0x1.306fde0000000p-1"),
    (-1.5, "0x1.6a09e80000000p-2"),
    (-2.5849626064300537, "0x1.5555560000000p-3"),
    (-10.1, "0x1.ddb6780000000p-11"),
    (-39.9, "0x1.125fac0000000p-40"),
    (-100.37, "0x1.8c2d060000000p-101"),
    (-125.99, "0x1.01c7f00000000p-126"),
    (-126.0, "0x1.0000000000000p-126"),
    (-126.00001, "0x0.0p+0"),
    (-1000.0, "0x0.0p+0"),
    (-math.inf, "0x0.0p+0"),
    (math.nan, "0x0.0p+0"),
]
DRAWS = {
    "unfiltered": [556, 105, 344, 335, 540, 82],
    "greedy": [506, 726, 626, 144, 86, 269],
    "vllm 0": [870, 100, 779, 504, 931, 882],
    "vllm 1": [471, 984, 602, 201, 643, 48],
    "hf 0": [169, 61, 617, 700, 386, 312],
    "hf 1": [958, 254, 844, 201, 83, 647],
    "flashinfer-joint 0": [635, 335, 692, 752, 761, 588],
    "flashinfer-joint 1": [662, 334, 428, 129, 447, 689],
    "llama.cpp 0": [185, 876, 863, 946, 49, 336],
    "llama.cpp 1": [587, 642, 598, 237, 977, 941],
    "vllm features": [57, 368, 323, 209, 485, 603],
    "hf features": [851, 100, 786, 953, 34, 465],
    "flashinfer-joint features": [450, 635, 327, 157, 935, 509],
    "llama.cpp features": [675, 576, 46, 855, 923, 765],
}


def numerics(backend: str, exponents: torch.Tensor, bits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The weights of fp32 exponents and the exponentials of 32 random bits, as a backend computes them."""
    size = (len(exponents) + 63) // 64 * 64  # backends take whole vectors
    padded = torch.zeros(size)
    padded[: len(exponents)] = exponents
    words = torch.zeros(size, dtype=torch.int32)
    words[: len(bits)] = torch.where(bits >= 2**31, bits - 2**32, bits).to(torch.int32)
    weights, exponentials = torch.empty(size), torch.empty(size)
    BACKENDS[backend].module.numerics(padded, words, weights, exponentials)
    return weights[: len(exponents)], exponentials[: len(bits)]


def weights_of(backend: str, exponents: torch.Tensor) -> torch.Tensor:
    return numerics(backend, exponents, torch.zeros(len(exponents), dtype=torch.int64))[0]


def exponentials_of(backend: str, bits: torch.Tensor) -> torch.Tensor:
    return numerics(backend, torch.zeros(len(bits)), bits)[1]


@pytest.mark.parametrize(("counter", "key", "expected"), PHILOX)
def test_philox_equals_the_published_vectors(counter, key, expected):
    assert _C.numerics.philox(*counter, *key) == expected
    words = philox([torch.tensor(word) for word in counter], [torch.tensor(word) for word in key])
    assert tuple(word.item() for word in words) == expected


def test_a_row_reads_its_words_from_the_counter_of_four_that_holds_the_index():
    seed, position, stream = -0x123456789ABCDEF, 0x0FEDCBA987654321, 1
    key = (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF)
    for index in (0, 1, 2, 3, 4, 130, 255):
        counter = (index // 4, position & 0xFFFFFFFF, position >> 32, stream)
        expected = _C.numerics.philox(*counter, *key)[index % 4]
        assert _C.numerics.noise_bits(seed, position, stream, index) == expected


@pytest.mark.parametrize("name", NATIVE)
def test_exponentials_are_frozen(name):
    bits = torch.tensor([bits for bits, _ in EXPONENTIALS])
    assert [float(e).hex() for e in exponentials_of(runnable(name), bits)] == [e for _, e in EXPONENTIALS]


@pytest.mark.parametrize("name", NATIVE)
def test_weights_are_frozen(name):
    exponents = torch.tensor([t for t, _ in WEIGHTS])
    assert [float(w).hex() for w in weights_of(runnable(name), exponents)] == [w for _, w in WEIGHTS]


@functools.cache
def exact_exponentials() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """A million random words, and half a million at both ends and where the formula changes, with float64 answers."""
    run, generator = torch.arange(500_000), torch.Generator().manual_seed(1)
    words = torch.randint(0, 2**32, (1_000_000,), generator=generator).sort().values
    cases = []
    for bits in (words, run, 2**30 - 250_000 + run, 2**32 - 1 - run.flip(0)):
        below, above = (bits.double() + 0.5) / 2**32, (2**32 - 0.5 - bits.double()) / 2**32
        cases.append((bits, torch.where(below < 0.5, -torch.log1p(-below), -torch.log(above))))
    return cases


@pytest.mark.parametrize("name", NATIVE)
def test_exponentials_are_accurate_and_never_fall(name):
    for bits, exact in exact_exponentials():
        found = exponentials_of(runnable(name), bits)
        assert (found.double() / exact - 1).abs().max() < 2**-21.5
        assert (found.diff() >= 0).all()


@pytest.mark.parametrize("name", NATIVE)
def test_weights_are_exact_at_integers_and_zero_below(name):
    whole = -torch.arange(127).float()
    assert torch.equal(weights_of(runnable(name), whole), torch.exp2(whole.double()).float())
    below = torch.nextafter(torch.tensor(-126.0), torch.tensor(-200.0))
    assert weights_of(name, torch.tensor([below, -127.0, -3e38])).tolist() == [0.0] * 3


@pytest.mark.parametrize("name", NATIVE)
def test_weights_are_accurate_and_monotone_over_every_fraction(name):
    """Every fp32 exponent in [-2, -1], so every fraction that has 23 bits; then where the power of two changes."""
    bits = torch.arange(0x3F800000, 0x40000001, dtype=torch.int32)
    exponents = -bits.view(torch.float32)
    found = weights_of(runnable(name), exponents)
    assert (found.diff() <= 0).all()
    assert (found.double() / torch.exp2(exponents.double()) - 1).abs().max() < 2**-22.5

    around = (-torch.arange(1, 126).float()).view(torch.int32)[:, None] + torch.arange(-40, 41, dtype=torch.int32)
    exponents = around.flatten().view(torch.float32)  # more bits: more negative
    found = weights_of(name, exponents)
    assert (found.diff() <= 0).all()
    assert (found.double() / torch.exp2(exponents.double()) - 1).abs().max() < 2**-22.5

    near_zero = -torch.cat([torch.tensor([0.0]), 2.0 ** torch.arange(-149, 0)]).float()
    assert (weights_of(name, near_zero).diff() <= 0).all()


def test_mass_is_the_floor_of_the_weight_in_units_of_two_to_minus_forty():
    assert [_C.numerics.mass(weight) for weight in (1.0, 0.75, 0.0)] == [2**40, 3 * 2**38, 0]
    assert [_C.numerics.mass(units * 2.0**-40) for units in (0.5, 1.0, 1.999, 1e6)] == [0, 1, 1, 10**6]


@pytest.mark.parametrize("name", NATIVE)
def test_weights_below_a_unit_of_mass_count_for_nothing(name):
    """70,000 weights of 0.75 units: rounded up they are more than the 2^-24 that p leaves out, floored they are 0."""
    row = torch.full((1, 70_000), math.log(0.75 * 2**-40))
    row[0, 3] = 0.0
    with warpdraw.use(runnable(name)):
        kept = warpdraw.filter_logits(row, top_p=1 - 2**-24) > -math.inf
    assert kept.nonzero().tolist() == [[0, 3]]


def test_log_mass_is_accurate_to_double_precision():
    for mass in (1, 2, 3, 1000, 2**40 - 1, 2**40, 2**40 + 1, 3 * 2**40, 123456789012345, 2**60):
        assert _C.numerics.log_mass(mass) == pytest.approx(math.log(mass / 2**40), rel=1e-15, abs=1e-15)
    assert _C.numerics.log_mass(2**40) == 0.0
    assert _C.numerics.log_mass(1000).hex() == "-0x1.4d1711854c883p+4"
    assert _C.numerics.log_mass(123456789012345).hex() == "0x1.2e254677fe584p+2"


def test_the_coin_of_xtc_is_word_0_of_stream_2(backend):
    """It turns where the probability passes (r + 1/2) / 2^32."""
    row = torch.tensor([[1.0, 1.0, 0.0]])
    for seed, position in ((0, 0), (5, -1), (-(2**40), 2**50 + 3), (11, 12345)):
        bits = _C.numerics.noise_bits(seed, position, 2, 0)
        turn = (bits + 0.5) / 2**32
        for probability in (turn * (1 - 1e-6), turn * (1 + 1e-6)):
            single = torch.tensor(probability, dtype=torch.float32).item()
            params = {"xtc_probability": single, "xtc_threshold": 0.2, "seed": seed, "position": position}
            kept = warpdraw.filter_logits(row, **params)[0] > -math.inf
            assert kept.tolist() == [turn >= single, True, True]


def test_draws_are_frozen(backend):
    assert checks.known_draws() == DRAWS
