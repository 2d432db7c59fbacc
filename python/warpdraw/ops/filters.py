"""What the filters keep, by definition, in float64; and the parameters that every filtering op takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FILTERS = (
    "temperature: f32[B] = 1.0 in [0, inf), top_k: i32[B] = 0 in [0, 2147483647], "
    "top_p: f32[B] = 1.0 in [0, 1], min_p: f32[B] = 0.0 in [0, 1]"
)
ORDER = "order: vllm|hf|flashinfer-joint|llama.cpp = vllm"

PerRow = Tensor | float | int


def per_row(value: PerRow, logits: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """A parameter as [B], rounded to the dtype that kernels read."""
    tensor = torch.as_tensor(value, dtype=dtype, device=logits.device)
    return tensor.expand(logits.shape[0])


def candidates_of(logits: Tensor) -> Tensor:
    """Logits in float64: -inf and NaN are no candidates; where +inf occurs, only those tokens are, and equal."""
    x = logits.double().nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    infinite = x == torch.inf
    marked = torch.where(infinite, 0.0, -torch.inf)
    return torch.where(infinite.any(-1, keepdim=True), marked, x)


def log_weights(x: Tensor, temperature: Tensor) -> Tensor:
    """(x - max) / T, -inf for tokens that are no candidates; the row has one."""
    highest = x.amax(-1, keepdim=True)
    return torch.where(x > -torch.inf, (x - highest) / temperature.double()[:, None], -torch.inf)


@dataclass(frozen=True)
class Kept:
    """The kept tokens of each row and their natural-log weights at the temperature of the draw."""

    mask: Tensor  # bool [B, V]; a row without any is invalid
    log_weights: Tensor  # float64 [B, V], -inf for tokens that are no candidates
    raw_log_weights: Tensor  # the same at temperature 1


def kept_tokens(logits: Tensor, temperature: PerRow, top_k: PerRow, top_p: PerRow, min_p: PerRow, order: str) -> Kept:
    """Apply the filters by their definitions: each keeps a prefix of the total order (logit falling, id rising)."""
    t, p, m = (per_row(value, logits) for value in (temperature, top_p, min_p))
    k = per_row(top_k, logits, torch.int32).long()
    valid = (t >= 0) & t.isfinite() & (k >= 0) & (p >= 0) & p.isfinite() & (m >= 0) & (m <= 1)
    k = torch.where(t == 0, 1, k)
    t = torch.where(t == 0, 1, t)

    x = candidates_of(logits)
    highest_first = x.argsort(dim=-1, descending=True, stable=True)
    rank = torch.empty_like(highest_first).scatter_(
        -1, highest_first, torch.arange(x.shape[-1], device=x.device).expand_as(highest_first)
    )
    seen_temperature = torch.ones_like(t) if order == "llama.cpp" else t
    weight = log_weights(x, seen_temperature).exp()
    ranked_weight = weight.gather(-1, highest_first)

    candidate = x > -torch.inf
    in_top_k = candidate & ((rank < k[:, None]) | (k == 0)[:, None])
    in_min_p = candidate & (weight >= m.double()[:, None])

    def in_top_p(seen: Tensor) -> Tensor:
        mass = ranked_weight * seen.gather(-1, highest_first)
        before = mass.cumsum(-1) - mass
        inside = (before < p.double()[:, None] * mass.sum(-1, keepdim=True)) | (p >= 1)[:, None]
        inside[:, 0] = True
        return seen & inside.gather(-1, rank)

    if order == "vllm":
        mask = in_top_p(in_top_k & in_min_p)
    elif order == "flashinfer-joint":
        mask = in_top_p(candidate) & in_top_k & in_min_p
    else:
        mask = in_top_p(in_top_k) & in_min_p
    return Kept(mask & valid[:, None], log_weights(x, t), log_weights(x, torch.ones_like(t)))
