"""What CUDA kernels with a planted bug are judged by: short parity checks of both paths, threads in several orders."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest import mock

import checks
import torch
from cases import INF, KINDS, inputs_of, rows_of

import warpdraw
from warpdraw.op import OPS

FIBERS = ("forward", "reverse", "random:1", "random:2")
PATHS = {"cluster": 1, "split": 2}  # as Path of tensor.h
FILTERS = ("temperature", "top_k", "top_p", "min_p", "seed", "position", "order")
LISTS = ("bias", "bias_ids", "allowed_ids", "banned_ids", "bitmask", "history")
PENALTIES = ("repetition_penalty", "presence_penalty")
LONG_TAIL = ("typical_p", "epsilon", "eta", "top_n_sigma", "xtc_probability", "xtc_threshold", "dynatemp_range")
REPORTS = ("top_n", "max_kept", "top_of")
NAMES = tuple(KINDS)

# The number of blocks that share a row follows from V and from how many rows there are (cluster_for in rows.cuh): 1 for
# V below 512, then up to 8 for few rows.
CASES: dict[str, list[dict[str, Any]]] = {
    "filters": [
        {"V": 130, "dtype": torch.bfloat16, "seed": 1, "only": (*FILTERS, *REPORTS)},
        {
            "V": 3000,
            "dtype": torch.float32,
            "seed": 2,
            "only": (*FILTERS, *REPORTS),
            "kinds": ("random", "tied", "flat", "rising"),
        },
        {
            "V": 3000,
            "dtype": torch.bfloat16,
            "seed": 7,
            "only": (*FILTERS, *REPORTS),
            "kinds": ("lumpy", "random", "flat", "NaN", "quantised"),
        },
    ],
    "edits": [
        {"V": 700, "dtype": torch.float32, "seed": 3, "only": (*LISTS, *PENALTIES, *REPORTS, "temperature", "seed")},
        {
            "V": 2500,
            "dtype": torch.bfloat16,
            "seed": 6,
            "only": (*LISTS, *PENALTIES, *REPORTS, "seed"),
            "kinds": ("random", "flat", "+inf", "masked"),
        },
    ],
    "everything": [
        {"V": 1000, "dtype": torch.float32, "seed": 5, "wild": True},
        {
            "V": 2500,
            "dtype": torch.bfloat16,
            "seed": 4,
            "kinds": ("random", "flat", "+inf", "masked", "tied", "NaN and +inf", "no candidate"),
        },
    ],
    "long tail": [
        {
            "V": 1000,
            "dtype": torch.float32,
            "seed": seed,
            "only": (*LONG_TAIL, *REPORTS, "temperature", "seed", "order"),
            "kinds": NAMES[seed::3],
        }
        for seed in range(3)
    ],
}
ROWS: list[dict[str, Any]] = [
    {"V": 700, "dtype": torch.float32, "seed": 1, "kinds": NAMES[::2]},
    {"V": 3001, "dtype": torch.bfloat16, "seed": 2, "kinds": ("random", "+inf", "masked", "tied")},
]
# More tokens than a list holds, by number and by mass, among ties and not.
LARGE = {
    "logits": rows_of(("random", "tied", "equal", "falling"), 3000, seed=9),
    "seed": torch.arange(4),
    "top_n": 600,
    "max_kept": 700,
}
# One +inf in a row, so that most blocks have none; tiles above what XTC keeps.
RANDOM = rows_of(("random",) * 3 + ("flat",) * 3, 3000, seed=8)
INFINITE = RANDOM.index_put((torch.arange(6), torch.tensor([5, 700, 1500, 2100, 2999, 3])), torch.tensor(INF))
EXTREMES: list[dict[str, Any]] = [
    {"logits": INFINITE, "vocab_size": 2999, "top_n": 5, "max_kept": 5},
    {"logits": RANDOM, "xtc_probability": 1.0, "xtc_threshold": 1e-4, "max_kept": 50},
    {"logits": RANDOM, "typical_p": 0.3, "max_kept": 50, "temperature": 0.5},
]
LARGE_LISTS: list[dict[str, Any]] = [
    {"top_k": 600},
    {"top_p": 0.97},
    {"top_k": 512, "top_p": 0.99},
    {"top_k": 40, "top_p": 0.9},
]
# Of a long list few are left, by mass and by weight: many rows, because a draw shows a wrong list only now and then.
FLAT = {"logits": rows_of(("random",) * 12, 20_000, seed=21) / 8, "seed": torch.arange(12)}
SHORT_LISTS: list[dict[str, Any]] = [
    {"top_k": 150, "top_p": 0.5},
    {"top_k": 100, "min_p": 0.6, "order": "hf"},
]


@functools.cache
def oracle(case: str) -> list[tuple[Any, dict[str, Any], dict[str, torch.Tensor]]]:
    """Ops, their arguments and what the scalar oracle makes of them."""
    if case == "whole rows":
        wanted = [(op, inputs_of(op, **given)) for name, op in OPS.items() if name != "sample" for given in ROWS]
    elif case == "large lists":
        wanted = [(OPS["sample"], {**LARGE, **given}) for given in LARGE_LISTS]
    elif case == "short lists":
        wanted = [(OPS["sample"], {**FLAT, **given}) for given in SHORT_LISTS]
    elif case == "extremes":
        wanted = [(OPS["sample"], {**given, "seed": torch.arange(6)}) for given in EXTREMES]
    else:
        wanted = [(OPS["sample"], inputs_of(OPS["sample"], **given)) for given in CASES[case]]
    with warpdraw.use("scalar"):
        return [(op, inputs, checks.run(op, inputs)) for op, inputs in wanted]


def check(case: str, path: str, order: str, kernels: SimpleNamespace) -> None:
    """Raises unless the backend in force gives the oracle's bits."""
    kernels.path = PATHS[path]
    with mock.patch.dict(os.environ, WARPDRAW_FIBERS=order):
        for op, inputs, want in oracle(case):
            checks.assert_same(checks.run(op, inputs), want, op.name)


def judgements(kernels: Callable[[], SimpleNamespace]) -> dict[str, Callable[[], object]]:
    """By name; most bugs show in one order already, so all checks in one come first."""
    return {
        f"{case}, {path}, {order}": lambda at=(case, path, order): check(*at, kernels())
        for order in FIBERS
        for case in (*CASES, "extremes", "large lists", "short lists", "whole rows")
        for path in PATHS
    }
