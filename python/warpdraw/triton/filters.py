"""The filters, each over what is left of a row, and their chain."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from . import arithmetic as n
from .arguments import of_row, only_row
from .edits import is_valid, within
from .rows import (
    CHUNK,
    LAST_ID,
    LIST,
    NONE,
    TILE,
    begin_with,
    everything,
    keeps,
    key_id,
    key_logit,
    list_tiles,
    narrow,
    read_listed,
    row_at,
)
from .select import Selection, crossing, cut, keep_first, key_at, ranked, weighing
from .sums import (
    first_id,
    highest_kept,
    last_id,
    lowest_kept,
    lowest_logit,
    mass_kept,
    mass_of,
    sums_kept,
)
from .thresholds import dynamic_temperature, eta_mass
from .typical import keep_typical

VLLM, HF, FLASHINFER_JOINT, LLAMA_CPP = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)
MIN_P, TOP_K, TOP_P, TYPICAL_P = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)


class Filter(NamedTuple):
    """What a row's parameters make of its draw, beside the filters themselves."""

    valid: Any
    greedy: Any
    k: Any
    temperature: Any  # before dynatemp
    scale: Any  # of the draw; with dynatemp set once the entropy is known
    seed: Any
    position: Any


@triton.jit
def step_at(order: tl.constexpr, i: tl.constexpr):
    """The filters in the middle of the chain, in the order of each preset."""
    if order == VLLM:
        return i
    elif order == LLAMA_CPP:
        return tl.constexpr((1, 3, 2, 0)[i])
    else:
        return tl.constexpr((1, 2, 0, 3)[i])


@triton.jit
def filter_of(inputs, at):
    t = of_row(inputs.temperature, at, 1.0, tl.float32)
    k = of_row(inputs.top_k, at, 0, tl.int64)
    valid = within(t, 0.0, n.LARGEST) & (k >= 0)
    valid &= within(of_row(inputs.top_p, at, 1.0, tl.float32), 0.0, 1.0)
    valid &= within(of_row(inputs.min_p, at, 0.0, tl.float32), 0.0, 1.0)
    valid &= within(of_row(inputs.typical_p, at, 1.0, tl.float32), 0.0, 1.0)
    valid &= within(of_row(inputs.epsilon, at, 0.0, tl.float32), 0.0, 1.0)
    valid &= within(of_row(inputs.eta, at, 0.0, tl.float32), 0.0, 1.0)
    valid &= within(of_row(inputs.xtc_probability, at, 0.0, tl.float32), 0.0, 1.0)
    valid &= within(of_row(inputs.xtc_threshold, at, 0.1, tl.float32), 0.0, 1.0)
    valid &= within(of_row(inputs.top_n_sigma, at, 0.0, tl.float32), 0.0, n.LARGEST)
    valid &= within(of_row(inputs.dynatemp_range, at, 0.0, tl.float32), 0.0, n.LARGEST)
    valid &= within(of_row(inputs.dynatemp_exponent, at, 1.0, tl.float32), 0.0, n.LARGEST)
    # Temperature 0 is the first token of the total order, like k = 1.
    k = tl.where(t == 0.0, 1, k)
    t = tl.where(valid & (t > 0.0), t, 1.0)
    seed, position = of_row(inputs.seed, at, 0, tl.int64), of_row(inputs.position, at, 0, tl.int64) + at.depth
    return Filter(valid, k == 1, k, t, n.exponent_scale(t), seed, position)


@triton.jit
def begin(logits, inputs, rooms):
    """A program's row: its place, its parameters, the row, and whether it is valid."""
    at = only_row(tl.program_id(0).to(tl.int64))
    flt = filter_of(inputs, at)
    row = row_at(logits, inputs, rooms, at)
    return at, flt, row, flt.valid & is_valid(inputs, at, logits.size) & (row.x_max >= NONE)


@triton.jit
def weighs_enough(x, arguments):
    """min-p: by the weight itself."""
    highest, scale, least = arguments
    return n.weight(n.exponent(x, highest, scale)) >= least


@triton.jit
def has_mass(x, arguments):
    highest, scale, least = arguments
    return mass_of(x, highest, scale).to(tl.float64) >= least


@triton.jit
def has_more_mass(x, arguments):
    highest, scale, light = arguments
    return mass_of(x, highest, scale) > light


@triton.jit(noinline=True)
def at_least(row, interval, highest, scale, least):
    """Keeps the tokens with at least so much mass, and the first in any case."""
    if has_mass(highest, (highest, scale, least)):
        kept = narrow(
            interval, lowest_logit(has_mass, highest, (highest, scale, least)), tl.full([], LAST_ID, tl.int32)
        )
    else:
        kept = narrow(interval, highest, first_id(row, highest, interval))
    return kept


# ---- the filters


@triton.jit
def keep_sigma(row, interval, sigmas):
    """Tokens within so many standard deviations of the largest logit, in steps that make the sums exact."""
    highest = row.x_max.to(tl.float64)
    span = highest - lowest_kept(row, interval).to(tl.float64)
    # scale = 2^(20 - e), where span = f 2^e and f in [1/2, 1); e = 0 of a span of 0. Subnormal only if it is 0.
    e = tl.where(span > 0.0, ((span.to(tl.int64, bitcast=True) >> 52) & 0x7FF) - 1022, 0)
    scale = ((20 - e + 1023) << 52).to(tl.float64, bitcast=True)
    total, squares = tl.zeros([CHUNK, TILE], tl.int64), tl.zeros([CHUNK, TILE], tl.int64)
    counts = tl.zeros([CHUNK, TILE], tl.int64)
    count = list_tiles(row, interval.last_x)
    for start in range(0, count, CHUNK):
        x, id = read_listed(row, start, count)
        kept = keeps(interval, x, id)
        x = tl.where(kept, x, row.x_max)
        steps = tl.floor((highest - x.to(tl.float64)) * scale).to(tl.int64)
        total += steps
        squares += steps * steps
        counts += kept.to(tl.int64)
    number = tl.sum(tl.sum(counts, 1), 0).to(tl.float64)
    mean = tl.sum(tl.sum(total, 1), 0).to(tl.float64) / number
    variance = tl.sum(tl.sum(squares, 1), 0).to(tl.float64) / number - mean * mean
    least = highest - sigmas.to(tl.float64) * (tl.sqrt(tl.maximum(variance, 0.0)) / scale)
    # The smallest float32 that is not below it.
    x = tl.maximum(least, NONE).to(tl.float32)
    x = tl.where(x.to(tl.float64) < least, n.unordered(n.ordered(x) + 1), x)
    return narrow(interval, x, tl.full([], LAST_ID, tl.int32))


@triton.jit
def keep_heaviest(row, interval, highest, scale, p):
    """top-p over an interval that is not listed."""
    total = mass_kept(row, highest, scale, interval)
    target = n.nucleus_mass(p, total)
    # Even without all tokens of this mass or less the rest reaches the target.
    light = (total - target) // row.vocab
    heavy = lowest_logit(has_more_mass, highest, (highest, scale, light))
    return cut(row, interval, tl.maximum(interval.last_x, heavy), highest, target, weighing(highest, scale))


@triton.jit
def keep_by_mass(row, interval, scale, inputs, flt, at):
    """epsilon, eta and XTC; none of them drops the first token but XTC."""
    highest = highest_kept(row, interval)
    if inputs.epsilon is not None:
        epsilon = of_row(inputs.epsilon, at, 0.0, tl.float32)
        if epsilon > 0.0:
            least = epsilon.to(tl.float64) * mass_kept(row, highest, scale, interval).to(tl.float64)
            interval = at_least(row, interval, highest, scale, least)
    if inputs.eta is not None:
        eta = of_row(inputs.eta, at, 0.0, tl.float32)
        if eta > 0.0:
            interval = at_least(row, interval, highest, scale, eta_mass(eta, sums_kept(row, highest, scale, interval)))
    if inputs.xtc_probability is not None:
        probability = of_row(inputs.xtc_probability, at, 0.0, tl.float32)
        bits = n.noise_bits(flt.seed, flt.position, n.STREAM_XTC, tl.full([], 0, tl.int32))
        if (probability > 0.0) & (n.uniform(bits) < probability.to(tl.float64)):
            threshold = of_row(inputs.xtc_threshold, at, 0.1, tl.float32)
            least = threshold.to(tl.float64) * mass_kept(row, highest, scale, interval).to(tl.float64)
            likely = at_least(row, interval, highest, scale, least)
            x = lowest_kept(row, likely)
            interval = begin_with(interval, x, last_id(row, x, likely))
    return interval


@triton.jit
def first_token(row):
    return narrow(everything(), row.x_max, first_id(row, row.x_max, everything()))


@triton.jit
def chain(row, inputs, flt, at, ORDER: tl.constexpr):
    """What all filters keep together, the scale of the draw, and whether it is the first token. The row is valid."""
    interval, scale = everything(), flt.scale
    greedy = flt.greedy
    if inputs.dynatemp_range is not None:
        spread = of_row(inputs.dynatemp_range, at, 0.0, tl.float32)
        power = of_row(inputs.dynatemp_exponent, at, 1.0, tl.float32)
        if ORDER != LLAMA_CPP:
            if (spread > 0.0) & ~greedy:
                hot = dynamic_temperature(
                    flt.temperature, spread, power, sums_kept(row, row.x_max, n.constant(n.LOG2E, scale), interval)
                )
                greedy = hot == 0.0
                scale = n.exponent_scale(tl.where(hot > 0.0, hot, 1.0))
    if greedy:
        interval = first_token(row)
    else:
        filter_scale = n.constant(n.LOG2E, scale) if ORDER == LLAMA_CPP else scale
        if inputs.top_n_sigma is not None:
            sigmas = of_row(inputs.top_n_sigma, at, 0.0, tl.float32)
            if sigmas > 0.0:
                interval = keep_sigma(row, interval, sigmas)
        all = interval
        listed = tl.full([], -1, tl.int32)
        for i in tl.static_range(4):
            if step_at(ORDER, i) == MIN_P:
                if inputs.min_p is not None:
                    least = of_row(inputs.min_p, at, 0.0, tl.float32)
                    if least > 0.0:
                        highest = highest_kept(row, interval)
                        x = lowest_logit(weighs_enough, highest, (highest, filter_scale, least))
                        interval = narrow(interval, x, tl.full([], LAST_ID, tl.int32))
                        listed = tl.full([], -1, tl.int32)
            elif step_at(ORDER, i) == TOP_K:
                if inputs.top_k is not None:
                    if flt.k > 0:
                        interval, listed = keep_first(row, Selection(interval, listed), flt.k)
            elif step_at(ORDER, i) == TOP_P:
                if inputs.top_p is not None:
                    p = of_row(inputs.top_p, at, 1.0, tl.float32)
                    if p < 1.0:
                        seen = interval
                        if ORDER == FLASHINFER_JOINT:
                            interval, listed = all, tl.full([], -1, tl.int32)
                        if listed > 0:
                            keys = ranked(row, listed)
                            values = mass_of(key_logit(keys), key_logit(key_at(row, 0)), filter_scale)
                            values = tl.where(tl.arange(0, LIST) < listed, values, 0)
                            last, _ = crossing(values, listed, n.nucleus_mass(p, tl.sum(values, 0)))
                            key = key_at(row, last)
                            interval = narrow(interval, key_logit(key), key_id(key))
                            listed = last + 1
                        else:
                            highest = highest_kept(row, interval)
                            interval = keep_heaviest(row, interval, highest, filter_scale, p)
                        if ORDER == FLASHINFER_JOINT:
                            interval = narrow(interval, seen.last_x, seen.last_id)
                            listed = tl.full([], -1, tl.int32)
            else:
                if inputs.typical_p is not None:
                    typical = of_row(inputs.typical_p, at, 1.0, tl.float32)
                    if typical < 1.0:
                        interval = keep_typical(row, interval, typical, filter_scale)
                        listed = tl.full([], -1, tl.int32)
        if (inputs.epsilon is not None) or (inputs.eta is not None) or (inputs.xtc_probability is not None):
            interval = keep_by_mass(row, interval, filter_scale, inputs, flt, at)
        if inputs.dynatemp_range is not None and ORDER == LLAMA_CPP:
            if spread > 0.0:
                highest = highest_kept(row, interval)
                hot = dynamic_temperature(
                    flt.temperature, spread, power, sums_kept(row, highest, n.constant(n.LOG2E, scale), interval)
                )
                if hot == 0.0:
                    interval = narrow(interval, highest, first_id(row, highest, interval))
                scale = n.exponent_scale(tl.where(hot > 0.0, hot, 1.0))
    return interval, scale, greedy
