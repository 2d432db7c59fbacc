"""What any backend must satisfy: certificates against float64, statistics of the draw, rows that stand alone.

Every check runs the public ops on the backend that the surrounding `with warpdraw.use(name)` forces, and fails with an
AssertionError. The test files run the checks on the real backends, test_mutants.py runs them on planted bugs.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from cases import EXACT_KINDS, INF, ORDERS, TILE, batch_of, inputs_of, sizes_of, slice_like
from certificates import arguments_of, check_draw, check_kept, check_probabilities, kept_between, same_bits
from torch import Tensor

import warpdraw
from warpdraw.contract import size_of
from warpdraw.op import OPS
from warpdraw.ops.filters import kept_tokens
from warpdraw.ops.noise import exponentials

SENTINEL = 97


def run(op: Any, inputs: dict[str, Any]) -> dict[str, Tensor]:
    """All outputs of an op, on the CPU; written into slices of larger tensors that must stay as they were elsewhere."""
    first = next(iter(inputs.values()))
    sizes = sizes_of(op, inputs)
    buffers = {}
    for spec in op.contract.outputs:
        shape = [size_of(size, sizes) for size in spec.sizes]
        if not all(shape[1:]):
            continue  # a list of no places
        dtype = inputs[spec.same_dtype_as].dtype if spec.same_dtype_as else spec.dtypes[0]
        buffers[spec.name] = slice_like(torch.zeros(shape, dtype=dtype, device=first.device), SENTINEL)
    op(**inputs, **buffers)
    for name, buffer in buffers.items():
        whole = torch.empty(0, dtype=buffer.dtype, device=buffer.device).set_(buffer.untyped_storage())
        around = torch.ones_like(whole, dtype=torch.bool)
        around.as_strided(buffer.shape, buffer.stride(), buffer.storage_offset()).fill_(False)
        untouched = torch.full_like(whole, SENTINEL)
        assert torch.equal(whole[around], untouched[around]), f"{op.name} wrote outside of {name}"
    return {name: buffer.clone().cpu() for name, buffer in buffers.items()}


def assert_same(got: dict[str, Tensor], want: dict[str, Tensor], context: Any) -> None:
    for name, tensor in want.items():
        if tensor is None:
            assert got[name] is None, f"{name} was not asked for; {context}"
            continue
        different = ~same_bits(got[name], tensor)
        if different.any():
            where = different.nonzero()[0].tolist()
            raise AssertionError(
                f"{name} differs in {int(different.sum())} places, first at {where}: got {got[name][tuple(where)]}, "
                f"expected {tensor[tuple(where)]}; {context}"
            )


def check_against_reference(
    sizes: tuple[int, ...],
    repeats: int,
    dtype: torch.dtype = torch.float32,
    seed: int = 1,
    kinds: tuple[str, ...] = EXACT_KINDS,
) -> None:
    """Kept sets, probabilities and draws of mixed rows and parameters, in every order, against float64."""
    in_band = rows = 0
    for index, V in enumerate(sizes):
        for choice in range(len(ORDERS)):
            number = len(ORDERS) * (seed + index) + choice
            inputs = inputs_of(OPS["sample"], V, dtype, number, kinds, repeats)
            in_band += check_kept(inputs)
            rows += len(inputs["logits"])
            check_probabilities(inputs)
            check_draw(inputs)
    assert in_band <= 0.1 * rows, f"the certificate says little: {in_band} of {rows} rows have tokens inside the band"


# --------------------------------------------------------------------------------------------------------------------
# Statistics of the draw.


def chi_square(counts: Tensor, expected: Tensor) -> tuple[float, int]:
    """Pearson's statistic and its degrees of freedom, the rarest bins merged until each expects at least 10."""
    bins: list[list[float]] = []
    seen = wanted = 0.0
    for index in expected.argsort().tolist():
        seen, wanted = seen + counts[index].item(), wanted + expected[index].item()
        if wanted >= 10:
            bins.append([seen, wanted])
            seen = wanted = 0.0
    bins[-1] = [bins[-1][0] + seen, bins[-1][1] + wanted]
    return sum((seen - wanted) ** 2 / wanted for seen, wanted in bins), len(bins) - 1


def assert_distribution(counts: Tensor, probabilities: Tensor, context: str) -> None:
    """Chi-square below df + 10 sqrt(2 df): ten standard deviations."""
    statistic, df = chi_square(counts, probabilities * counts.sum())
    limit = df + 10 * math.sqrt(2 * df)
    assert statistic <= limit, f"chi-square {statistic:.1f} of {df} degrees of freedom exceeds {limit:.1f}: {context}"


def draw_many(row: Tensor, draws: int, vary: str, chunk: int = 100_000, start: int = 0, **params: Any) -> Tensor:
    """Tokens drawn from one row [V], each at its own position or under its own seed; the row is stored once."""
    found = []
    for begin in range(start, start + draws, chunk):
        varied = torch.arange(begin, min(begin + chunk, start + draws))
        rows = {name: x.expand(len(varied), -1) for name, x in params.items() if isinstance(x, Tensor)}
        found.append(warpdraw.sample(row.expand(len(varied), -1), **{**params, **rows, vary: varied}).tokens)
    return torch.cat(found)


def _by_coin(params: dict[str, Any]) -> list[tuple[float, dict[str, Any]]]:
    """The parameters with XTC's coin thrown, and the probability of each side."""
    heads = torch.tensor(params.get("xtc_probability", 0.0)).double().item()
    sides = ((1 - heads, 0.0), (heads, 1.0))
    return [(share, {**params, "xtc_probability": side}) for share, side in sides if share > 0]


def reference_probabilities(row: Tensor, **params: Any) -> Tensor:
    """The exact distribution of a row's draw, in float64."""
    return sum(
        share * kept_tokens(arguments_of({"logits": row[None], **side})).log_weights[0].softmax(-1)
        for share, side in _by_coin(params)
    )


def check_distribution(row: Tensor, draws: int, vary: str = "position", **params: Any) -> int:
    """Draws from one row follow the float64 distribution; returns how many fell inside the band at the boundary."""
    filters = {name: value for name, value in params.items() if name not in ("seed", "position")}
    probabilities = reference_probabilities(row, **filters)
    maybe = torch.stack([kept_between({"logits": row[None], **side})[1] for _, side in _by_coin(filters)]).any(0)
    tokens = draw_many(row, draws, vary, **params)
    assert (tokens >= 0).all(), "an invalid draw"
    counts = torch.bincount(tokens, minlength=len(row))
    outside = counts.masked_fill(maybe[0], 0).nonzero().flatten()
    assert len(outside) == 0, f"drew tokens outside the support: {outside[:5].tolist()}, {params}"
    inside = int(counts[probabilities == 0].sum())
    assert_distribution(counts, probabilities, f"{draws} draws, {params}")
    return inside


def spread_row(V: int, seed: int, deviation: float = 2.0) -> Tensor:
    """A row [V] of normal logits."""
    return deviation * torch.randn(V, generator=torch.Generator().manual_seed(seed))


def few_tokens(ids: tuple[int, ...], V: int) -> Tensor:
    """A row [V] of which only some ids are candidates, with falling probabilities."""
    row = torch.full((V,), -INF)
    row[list(ids)] = -0.35 * torch.arange(len(ids)).float()
    return row


SMALL_SETS: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 0.6, "top_k": 40},
    {"temperature": 1.7, "top_p": 0.9},
    {"temperature": 1.3, "min_p": 0.02, "top_p": 0.8, "order": "hf"},
    {"temperature": 0.7, "top_p": 0.95, "min_p": 0.05, "order": "llama.cpp"},
    {"top_k": 20, "top_p": 0.5, "order": "flashinfer-joint"},
    {"typical_p": 0.7, "dynatemp_range": 0.4},
    {"xtc_probability": 0.4, "xtc_threshold": 0.02, "top_n_sigma": 2.0},
    {"eta": 0.05, "epsilon": 0.003, "repetition_penalty": 1.5, "history": torch.arange(9, dtype=torch.int32)[None]},
)


def check_distributions(draws: int, V: int = 201) -> None:
    """Every order and filter, at a size that a slow backend can afford."""
    for index, params in enumerate(SMALL_SETS):
        vary, other = (("position", "seed"), ("seed", "position"))[index % 2]
        check_distribution(spread_row(V, seed=index), draws, vary, **{other: 5 + 2**33 * index}, **params)


def check_independence(pairs: int) -> None:
    """Draws at neighbouring positions and seeds, low word or high word, are independent: chi-square of the pairs."""
    ids = (0, 1, 5, 63, 64, 66, 130, 191)
    row = few_tokens(ids, 192)
    single = row[list(ids)].double().softmax(0)
    of_id = torch.zeros(192, dtype=torch.int64)
    of_id[list(ids)] = torch.arange(len(ids))
    rows = row.expand(pairs, -1)
    each = torch.arange(pairs)
    for name, other in (("position", "seed"), ("seed", "position")):
        for step in (1, 4, 2**32):
            start = each % step + each // step * 2 * step  # so that no number is used twice
            first, second = (
                of_id[warpdraw.sample(rows, **{name: start + move, other: 11}).tokens] for move in (0, step)
            )
            counts = torch.bincount(first * len(ids) + second, minlength=len(ids) ** 2)
            assert_distribution(counts, torch.outer(single, single).flatten(), f"pairs at {name} + {step}")


def _exponential(seed: int, position: int, stream: str, index: int) -> float:
    one = torch.tensor([seed]), torch.tensor([position])
    return exponentials(*one, stream, index + 1)[0, index].item()


# Positions under seed 1 at which index 1 of a stream has a very small uniform number, or index 0 a very large one.
RARE = {
    "tile": (42251482, 50709283, 91874773, 93337619, 3974242, 23246723, 30116801, 33810882),
    "token": (36612090, 66119038, 68382388, 69100156, 21213490, 24878988, 48621641, 99364359),
}


def check_tails() -> None:
    """Where noise is rarest the winner still turns where mass / E says: a uniform number of 24 bits is too coarse."""
    for stream, positions in RARE.items():
        for position in positions:
            first, second = (_exponential(1, position, stream, index) for index in (0, 1))
            assert second < 1e-7 or first > 17, "the table of rare positions is wrong"
            even = math.log(second / first)  # the logit at which token `other` draws level with token 0
            other = TILE if stream == "tile" else 1
            rows = torch.full((2, 2 * TILE), -INF)
            rows[:, 0] = 0.0
            rows[:, other] = torch.tensor([even - 0.01, even + 0.01])
            rows -= rows.amax(-1, keepdim=True)
            tokens = warpdraw.sample(rows, seed=1, position=position).tokens.tolist()
            assert tokens == [0, other], f"{stream} {position}: drew {tokens} around the turning point {even:.4f}"


# Positions under seed 1 at which indices 0 and 1 of a stream have different bits and the same exponential in fp32.
LEVEL = {"tile": (102498766, 104383539, 133828026), "token": (2881965, 30478486)}


def check_level_keys() -> None:
    """Equal keys of equal tokens: the lower id wins."""
    for stream, positions in LEVEL.items():
        row = torch.full((1, 2 * TILE), -INF)
        row[0, [0, TILE if stream == "tile" else 1]] = 0.0
        for position in positions:
            first, second = (_exponential(1, position, stream, index) for index in (0, 1))
            assert 0 < abs(first / second - 1) < 2**-20, "the table of level positions is wrong"
            token = warpdraw.sample(row, seed=1, position=position).tokens.item()
            assert token == 0, f"{stream} {position}: drew {token}"


def check_rows_are_independent(V: int = 150, dtype: torch.dtype = torch.float32) -> None:
    """Every row alone gives what it gives in a batch, in any slot, with any other rows."""
    for op in OPS.values():
        inputs = inputs_of(op, V, dtype, seed=5 * V, wild=True)  # not one whose rows lie one after the other
        together = run(op, inputs)
        B = batch_of(inputs)
        order = torch.randperm(B, generator=torch.Generator().manual_seed(V))
        shuffled = run(op, {n: x[order] if isinstance(x, Tensor) else x for n, x in inputs.items()})
        assert_same(shuffled, {name: value[order] for name, value in together.items()}, f"{op.name}, shuffled")
        for row in range(B):
            alone = run(op, {n: x[row : row + 1] if isinstance(x, Tensor) else x for n, x in inputs.items()})
            assert_same(alone, {n: x[row : row + 1] for n, x in together.items()}, f"{op.name}, row {row} alone")


def check_same(other: str, sizes: tuple[int, ...], dtypes: tuple[torch.dtype, ...], repeats: int = 1) -> None:
    """Every op gives the same bits as another backend, on rows and parameters of every kind."""
    for op in OPS.values():
        for V in sizes:
            for dtype in dtypes:
                for choice in range(len(ORDERS)):
                    inputs = inputs_of(op, V, dtype, seed=len(ORDERS) * V + choice, repeats=repeats, wild=True)
                    with warpdraw.use(other):
                        want = run(op, inputs)
                    assert_same(run(op, inputs), want, f"{op.name}, V = {V}, {dtype}, case {choice}")


# --------------------------------------------------------------------------------------------------------------------
# Frozen draws: whatever else changes, these tokens stay.


def formula_rows(B: int, V: int) -> Tensor:
    """Logits in [-8, 8) in steps of 1/256 by an integer formula: no generator of random numbers is involved."""
    mixed = (torch.arange(V)[None] * 2654435761 + torch.arange(B)[:, None] * 2246822519) % 2**32
    mixed = ((mixed ^ mixed >> 15) * 668265263) % 2**32
    return (mixed ^ mixed >> 13) % 4096 / 256.0 - 8


KNOWN_PARAMETERS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.7, "top_p": 0.8, "min_p": 0.1},
    {"temperature": 3.0, "top_k": 100, "top_p": 0.6, "min_p": 0.1},
)


KNOWN_FEATURES: dict[str, Any] = {
    "temperature": 1.5, "dynatemp_range": 0.5, "top_n_sigma": 2.5, "typical_p": 0.9, "epsilon": 1e-4, "eta": 2e-3,
    "xtc_probability": 0.5, "xtc_threshold": 0.004, "vocab_size": 990, "repetition_penalty": 1.25,
    "frequency_penalty": 0.5, "presence_penalty": -0.25, "dry_multiplier": 0.75, "no_repeat_ngram": 3,
}  # fmt: skip


def known_lists() -> dict[str, Tensor]:
    """A history that repeats itself, words of a mask, ids and biases, by integer formulas."""
    each = torch.arange(6)[:, None]
    place = torch.arange(40)[None]
    return {
        "history": ((place % 13 * 77 + each * 31) % 1000).int(),
        "bitmask": (-1 - 2 ** (torch.arange(32)[None] % 31)).int().expand(6, -1),
        "bias_ids": (place[:, :8] * 123 + each).int(),
        "bias": (place[:, :8] - each) / 2.0,
        "banned_ids": (place[:, :8] * 19 + each * 7 - 1).int(),
    }


def known_draws() -> dict[str, list[int]]:
    """Six tokens each of V = 1000: unfiltered, greedy, and for every order two sets of filters; words of all sizes.

    Then for every order a set with everything else on.
    """
    rows, each = formula_rows(6, 1000), torch.arange(6)
    sets = {"unfiltered": {"temperature": 2.0}, "greedy": {"temperature": 0.0}}
    for order in ORDERS:
        for number, params in enumerate(KNOWN_PARAMETERS):
            sets[f"{order} {number}"] = {"order": order, **params}
    for order in ORDERS:
        sets[f"{order} features"] = {"order": order, **KNOWN_FEATURES, **known_lists()}
    found = {}
    for number, (name, params) in enumerate(sets.items()):
        seed, position = each * 0x123456789AB - number, each * 0x1_0000_0001 + 1000 * number
        found[name] = warpdraw.sample(rows, seed=seed, position=position, **params).tokens.tolist()
    return found
