"""Methods whose time is mostly the call itself: a row of 64 logits, every parameter a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..backends import use
from ..contract import TensorSpec
from .method import Bound, Method, batches
from .verify import NotVerified

VOCAB = 64
PER_ROW, EVERYTHING = "per-row tensors", "all features on"

USUAL = {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "min_p": 0.05, "seed": 7, "position": 11}
FEATURES: dict[str, Any] = USUAL | {
    "dynatemp_range": 0.2,
    "dynatemp_exponent": 1.5,
    "top_n_sigma": 3.0,
    "typical_p": 0.95,
    "epsilon": 1e-4,
    "eta": 1e-4,
    "xtc_probability": 0.5,
    "xtc_threshold": 0.1,
    "vocab_size": VOCAB - 1,
    "bitmask": [-1, -1],
    "allowed_ids": list(range(48)),
    "banned_ids": [3, -1],
    "stop_ids": [0, 1],
    "min_tokens": 1000,
    "bias_ids": [5, 6],
    "bias": [0.5, -0.5],
    "history": [7, 8, 9, 10] * 4,
    "history_length": 15,
    "prompt_length": 4,
    "repetition_penalty": 1.1,
    "frequency_penalty": 0.1,
    "presence_penalty": 0.1,
    "dry_multiplier": 0.8,
    "dry_base": 1.75,
    "dry_allowed_length": 2,
    "dry_breakers": [10],
    "no_repeat_ngram": 4,
}
REPORTS = {
    "top_n": 5,
    "max_kept": 8,
    "logprob": True,
    "raw_logprob": True,
    "rank": True,
    "kept_count": True,
}


def calls() -> list[Method]:
    """The eager call and the kernel alone, with the usual parameters and with all there are."""
    made = []
    for name, values, reports in ((PER_ROW, USUAL, {}), (EVERYTHING, FEATURES, REPORTS)):
        arguments = _tensors(values) | reports
        made += [_call(name, arguments), _kernel(kernel_of(name), arguments)]
    return made


def kernel_of(name: str) -> str:
    """What the kernel alone of a call is called."""
    return f"{name}: the kernel"


def _tensors(values: dict[str, Any]) -> dict[str, Any]:
    specs = {spec.name: spec for spec in ops.sample.contract.inputs if isinstance(spec, TensorSpec)}
    return {name: torch.tensor([value], dtype=specs[name].dtypes[0]) for name, value in values.items()}


def _call(name: str, arguments: dict[str, Any]) -> Method:
    def bind(inputs: Sequence[Tensor]) -> Bound:
        return lambda number: ops.sample(inputs[number], **arguments)

    return Method(name, "the Python call, outputs made by it", bind, _checker(name, arguments))


def _kernel(name: str, arguments: dict[str, Any]) -> Method:
    def bind(inputs: Sequence[Tensor]) -> Bound:
        outputs = [ops.sample(x, **arguments)._asdict() for x in inputs]
        given = [{key: value for key, value in made.items() if value is not None} for made in outputs]
        prepared = [ops.sample.prepare(x, **arguments | out) for x, out in zip(inputs, given, strict=True)]

        def call(number: int) -> tuple[Tensor, ...]:
            prepared[number]()
            return tuple(outputs[number].values())

        return call

    return Method(name, "the kernel on arguments bound before (Op.prepare)", bind, _checker(name, arguments))


def _checker(name: str, arguments: dict[str, Any]) -> Any:
    def check(rows: Tensor, results: list[Any]) -> None:
        for logits, result in zip(batches(rows, 1), results, strict=True):
            with use("scalar"):
                expected = ops.sample(logits, **arguments)
            for field_name, got, want in zip(expected._fields, result, expected, strict=True):
                if want is not None and not torch.equal(got.nan_to_num(), want.nan_to_num()):
                    raise NotVerified(f"{name} does not give the {field_name} of the scalar oracle")

    return check
