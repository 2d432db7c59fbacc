"""Thresholds and temperatures that follow from sums over what a filter sees: as core/filter.h."""

from __future__ import annotations

import triton
import triton.language as tl

from . import arithmetic as n


@triton.jit
def entropy(sums):
    """In nats."""
    return n.log_mass(sums.mass) + tl.full([], n.LN2, tl.float64) * (
        sums.moment.to(tl.float64) / sums.mass.to(tl.float64)
    )


@triton.jit
def eta_mass(eta, sums):
    eta = eta.to(tl.float64)
    weight = n.weight((-entropy(sums) * tl.full([], n.LOG2E, tl.float64)).to(tl.float32)).to(tl.float64)
    return tl.minimum(tl.sqrt(eta) * weight, eta) * sums.mass.to(tl.float64)


@triton.jit
def dynamic_temperature(temperature, spread, power, sums):
    """The temperature that the entropy of what is seen asks for."""
    share = tl.full([], 0.0, tl.float64)
    if sums.count > 1:
        share = entropy(sums) / n.natural_log(sums.count.to(tl.float64), 0)
        share = tl.minimum(tl.maximum(share, 0.0), 1.0)
    if power == 0.0:
        share = tl.full([], 1.0, tl.float64)
    elif (power != 1.0) & (share > 0.0):
        share = n.weight(
            (power.to(tl.float64) * n.natural_log(share, 0) * tl.full([], n.LOG2E, tl.float64)).to(tl.float32)
        )
        share = share.to(tl.float64)
    middle, spread = temperature.to(tl.float64), spread.to(tl.float64)
    low = tl.maximum(middle - spread, 0.0)
    hot = low + ((middle + spread) - low) * share
    return tl.where(hot < n.LARGEST, hot, n.LARGEST).to(tl.float32)
