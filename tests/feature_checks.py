"""Checks beside those of checks.py, for what planted bugs showed: large rows, single reports, threads, bad biases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from cases import ORDERS, USUAL, inputs_of, rows_of
from certificates import check_draw, check_kept, without_reports
from checks import assert_same, run
from torch import Tensor

import warpdraw
from warpdraw.op import OPS

LARGE = (
    12_345  # more than the 64 tiles from which on bounds may stand for the mass of a row, and no whole number of tiles
)
LARGE_KINDS = ("random", "peaked", "flat", "tied", "lumpy", "two levels", "quantised", "adjacent", "falling", "masked")
LARGE_SETS: tuple[dict[str, Any], ...] = (
    {"top_p": 0.9},
    {"top_p": 0.5, "temperature": 0.6},
    {"top_p": 0.999, "temperature": 1.7},
    {"top_p": 0.0},
    {"top_k": 300, "top_p": 0.97},
    {"min_p": 1e-3, "typical_p": 0.8},
    {"top_n_sigma": 1.5, "top_p": 0.7},
    {"epsilon": 2e-5, "eta": 1e-4, "xtc_probability": 1.0, "xtc_threshold": 1e-4},
)


def every_report(inputs: dict[str, Any], top_of: str = "raw") -> dict[str, Any]:
    return {**inputs, "top_n": 7, "max_kept": 50, "top_of": top_of}


def check_large_rows() -> None:
    """Rows large enough for every shortcut give the bits of the oracle, in every order."""
    rows = rows_of(LARGE_KINDS, LARGE, seed=3)
    for number, params in enumerate(LARGE_SETS):
        order = ORDERS[number % len(ORDERS)]
        inputs = {"logits": rows, **params, "position": torch.arange(len(rows)) + 100 * number, "order": order}
        calls = ((OPS["sample"], every_report(inputs, ("raw", "filtered")[number % 2])), (OPS["filter_logits"], inputs))
        for op, arguments in calls:
            with warpdraw.use("scalar"):
                want = run(op, arguments)
            assert_same(run(op, arguments), want, f"{op.name}, {params}, {order}")


def _reported_inputs(top_of: str) -> dict[str, Any]:
    rows = rows_of(("random", "tied", "peaked", "NaN", "+inf", "no candidate"), 150, seed=5)
    history = rows.nan_to_num().topk(3, -1).indices.int()
    return every_report(
        {
            "logits": rows,
            "temperature": 1.4,
            "top_k": 40,
            "typical_p": 0.9,
            "history": history,
            "presence_penalty": 1.0,
        },
        top_of,
    )


def check_reports_alone() -> None:
    """What sample reports does not depend on what else it is asked to report."""
    names = ("logprob", "raw_logprob", "rank", "kept_count", "kept_ids", "top_ids", "top_logprobs")
    for top_of in ("raw", "filtered"):
        inputs = _reported_inputs(top_of)
        together = run(OPS["sample"], inputs)
        for name in names:
            asked = {other: other == name for other in names}
            alone = warpdraw.sample(**inputs, **asked)._asdict()
            found = {other: value for other, value in alone.items() if isinstance(value, Tensor)}
            assert set(found) == {"tokens", "valid", name}
            assert_same(found, {other: together[other] for other in found}, f"{name} alone, top_of {top_of}")


def _steep_row(number: int, V: int, generator: torch.Generator) -> Tensor:
    """Ten tokens with nearly all mass, some with little, and a tail on two levels that bounds cannot count exactly."""
    tail = (0.05, 0.1, 0.2)[number % 3]
    width = (0, 4, 8, 16)[number % 4]
    high = torch.arange(V) // width % 2 == 1 if width else torch.rand(V, generator=generator) < (0.5, 0.8)[number % 2]
    row = torch.where(high, 0.0, -10.0)
    row += torch.tensor(tail).log() - row.logsumexp(0)
    ids = torch.randperm(V, generator=generator)[:90]
    row[ids[:10]] = (torch.rand(10, generator=generator) + 0.5).log() - 2.3
    row[ids[10:]] = row.amin() + 10.5
    return row


def check_steep_rows(V: int = LARGE) -> None:
    """Where few tokens decide top-p, what bounds say of the others has to be true of them."""
    generator = torch.Generator().manual_seed(4)
    rows = torch.stack([_steep_row(number, V, generator) for number in range(36)])
    for p in (0.4, 0.6, 0.75, 0.8):
        inputs = {"logits": rows, "top_p": p}
        with warpdraw.use("scalar"):
            want = run(OPS["filter_logits"], inputs)
        assert_same(run(OPS["filter_logits"], inputs), want, f"top_p {p}")


ALONE = (
    ("min_p",),
    ("top_p",),
    ("typical_p",),
    ("epsilon",),
    ("eta",),
    ("top_n_sigma",),
    ("xtc_probability", "xtc_threshold"),
    ("epsilon", "eta"),
    ("eta", "epsilon", "top_k"),
)


def check_filters_alone(V: int = 600) -> None:
    """Each filter by itself against float64, on rows dense enough that a threshold off by a hundredth shows."""
    for number, names in enumerate(ALONE):
        inputs = inputs_of(OPS["filter_logits"], V, torch.float32, number, USUAL, 3, only=(*names, "temperature"))
        check_kept(inputs)


FROM_HISTORY = (
    "history", "history_length", "prompt_length", "repetition_penalty", "frequency_penalty", "presence_penalty",
    "dry_multiplier", "dry_base", "dry_allowed_length", "dry_breakers", "no_repeat_ngram",
)  # fmt: skip


def check_histories() -> None:
    """What a history does, and nothing else, against float64; one of two ids is full of copies inside of copies."""
    generator = torch.Generator().manual_seed(6)
    of_two = torch.randint(0, 2, (80, 40), generator=generator, dtype=torch.int32)
    rows = torch.randn(80, 4, generator=generator)
    check_draw(
        {"logits": rows, "history": of_two, "dry_multiplier": 0.5, "dry_base": 1.2, "position": torch.arange(80)}
    )
    for seed, V in enumerate((5, 9, 30, 70, 9, 30)):
        check_draw(inputs_of(OPS["sample"], V, torch.float32, seed, USUAL, 4, only=FROM_HISTORY))


def check_bad_bias() -> None:
    """A bias of NaN makes its row invalid, though the token would only drop out; that of no id does nothing."""
    bias = torch.tensor([[float("nan"), 0.5], [0.5, float("nan")], [0.5, 0.25]])
    ids = torch.tensor([[1, 0], [1, -1], [1, 0]], dtype=torch.int32)
    drawn = warpdraw.sample(torch.zeros(3, 4), bias_ids=ids, bias=bias)
    assert drawn.valid.tolist() == [False, True, True]


def check_threads(set_threads: Callable[[int], None]) -> None:
    """Long rows, one or many, give the same on three threads as on one."""
    long = rows_of(("random", "flat", "+inf"), 160_003, seed=8)
    many = rows_of(("random",) * 40, 5_003, seed=9)
    calls = [(rows[None], {}) for rows in long]
    calls += [(long[:1], {"top_p": 0.9, "temperature": 2.0}), (many, {"top_p": 0.8, "min_p": 1e-4})]
    calls += [(long[:1], {"banned_ids": torch.arange(0, 160_003, 997, dtype=torch.int32)[None], "top_n_sigma": 2.0})]
    for logits, params in calls:
        inputs = {"logits": logits, **params}
        wanted = [("sample", every_report(inputs)), ("filter_probs", inputs), ("filter_logits", inputs)]
        wanted += [("softmax", {"logits": logits}), ("log_softmax", {"logits": logits})]
        for name, arguments in wanted:
            found = []
            for count in (1, 3):
                set_threads(count)
                found.append(run(OPS[name], arguments))
            set_threads(1)
            assert_same(found[1], found[0], f"{name} on three threads, {without_reports(params)}")
