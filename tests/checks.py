"""What any backend must satisfy: inputs made from contracts, certificates against float64, statistics of the draw.

Every check runs the public ops on the backend that the surrounding `with warpdraw.use(name)` forces, and fails with an
AssertionError. The test files run the checks on the real backends, test_mutants.py runs them on planted bugs.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

import warpdraw
from warpdraw.contract import ChoiceSpec, TensorSpec
from warpdraw.op import OPS
from warpdraw.ops.noise import exponentials

ORDERS = ("vllm", "hf", "flashinfer-joint", "llama.cpp")
TILE = 64
INF, NAN = math.inf, math.nan
LARGEST = torch.finfo(torch.float32).max

# --------------------------------------------------------------------------------------------------------------------
# Rows of logits. Every kind maps (generator, V) to float32 [V].


def _pick(choices: list[Any], dtype: torch.dtype, count: int, g: torch.Generator) -> Tensor:
    return torch.tensor(choices, dtype=dtype)[torch.randint(0, len(choices), (count,), generator=g)]


def _normal(g: torch.Generator, V: int) -> Tensor:
    return torch.randn(V, generator=g)


def _uniform(g: torch.Generator, V: int) -> Tensor:
    return torch.rand(V, generator=g)


def _lumpy(g: torch.Generator, V: int) -> Tensor:
    """Tiles of equal logits beside tiles that one token rules, of similar mass: hard for bounds in the race."""
    tiles = (V + TILE - 1) // TILE
    single = _uniform(g, tiles) < 0.5
    x = torch.where(single[:, None], -20.0, torch.zeros(tiles, TILE))
    x[:, 7] = torch.where(single, math.log(TILE), 0.0)
    return (x + 0.3 * torch.randn(tiles, 1, generator=g)).flatten()[:V]


def _set(x: Tensor, where: Tensor, value: float) -> Tensor:
    return x.masked_fill(where, value)


KINDS = {
    "random": lambda g, V: 3 * _normal(g, V),
    "peaked": lambda g, V: _normal(g, V) + 20 * torch.nn.functional.one_hot(torch.tensor(V // 3), V),
    "flat": lambda g, V: 1e-3 * _normal(g, V),
    "rising": lambda g, V: (4 * _normal(g, V)).sort().values,
    "falling": lambda g, V: (4 * _normal(g, V)).sort(descending=True).values,
    "tied": lambda g, V: torch.randint(0, 5, (V,), generator=g).float(),
    "equal": lambda g, V: torch.full((V,), 1.25),
    "masked": lambda g, V: _set(3 * _normal(g, V), _uniform(g, V) < 0.9, -INF),
    "quantised": lambda g, V: (4 * _normal(g, V)).bfloat16().float(),
    "lumpy": _lumpy,
    "adjacent": lambda g, V: 10000 + torch.randint(0, 4, (V,), generator=g) * 2.0**-10,
    "two levels": lambda g, V: torch.where(_uniform(g, V) < 0.5, 0.0, -12.0),
    "one huge": lambda g, V: _normal(g, V) + 3e38 * torch.nn.functional.one_hot(torch.tensor(V // 2), V),
    "extreme": lambda g, V: _pick([LARGEST / 4, -LARGEST / 4, 1e30, 0.0, -0.0, 1e-45], torch.float32, V, g),
    "overflow": lambda g, V: _pick([LARGEST, LARGEST / 2, 0.0, -LARGEST], torch.float32, V, g),
    "subnormal": lambda g, V: 1e-40 * _normal(g, V),
    "+inf": lambda g, V: _set(_normal(g, V), _uniform(g, V) < 0.2, INF),
    "NaN": lambda g, V: _set(_set(3 * _normal(g, V), _uniform(g, V) < 0.2, NAN), _uniform(g, V) < 0.2, -INF),
    "NaN and +inf": lambda g, V: _set(_set(_normal(g, V), _uniform(g, V) < 0.3, NAN), _uniform(g, V) < 0.1, INF),
    "no candidate": lambda g, V: torch.where(_uniform(g, V) < 0.5, NAN, -INF),
}
EXACT_KINDS = tuple(kind for kind in KINDS if kind != "overflow")  # differences of logits that fp32 can hold
USUAL = ("random", "peaked", "flat", "tied", "masked", "quantised", "lumpy", "two levels")


def rows_of(kinds: list[str] | tuple[str, ...], V: int, seed: int) -> Tensor:
    """[len(kinds), V] in float32."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([KINDS[kind](generator, V) for kind in kinds])


def slice_like(values: Tensor, outside: float) -> Tensor:
    """The values as a slice of a larger tensor: odd storage offset, row stride above V, other values all around."""
    if values.dim() == 1:
        larger = values.new_full((2 * len(values) + 3,), outside)
        inside = larger[3::2][: len(values)]
    else:
        larger = values.new_full((values.shape[0] + 2, values.shape[1] + 5), outside)
        inside = larger[1:-1, 3:-2]
    inside.copy_(values)
    return inside


# --------------------------------------------------------------------------------------------------------------------
# Inputs that follow from a contract alone: an op added later is covered without a line here.

FRACTIONS = (0.003, 0.01, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99, 0.9999)
POSITIVES = (1e-30, 0.05, 0.3, 0.7, 1.3, 2.0, 10.0, 1e4)
COUNTS = (2, 3, 7, 20, 50, 63, 64, 65, 200, 1000, 20000)


def _parameter(spec: TensorSpec, B: int, g: torch.Generator, wild: bool) -> Tensor:
    """A value for each row, a third of them the default; if wild, absurd and invalid ones too."""
    dtype = spec.dtypes[0]
    if dtype == torch.int64:
        values = torch.randint(int(spec.low), int(spec.high), (B,), generator=g)
    elif dtype == torch.int32:
        usual = [*COUNTS, int(spec.low), int(spec.low) + 1, int(spec.high), *[-1] * wild]
        values = _pick([*usual, *[spec.default] * (len(usual) // 2)], dtype, B, g)
    else:
        is_fraction = spec.high <= 1
        usual = [*FRACTIONS, spec.low, spec.high] if is_fraction else [*POSITIVES, 0.0]
        if wild:
            usual += [NAN, -1.0, 1e-45] if is_fraction else [NAN, INF, -1e-3, 1e-45, 1e-40, 1e-37, LARGEST]
        values = _pick([*usual, *[spec.default] * (len(usual) // 2)], dtype, B, g)
    return slice_like(values, 7)


def inputs_of(
    op: Any,
    V: int,
    dtype: torch.dtype,
    seed: int,
    kinds: tuple[str, ...] = tuple(KINDS),
    repeats: int = 1,
    wild: bool = False,
) -> dict[str, Any]:
    """Arguments for an op, by name: all the kinds of rows, mixed parameters, every tensor a slice of a larger one."""
    generator = torch.Generator().manual_seed(seed)
    B = len(kinds) * repeats
    sizes = {"B": B, "V": V}
    made: dict[str, Any] = {}
    for spec in op.contract.inputs:
        if isinstance(spec, ChoiceSpec):
            made[spec.name] = spec.choices[seed % len(spec.choices)]
        elif spec.default is not None:
            made[spec.name] = _parameter(spec, B, generator, wild)
        elif spec.sizes == ("B", "V") and dtype in spec.dtypes:
            made[spec.name] = slice_like(rows_of(kinds * repeats, V, seed).to(dtype), 3e4)
        else:
            shape = [sizes.setdefault(letter, 3) for letter in spec.sizes]
            made[spec.name] = slice_like(torch.randint(0, 2, shape, generator=generator).to(spec.dtypes[0]), 1)
    return made


SENTINEL = 97


def run(op: Any, inputs: dict[str, Any]) -> dict[str, Tensor]:
    """All outputs of an op, written into slices of larger tensors that must stay as they were around them."""
    first = next(iter(inputs.values()))
    sizes = {"B": first.shape[0], "V": first.shape[-1]}
    buffers = {}
    for spec in op.contract.outputs:
        dtype = inputs[spec.same_dtype_as].dtype if spec.same_dtype_as else spec.dtypes[0]
        shape = [sizes[letter] for letter in spec.sizes]
        buffers[spec.name] = slice_like(torch.zeros(shape, dtype=dtype), SENTINEL)
    op(**inputs, **buffers)
    for name, buffer in buffers.items():
        whole = torch.empty(0, dtype=buffer.dtype).set_(buffer.untyped_storage())
        around = torch.ones_like(whole, dtype=torch.bool)
        around.as_strided(buffer.shape, buffer.stride(), buffer.storage_offset()).fill_(False)
        untouched = torch.full_like(whole, SENTINEL)
        assert torch.equal(whole[around], untouched[around]), f"{op.name} wrote outside of {name}"
    return {name: buffer.clone() for name, buffer in buffers.items()}


def same_bits(a: Tensor, b: Tensor) -> Tensor:
    """Where two tensors hold the same bits; any NaN equals any NaN."""
    if not a.dtype.is_floating_point:
        return a == b
    integers = {2: torch.int16, 4: torch.int32}[a.element_size()]
    return (a.contiguous().view(integers) == b.contiguous().view(integers)) | (a.isnan() & b.isnan())


def assert_same(got: dict[str, Tensor], want: dict[str, Tensor], context: Any) -> None:
    for name, tensor in want.items():
        different = ~same_bits(got[name], tensor)
        if different.any():
            where = different.nonzero()[0].tolist()
            raise AssertionError(
                f"{name} differs in {int(different.sum())} places, first at {where}: got {got[name][tuple(where)]}, "
                f"expected {tensor[tuple(where)]}; {context}"
            )


# --------------------------------------------------------------------------------------------------------------------
# Definitions in float64, and certificates that the results of a backend satisfy them.

TOP_P_BAND = 1e-6  # of the mass: weights are fp32 to 2^-22, and masses whole multiples of 2^-40


def log_weights(logits: Tensor, temperature: Tensor) -> Tensor:
    """(x - max) / T in float64, -inf where a token is no candidate."""
    x = logits.double()
    x = torch.where(x.isnan(), -INF, x)
    x = torch.where((x == INF).any(-1, keepdim=True), torch.where(x == INF, 0.0, -INF), x)
    highest = x.amax(-1, keepdim=True)
    positive = torch.where(temperature == 0, 1.0, temperature.double())
    return torch.where(x > -INF, (x - highest) / positive[:, None], -INF)


def _moved(inputs: dict[str, Any], sign: int) -> dict[str, Any]:
    """The same filters, a little wider (sign 1) or narrower (sign -1)."""
    p, m = inputs["top_p"].double(), inputs["min_p"].double()
    band = 1e-6 + 3e-7 * m.clamp(1e-38, 1).log2().abs()
    return {
        **inputs,
        "top_p": torch.where(p < 1, (p * (1 + sign * TOP_P_BAND)).clamp(max=1), p).float(),
        "min_p": torch.where(m <= 1, (m * (1 - sign * band)).clamp(max=1), m).float(),
    }


def kept_between(inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Which tokens the definition keeps for sure, and which it may keep, inside the band at the boundary."""
    with warpdraw.use("reference"):
        surely, maybe = (warpdraw.filter_logits(**_moved(inputs, sign)) > -INF for sign in (-1, 1))
    return surely, maybe


def check_kept(inputs: dict[str, Any]) -> int:
    """The kept set is right outside the band; returns how many rows have a token inside it."""
    surely, maybe = kept_between(inputs)
    filtered = warpdraw.filter_logits(**inputs)
    kept = filtered > -INF
    assert not (surely & ~kept).any(), f"dropped a token that belongs, {_describe(surely & ~kept, inputs)}"
    assert not (kept & ~maybe).any(), f"kept a token that does not belong, {_describe(kept & ~maybe, inputs)}"
    assert same_bits(filtered, inputs["logits"].masked_fill(~kept, -INF)).all(), "a kept logit was changed"
    return int((surely != maybe).any(-1).sum())


def _describe(wrong: Tensor, inputs: dict[str, Any]) -> str:
    row, token = wrong.nonzero()[0].tolist()
    tensors = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
    values = {name: value[row].item() for name, value in tensors.items() if value.dim() == 1}
    return f"row {row}, token {token} of {wrong.shape[1]}, {values}, order {inputs['order']}"


def assert_probabilities(got: Tensor, want: Tensor) -> None:
    """Relative error: a few fp32 roundings, each times the exponent. Absolute only below the smallest normal number."""
    assert torch.equal(got.isnan(), want.isnan()), "NaN in the wrong rows"
    got, want = got.double().nan_to_num(0.0), want.double().nan_to_num(0.0)
    highest = want.amax(-1, keepdim=True).clamp(min=2.0**-126)
    bound = 1e-6 + 3e-7 * (want.clamp(min=2.0**-126) / highest).log().abs()
    wrong = (got - want).abs() > torch.where(want >= 2.0**-125, bound * want, 2.0**-125)
    assert not wrong.any(), (
        f"{int(wrong.sum())} probabilities are off, first {got[wrong][0].item():.9g} for {want[wrong][0].item():.9g}"
    )


def assert_log_probabilities(got: Tensor, want: Tensor) -> None:
    """Absolute error: the same roundings, times the logarithm itself."""
    assert torch.equal(got.isnan(), want.isnan()), "NaN in the wrong places"
    got, want = (value.double().nan_to_num(nan=0.0).clamp(min=-1e37) for value in (got, want))
    wrong = (got - want).abs() > 2e-6 + 4e-7 * want.abs()
    assert not wrong.any(), (
        f"{int(wrong.sum())} logarithms are off, first {got[wrong][0].item():.9g} for {want[wrong][0].item():.9g}"
    )


def check_probabilities(inputs: dict[str, Any]) -> None:
    """softmax, log_softmax and filter_probs against float64."""
    plain = {name: inputs[name] for name in ("logits", "temperature")}
    with warpdraw.use("reference"):
        softmax, log_softmax = warpdraw.softmax(**plain), warpdraw.log_softmax(**plain)
    assert_probabilities(warpdraw.softmax(**plain), softmax)
    assert_log_probabilities(warpdraw.log_softmax(**plain), log_softmax)
    kept = warpdraw.filter_logits(**inputs) > -INF
    log_weight = log_weights(inputs["logits"], inputs["temperature"]).masked_fill(~kept, -INF)
    assert_probabilities(warpdraw.filter_probs(**inputs), log_weight.softmax(-1))


def check_draw(inputs: dict[str, Any]) -> int:
    """Each token won its race, tile first, by float64 and among the tokens the backend keeps; returns how many drew.

    A key may fall short of the largest one by the rounding of fp32 keys and of the mass, never by more.
    """
    result = warpdraw.sample(**inputs, logprob=True, raw_logprob=True)
    filters = {name: value for name, value in inputs.items() if name not in ("seed", "position")}
    kept = warpdraw.filter_logits(**filters) > -INF
    valid = kept.any(-1)
    assert torch.equal(result.valid, valid), "valid is wrong"
    assert (result.tokens[~valid] == -1).all(), "an invalid row has a token"
    assert result.logprob[~valid].isnan().all(), "an invalid row has a log-probability"
    assert result.raw_logprob[~valid].isnan().all(), "an invalid row has a raw log-probability"
    if not valid.any():
        return 0

    B, V = kept.shape
    tiles = (V + TILE - 1) // TILE
    rows, tokens = torch.arange(B)[valid], result.tokens[valid]
    assert kept[valid].gather(1, tokens[:, None]).all(), "drew a token that is not kept"
    log_weight = log_weights(inputs["logits"], inputs["temperature"])
    ours = log_weight.masked_fill(~kept, -INF)[valid]
    weight = torch.nn.functional.pad(ours.exp(), (0, tiles * TILE - V)).view(-1, tiles, TILE)
    seed, position = (
        torch.as_tensor(inputs[name], dtype=torch.int64).expand(B)[valid] for name in ("seed", "position")
    )
    tile_key = weight.sum(-1) / exponentials(seed, position, "tile", tiles)
    token_key = weight.flatten(1) / exponentials(seed, position, "token", tiles * TILE)
    tile = tokens // TILE
    each = torch.arange(len(rows))
    for what, key, best in (
        ("tile", tile_key[each, tile], tile_key.amax(-1)),
        ("token", token_key[each, tokens], token_key.view(-1, tiles, TILE)[each, tile].amax(-1)),
    ):
        wrong = key < best * (1 - 1e-5) - 2.0**-36 * best  # the last term: masses are whole multiples of 2^-40
        assert not wrong.any(), (
            f"{int(wrong.sum())} of {len(wrong)} draws took a {what} that lost its race, first in row "
            f"{rows[wrong][0]}: token {tokens[wrong][0]} with {key[wrong][0]:.6g} of {best[wrong][0]:.6g}"
        )
    assert_log_probabilities(result.logprob[valid], ours.log_softmax(-1)[each, tokens].float())
    raw = log_weights(inputs["logits"], torch.ones(B))[valid].log_softmax(-1)[each, tokens]
    assert_log_probabilities(result.raw_logprob[valid], raw.float())
    return len(tokens)


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
            filters = {name: value for name, value in inputs.items() if name not in ("seed", "position")}
            in_band += check_kept(filters)
            rows += len(inputs["logits"])
            check_probabilities(filters)
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
        rows = row.expand(len(varied), -1)
        found.append(warpdraw.sample(rows, **{**params, vary: varied}).tokens)
    return torch.cat(found)


def reference_probabilities(row: Tensor, **params: Any) -> Tensor:
    """The exact distribution of a row's draw, in float64."""
    with warpdraw.use("reference"):
        kept = warpdraw.filter_logits(row[None], **params)[0] > -INF
    weight = log_weights(row[None], torch.tensor([float(params.get("temperature", 1.0))]))[0]
    return weight.masked_fill(~kept, -INF).softmax(-1)


def filters_of(row: Tensor, **params: Any) -> dict[str, Any]:
    """Filter parameters as tensors for one row, as the certificates want them."""
    values = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "order": "vllm", **params}
    made = {
        name: torch.tensor([values[name]], dtype=torch.int32 if name == "top_k" else torch.float32)
        for name in ("temperature", "top_k", "top_p", "min_p")
    }
    return {"logits": row[None], **made, "order": values["order"]}


def check_distribution(row: Tensor, draws: int, vary: str = "position", **params: Any) -> int:
    """Draws from one row follow the float64 distribution; returns how many fell inside the band at the boundary."""
    filters = {name: value for name, value in params.items() if name not in ("seed", "position")}
    probabilities = reference_probabilities(row, **filters)
    _, maybe = kept_between(filters_of(row, **filters))
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
        inputs = inputs_of(op, V, dtype, seed=V, wild=True)
        together = run(op, inputs)
        B = len(inputs["logits"])
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


def known_draws() -> dict[str, list[int]]:
    """Six tokens each of V = 1000: unfiltered, greedy, and for every order two sets of filters; words of all sizes."""
    rows, each = formula_rows(6, 1000), torch.arange(6)
    sets = {"unfiltered": {"temperature": 2.0}, "greedy": {"temperature": 0.0}}
    for order in ORDERS:
        for number, params in enumerate(KNOWN_PARAMETERS):
            sets[f"{order} {number}"] = {"order": order, **params}
    found = {}
    for number, (name, params) in enumerate(sets.items()):
        seed, position = each * 0x123456789AB - number, each * 0x1_0000_0001 + 1000 * number
        found[name] = warpdraw.sample(rows, seed=seed, position=position, **params).tokens.tolist()
    return found
