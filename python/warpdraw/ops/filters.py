"""Steps 5 and 6 of docs/sampling.md in float64, by definition: each row's temperature, and what the filters keep."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .arguments import Arguments
from .edits import edited_logits
from .noise import uniforms


def candidates_of(logits: Tensor) -> Tensor:
    """Logits in float64: -inf and NaN are no candidates; where +inf occurs, only those tokens are, and equal."""
    x = logits.double().nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    infinite = x == torch.inf
    marked = torch.where(infinite, 0.0, -torch.inf)
    return torch.where(infinite.any(-1, keepdim=True), marked, x)


def log_weights(x: Tensor, temperature: Tensor, among: Tensor | None = None) -> Tensor:
    """(x - max) / T, the maximum over some tokens or all; -inf for the others and for tokens that are no candidates."""
    if among is not None:
        x = x.masked_fill(~among, -torch.inf)
    highest = x.amax(-1, keepdim=True)
    return torch.where(x > -torch.inf, (x - highest) / temperature.double()[:, None], -torch.inf)


@dataclass(frozen=True)
class Kept:
    """The kept tokens of each row and their natural-log weights at the temperature of the draw."""

    mask: Tensor  # bool [B, V]; a row without any is invalid
    logits: Tensor  # float64 [B, V], after the edits; -inf for tokens that are not kept
    log_weights: Tensor  # float64 [B, V], 0 for the largest kept one and -inf for tokens that are not kept


def kept_tokens(arguments: Arguments) -> Kept:
    """Edit the logits and apply the filters by their definitions."""
    x = candidates_of(edited_logits(arguments))
    highest_first = x.argsort(dim=-1, descending=True, stable=True)
    ranked = x.gather(-1, highest_first)
    one = torch.ones_like(arguments.temperature)
    candidate = (ranked > -torch.inf) & arguments.valid()[:, None]
    if arguments.order == "llama.cpp":
        seen = filtered(ranked, candidate, one, arguments)
        temperature = temperature_of(ranked, seen, arguments)
        greedy_among = torch.where((arguments.temperature == 0)[:, None], candidate, seen)
    else:
        temperature = temperature_of(ranked, candidate, arguments)
        seen = filtered(ranked, candidate, torch.where(temperature == 0, one, temperature), arguments)
        greedy_among = candidate
    seen = torch.where((temperature == 0)[:, None], first_of(greedy_among), seen)
    weights = log_weights(ranked, torch.where(temperature == 0, one, temperature), seen)
    mask = torch.zeros_like(seen).scatter_(-1, highest_first, seen)
    unranked = torch.full_like(x, -torch.inf).scatter_(-1, highest_first, weights)
    return Kept(mask, x.masked_fill(~mask, -torch.inf), unranked)


def entropy_of(log_weight: Tensor) -> tuple[Tensor, Tensor]:
    """The mean logarithm of the weights and the entropy in nats, [B, 1] each, of weights whose largest is 1."""
    weight = log_weight.exp()
    total = weight.sum(-1, keepdim=True)
    mean = (weight * log_weight.nan_to_num(neginf=0.0)).sum(-1, keepdim=True) / total
    return mean, total.log() - mean


def temperature_of(x: Tensor, seen: Tensor, arguments: Arguments) -> Tensor:
    """Each row's temperature, [B]; where it is dynamic, from the entropy of the tokens seen at temperature 1."""
    T, r = arguments.temperature.double(), arguments.dynatemp_range.double()
    dynamic = (r > 0) & (T > 0)
    if not dynamic.any():
        return T
    _, entropy = entropy_of(log_weights(x, torch.ones_like(T), seen))
    count = seen.sum(-1)
    share = entropy[:, 0].clamp(min=0.0) / count.double().log()
    lowest = (T - r).clamp(min=0.0)
    spread = lowest + (T + r - lowest) * share ** arguments.dynatemp_exponent.double()
    # As kernels hold it: what is 0 in fp32 is temperature 0.
    moved = torch.where(count > 1, spread, lowest)
    return torch.where(dynamic, torch.where(moved.float() == 0, 0.0, moved), T)


def first_of(seen: Tensor) -> Tensor:
    """Where the first token seen stands, in ranked order."""
    return seen & (seen.cumsum(-1) == 1)


def filtered(x: Tensor, candidate: Tensor, temperature: Tensor, arguments: Arguments) -> Tensor:
    """What the chain of the order keeps of the candidates. All is ranked, so that each filter sees a run of places."""
    chain = Chain(x, temperature, arguments)
    seen = chain.top_n_sigma(candidate)
    if arguments.order == "vllm":
        steps = [chain.min_p, chain.top_k, chain.top_p, chain.typical]
    elif arguments.order == "hf":
        steps = [chain.top_k, chain.top_p, chain.min_p, chain.typical]
    elif arguments.order == "flashinfer-joint":
        seen = chain.top_p(seen) & chain.top_k(seen) & chain.min_p(seen)
        steps = [chain.typical]
    else:
        steps = [chain.top_k, chain.typical, chain.top_p, chain.min_p]
    for step in [*steps, chain.epsilon, chain.eta, chain.xtc]:
        seen = step(seen)
    return seen


@dataclass(frozen=True)
class Chain:
    """The filters: each maps the places seen to the places kept, both bool [B, V] in ranked order."""

    x: Tensor  # the candidates' logits in falling order
    temperature: Tensor  # that the filters see
    arguments: Arguments

    def _weights(self, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The weights of what is seen, the largest being 1, their logarithms, and their sum."""
        log_weight = log_weights(self.x, self.temperature, seen)
        weight = log_weight.exp()
        return weight, log_weight, weight.sum(-1, keepdim=True)

    def _parameter(self, name: str) -> Tensor:
        value: Tensor = getattr(self.arguments, name)
        return value.double()[:, None]

    def top_n_sigma(self, seen: Tensor) -> Tensor:
        n = self._parameter("top_n_sigma")
        if not (n > 0).any():
            return seen
        x = self.x.masked_fill(~seen, torch.nan)
        highest = x.nan_to_num(nan=-torch.inf).amax(-1, keepdim=True)
        below = highest - x
        sigma = (below - below.nanmean(-1, keepdim=True)).square().nanmean(-1, keepdim=True).sqrt()
        return seen & ((below <= n * sigma) | (n == 0))

    def min_p(self, seen: Tensor) -> Tensor:
        m = self._parameter("min_p")
        if not (m > 0).any():
            return seen
        weight, _, _ = self._weights(seen)
        return seen & (weight >= m)

    def top_k(self, seen: Tensor) -> Tensor:
        k = self.arguments.top_k[:, None]
        return seen & ((seen.cumsum(-1) <= k) | (k == 0))

    def top_p(self, seen: Tensor) -> Tensor:
        p = self._parameter("top_p")
        if not (p < 1).any():
            return seen
        weight, _, total = self._weights(seen)
        before = weight.cumsum(-1) - weight
        return seen & ((before < p * total) | (p >= 1) | first_of(seen))

    def typical(self, seen: Tensor) -> Tensor:
        t = self._parameter("typical_p")
        if not (t < 1).any():
            return seen
        weight, log_weight, total = self._weights(seen)
        distance = log_weight - entropy_of(log_weight)[0]  # H + ln p
        place = torch.arange(seen.shape[-1], device=seen.device).expand_as(seen)
        # First as ties go: the more probable side from its end, then the other from its beginning. Then by distance.
        outwards = torch.where(distance > 0, -1 - place, place).argsort(-1)
        nearest = distance.abs().gather(-1, outwards).argsort(dim=-1, stable=True)
        order = outwards.gather(-1, nearest)
        ranked = weight.gather(-1, order)
        before = ranked.cumsum(-1) - ranked
        near = before < t * total
        near[:, 0] = True
        kept = torch.zeros_like(seen).scatter_(-1, order, near)
        return seen & (kept | (t >= 1))

    def epsilon(self, seen: Tensor) -> Tensor:
        e = self._parameter("epsilon")
        if not (e > 0).any():
            return seen
        weight, _, total = self._weights(seen)
        return seen & ((weight >= e * total) | first_of(seen))

    def eta(self, seen: Tensor) -> Tensor:
        e = self._parameter("eta")
        if not (e > 0).any():
            return seen
        weight, log_weight, total = self._weights(seen)
        least = torch.minimum(e, e.sqrt() * (-entropy_of(log_weight)[1]).exp())
        return seen & ((weight >= least * total) | first_of(seen))

    def xtc(self, seen: Tensor) -> Tensor:
        arguments = self.arguments
        if not (arguments.xtc_probability > 0).any():
            return seen
        coin = uniforms(arguments.seed, arguments.position, "xtc", 1)[:, 0] < arguments.xtc_probability.double()
        weight, _, total = self._weights(seen)
        top = seen & (weight >= self._parameter("xtc_threshold") * total)
        others = top & (top.cumsum(-1) < top.sum(-1, keepdim=True))
        return seen & ~(others & coin[:, None])
