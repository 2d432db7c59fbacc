"""Checks beside those of checks.py, for what planted bugs showed: large rows, single reports, threads, bad biases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from cases import ORDERS, rows_of
from certificates import without_reports
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
