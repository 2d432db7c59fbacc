"""Methods that write softmax(x / T) into a buffer: ours, and eager PyTorch with and without one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .. import ops
from .method import OURS, Bound, Method
from .verify import check_close

TORCH_OUT, TORCH_FRESH = "torch.softmax (out=)", "torch.softmax"


def softmax(temperature: float) -> list[Method]:
    """All the ways."""

    def ours(x: Tensor, buffer: Tensor, scaled: Tensor) -> Tensor:
        out: Tensor = ops.softmax(x, temperature, out=buffer)
        return out

    def with_out(x: Tensor, buffer: Tensor, scaled: Tensor) -> Tensor:
        torch.div(x, temperature, out=scaled)
        return torch.softmax(scaled, -1, out=buffer)

    def fresh(x: Tensor, buffer: Tensor, scaled: Tensor) -> Tensor:
        return torch.softmax(x / temperature, -1)

    return [
        _method(OURS, "softmax into a given buffer", temperature, ours),
        _method(TORCH_OUT, "div and softmax, both into given buffers", temperature, with_out),
        _method(TORCH_FRESH, "div and softmax, outputs made by the call", temperature, fresh),
    ]


def _method(name: str, counted: str, temperature: float, run: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Method:
    def bind(inputs: Sequence[Tensor]) -> Bound:
        buffer, scaled = torch.empty(inputs[0].shape), torch.empty(inputs[0].shape)
        return lambda number: run(inputs[number], buffer, scaled)

    def check(rows: Tensor, results: list[Tensor]) -> None:
        check_close(name, "softmax(x / T)", torch.cat(results), (rows.double() / temperature).softmax(-1))

    return Method(name, counted, bind, check)
