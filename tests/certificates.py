"""Certificates: what a backend returns satisfies the float64 definitions, outside a narrow band at every boundary."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from cases import INF, TILE
from torch import Tensor

import warpdraw
from warpdraw.ops import edits, filters
from warpdraw.ops.arguments import Arguments
from warpdraw.ops.noise import exponentials

# What only sample takes.
REPORTS = ("top_n", "max_kept", "top_of")
# Relative width of the bands, for what is compared with a share of the mass and for what is compared with one weight.
MASS_BAND, WEIGHT_BAND, WEIGHT_BAND_PER_OCTAVE = 1e-6, 2e-6, 3e-7
MEAN_BAND = 2e-6

PARAMETERS = (
    "temperature", "top_k", "top_p", "min_p", "seed", "position", "dynatemp_range", "dynatemp_exponent",
    "top_n_sigma", "typical_p", "epsilon", "eta", "xtc_probability", "xtc_threshold", "order",
)  # fmt: skip


def same_bits(a: Tensor, b: Tensor) -> Tensor:
    """Where two tensors hold the same bits; any NaN equals any NaN."""
    if not a.dtype.is_floating_point:
        return a == b
    integers = {2: torch.int16, 4: torch.int32}[a.element_size()]
    return (a.contiguous().view(integers) == b.contiguous().view(integers)) | (a.isnan() & b.isnan())


def without_reports(inputs: dict[str, Any]) -> dict[str, Any]:
    """What filter_logits and filter_probs take of the inputs of sample."""
    return {name: value for name, value in inputs.items() if name not in REPORTS}


def arguments_of(inputs: dict[str, Any]) -> Arguments:
    return Arguments.of(**without_reports(inputs))


def after_edits(inputs: dict[str, Any]) -> Arguments:
    """The call that is left after steps 1 to 4: edited logits and filters; an invalid row has no candidate."""
    given = arguments_of(inputs)
    edited = edits.edited_logits(given).masked_fill(~given.valid()[:, None], -INF)
    return Arguments.of(edited, **{name: getattr(given, name) for name in PARAMETERS})


# --------------------------------------------------------------------------------------------------------------------
# The band: results that a little error of weights, masses and entropies may turn into one another.


@contextlib.contextmanager
def _entropy_moved(sign: int) -> Iterator[None]:
    """Means and entropies a little larger or smaller, as sums of floored fp32 products may be."""
    exact = filters.entropy_of

    def moved(log_weight: Tensor) -> tuple[Tensor, Tensor]:
        mean, entropy = exact(log_weight)
        count = ((log_weight < 0) & (log_weight > -746)).sum(-1, keepdim=True)
        floored = count * 2.0**-37 / log_weight.exp().sum(-1, keepdim=True)
        return mean + sign * (MEAN_BAND * mean.abs() + floored), entropy - sign * (MEAN_BAND * entropy + floored)

    with mock.patch.object(filters, "entropy_of", moved):
        yield


def _sigma_band(plain: Arguments) -> Tensor:
    """Deviations are counted in steps of 2^-20 of the power of two above their range."""
    x = filters.candidates_of(plain.logits)
    x = x.masked_fill(x == -INF, torch.nan)
    below = x.nan_to_num(nan=-INF).amax(-1, keepdim=True) - x
    sigma = (below - below.nanmean(-1, keepdim=True)).square().nanmean(-1).sqrt()
    widest = below.nan_to_num(nan=0.0).amax(-1)
    return 1e-6 + torch.where(sigma > 0, 2.0**-19 * widest / sigma, 0.0)


def _widths(plain: Arguments) -> dict[str, Tensor]:
    """How far each parameter is moved, relative to itself."""
    made = {name: torch.full_like(plain.top_p, MASS_BAND).double() for name in ("top_p", "typical_p")}
    for name in ("min_p", "epsilon", "eta", "xtc_threshold"):
        value = getattr(plain, name).double().clamp(1e-38, 1)
        made[name] = WEIGHT_BAND + WEIGHT_BAND_PER_OCTAVE * value.log2().abs()
    made["top_n_sigma"] = _sigma_band(plain)
    return made


OFF = {"top_p": 1.0, "typical_p": 1.0, "min_p": 0.0, "epsilon": 0.0, "eta": 0.0, "top_n_sigma": 0.0}


def kept_between(inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Which tokens the definition keeps for sure, and which it may keep, inside the bands."""
    plain = after_edits(inputs)
    surely = filters.kept_tokens(plain).mask
    maybe = surely.clone()

    def widen(rows: Tensor, moved: Arguments) -> None:
        if rows.any():
            mask = filters.kept_tokens(_rows(moved, rows)).mask
            surely[rows] &= mask
            maybe[rows] |= mask

    valid = plain.valid()
    for name, width in _widths(plain).items():
        value = getattr(plain, name)
        on = value != OFF[name] if name in OFF else plain.xtc_probability > 0
        for sign in (-1, 1):
            moved = (value.double() * (1 + sign * width)).float()
            moved = moved.clamp(max=1) if name != "top_n_sigma" else moved
            widen(on & valid, Arguments.of(**{**vars(plain), name: moved}))
    on = (plain.typical_p < 1) | (plain.eta > 0) | (plain.dynatemp_range > 0)
    for sign in (-1, 1):
        with _entropy_moved(sign):
            widen(on & valid, plain)
    return surely, _filled(maybe, plain)


def _filled(mask: Tensor, plain: Arguments) -> Tensor:
    """The mask and all that lies between its tokens in the total order: a run that slides covers them on the way."""
    order = filters.candidates_of(plain.logits).argsort(dim=-1, descending=True, stable=True)
    ranked = mask.gather(-1, order).int()
    inside = (ranked.cummax(-1).values > 0) & (ranked.flip(-1).cummax(-1).values.flip(-1) > 0)
    return torch.zeros_like(mask).scatter_(-1, order, inside)


def _rows(arguments: Arguments, rows: Tensor) -> Arguments:
    """Some rows as a call of their own."""
    values = vars(arguments).items()
    return Arguments(**{name: value[rows] if isinstance(value, Tensor) else value for name, value in values})


def check_kept(inputs: dict[str, Any]) -> int:
    """The kept set is right outside the band; returns how many rows have a token inside it."""
    inputs = without_reports(inputs)
    surely, maybe = kept_between(inputs)
    filtered = warpdraw.filter_logits(**inputs)
    kept = filtered > -INF
    assert not (surely & ~kept).any(), f"dropped a token that belongs, {_describe(surely & ~kept, inputs)}"
    assert not (kept & ~maybe).any(), f"kept a token that does not belong, {_describe(kept & ~maybe, inputs)}"
    assert (kept.any(-1) == maybe.any(-1)).all(), "a row of candidates has nothing kept"
    assert same_bits(filtered, inputs["logits"].masked_fill(~kept, -INF)).all(), "a kept logit was changed"
    check_run(kept, inputs)
    return int((surely != maybe).any(-1).sum())


def check_run(kept: Tensor, inputs: dict[str, Any]) -> None:
    """What is kept is a run of neighbours in the total order of the edited logits."""
    x = filters.candidates_of(after_edits(inputs).logits)
    ranked = kept.gather(-1, x.argsort(dim=-1, descending=True, stable=True))
    starts = ranked.int().diff(prepend=torch.zeros(len(ranked), 1, dtype=torch.int32)).eq(1).sum(-1)
    assert (starts <= 1).all(), f"kept tokens with gaps between them, {_describe(kept & (starts > 1)[:, None], inputs)}"


def _describe(wrong: Tensor, inputs: dict[str, Any]) -> str:
    row, token = wrong.nonzero()[0].tolist()
    values = {name: value[row].tolist() for name, value in inputs.items() if isinstance(value, Tensor)}
    values["logits"] = [] if len(values["logits"]) > 20 else values["logits"]
    return f"row {row}, token {token} of {wrong.shape[1]}, {values}, order {inputs.get('order')}"


# --------------------------------------------------------------------------------------------------------------------
# Probabilities of a given kept set, with the room that an uncertain dynamic temperature leaves.


def log_probabilities(inputs: dict[str, Any], kept: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithms that the definition gives the kept tokens, and how far they may be off by the temperature."""
    plain = after_edits(inputs)

    def exact() -> Tensor:
        x = filters.candidates_of(plain.logits)
        T = filters.temperature_of(x, kept if plain.order == "llama.cpp" else x > -INF, plain)
        return filters.log_weights(x, torch.where(T == 0, 1.0, T), kept).log_softmax(-1)

    expected = exact()
    slack = torch.zeros_like(expected)
    if (plain.dynatemp_range > 0).any():
        for sign in (-1, 1):
            with _entropy_moved(sign):
                slack = torch.maximum(slack, (exact() - expected).abs().nan_to_num(nan=0.0, posinf=0.0))
    return expected, slack


def assert_probabilities(got: Tensor, want: Tensor, slack: Tensor | None = None) -> None:
    """Relative error: a few fp32 roundings, each times the exponent. Absolute only below the smallest normal number."""
    assert torch.equal(got.isnan(), want.isnan()), "NaN in the wrong rows"
    got, want = got.double().nan_to_num(0.0), want.double().nan_to_num(0.0)
    highest = want.amax(-1, keepdim=True).clamp(min=2.0**-126)
    bound = 1e-6 + 3e-7 * (want.clamp(min=2.0**-126) / highest).log().abs()
    bound = bound if slack is None else bound + 2 * slack
    wrong = (got - want).abs() > torch.where(want >= 2.0**-125, bound * want, 2.0**-125)
    assert not wrong.any(), (
        f"{int(wrong.sum())} probabilities are off, first {got[wrong][0].item():.9g} for {want[wrong][0].item():.9g}"
    )


def assert_log_probabilities(got: Tensor, want: Tensor, slack: Tensor | float = 0.0) -> None:
    """Absolute error: the same roundings, times the logarithm itself."""
    assert torch.equal(got.isnan(), want.isnan()), "NaN in the wrong places"
    got, want = (value.double().nan_to_num(nan=0.0).clamp(min=-1e37) for value in (got, want))
    wrong = (got - want).abs() > 2e-6 + 4e-7 * want.abs() + 2 * slack
    assert not wrong.any(), (
        f"{int(wrong.sum())} logarithms are off, first {got[wrong][0].item():.9g} for {want[wrong][0].item():.9g}"
    )


def check_probabilities(inputs: dict[str, Any]) -> None:
    """softmax, log_softmax and filter_probs against float64."""
    inputs = without_reports(inputs)
    plain = {name: inputs[name] for name in ("logits", "temperature") if name in inputs}
    with warpdraw.use("reference"):
        softmax, log_softmax = warpdraw.softmax(**plain), warpdraw.log_softmax(**plain)
    assert_probabilities(warpdraw.softmax(**plain), softmax)
    assert_log_probabilities(warpdraw.log_softmax(**plain), log_softmax)
    expected, slack = log_probabilities(inputs, warpdraw.filter_logits(**inputs) > -INF)
    assert_probabilities(warpdraw.filter_probs(**inputs), expected.exp(), slack)


# --------------------------------------------------------------------------------------------------------------------
# The draw and what is reported of it.


def check_draw(inputs: dict[str, Any]) -> int:
    """Each token won its race, tile first, by float64 and among the tokens the backend keeps; returns how many drew.

    A key may fall short of the largest one by the rounding of fp32 keys and of the mass, never by more.
    """
    result = warpdraw.sample(**inputs, logprob=True, raw_logprob=True, rank=True, kept_count=True)
    kept = warpdraw.filter_logits(**without_reports(inputs)) > -INF
    expected, slack = log_probabilities(inputs, kept)
    valid = kept.any(-1)
    assert torch.equal(result.valid, valid), "valid is wrong"
    check_races(inputs, result.tokens, kept, expected, slack)
    check_reports(inputs, result, kept, expected, slack)
    return int(valid.sum())


def check_races(inputs: dict[str, Any], drawn: Tensor, kept: Tensor, expected: Tensor, slack: Tensor) -> None:
    valid = kept.any(-1)
    if not valid.any():
        return

    B, V = kept.shape
    tiles = (V + TILE - 1) // TILE
    rows, tokens = torch.arange(B)[valid], drawn[valid]
    assert kept[valid].gather(1, tokens[:, None]).all(), "drew a token that is not kept"
    weight = torch.nn.functional.pad(expected[valid].exp(), (0, tiles * TILE - V)).view(-1, tiles, TILE)
    given = arguments_of(inputs)
    seed, position = given.seed[valid], given.position[valid]
    tile_key = weight.sum(-1) / exponentials(seed, position, "tile", tiles)
    token_key = weight.flatten(1) / exponentials(seed, position, "token", tiles * TILE)
    tile = tokens // TILE
    each = torch.arange(len(rows))
    # Where the temperature is dynamic, so is the weight of every token that may win.
    unsure = 2 * slack.masked_fill(~(expected > -30), 0.0).amax(-1)[valid]
    for what, key, best in (
        ("tile", tile_key[each, tile], tile_key.amax(-1)),
        ("token", token_key[each, tokens], token_key.view(-1, tiles, TILE)[each, tile].amax(-1)),
    ):
        # The last term: masses are whole multiples of 2^-40 of the largest weight.
        wrong = key < best * (1 - 1e-5 - unsure) - 2.0**-36 * best
        assert not wrong.any(), (
            f"{int(wrong.sum())} of {len(wrong)} draws took a {what} that lost its race, first in row "
            f"{rows[wrong][0]}: token {tokens[wrong][0]} with {key[wrong][0]:.6g} of {best[wrong][0]:.6g}"
        )


def check_reports(inputs: dict[str, Any], result: Any, kept: Tensor, expected: Tensor, slack: Tensor) -> None:
    """Log-probabilities, rank, count and lists follow from the token, the kept set and the raw row."""
    valid = kept.any(-1)
    assert (result.tokens[~valid] == -1).all(), "an invalid row has a token"
    assert result.logprob[~valid].isnan().all(), "an invalid row has a log-probability"
    assert result.raw_logprob[~valid].isnan().all(), "an invalid row has a raw log-probability"
    assert (result.rank[~valid] == 0).all(), "an invalid row has a rank"
    logits, tokens = inputs["logits"].double(), result.tokens[valid][:, None]
    raw_x = filters.candidates_of(logits)
    raw = filters.log_weights(raw_x, torch.ones(len(valid))).log_softmax(-1)
    for got, want, room in (
        (result.logprob, expected, slack),
        (result.raw_logprob, raw, torch.zeros_like(slack)),
    ):
        assert_log_probabilities(
            got[valid], want[valid].gather(-1, tokens)[:, 0].float(), room[valid].gather(-1, tokens)[:, 0]
        )
    drawn = logits[valid].gather(-1, tokens)
    before = (logits[valid] > drawn) | ((logits[valid] == drawn) & (torch.arange(kept.shape[1]) < tokens))
    assert torch.equal(result.rank[valid].long(), 1 + before.sum(-1)), "rank is wrong"
    assert torch.equal(result.kept_count.long(), kept.sum(-1)), "kept_count is wrong"

    if result.kept_ids is not None:
        for ids, mask in zip(result.kept_ids.tolist(), kept, strict=True):
            want = mask.nonzero().flatten().tolist()[: len(ids)]
            assert ids == want + [-1] * (len(ids) - len(want)), "kept_ids is wrong"
    if result.top_ids is not None:
        _check_top(inputs, result, valid, (raw_x, raw, torch.zeros_like(raw)), kept, (expected, slack))


def _check_top(inputs: Any, result: Any, valid: Tensor, raw: Any, kept: Tensor, filtered: Any) -> None:
    edited = filters.candidates_of(after_edits(inputs).logits).masked_fill(~kept, -INF)
    x, log_probability, slack = raw if inputs.get("top_of", "raw") == "raw" else (edited, *filtered)
    ids = x.argsort(dim=-1, descending=True, stable=True)[:, : result.top_ids.shape[1]]
    missing = (x.gather(-1, ids) == -INF) | ~valid[:, None]
    assert torch.equal(result.top_ids.long(), ids.masked_fill(missing, -1)), "top_ids are wrong"
    assert (result.top_logprobs[missing] == -INF).all(), "padding of top_logprobs is wrong"
    want, room = (values.gather(-1, ids)[~missing] for values in (log_probability, slack))
    assert_log_probabilities(result.top_logprobs[~missing], want.float(), room)
