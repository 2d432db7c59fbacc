"""The arithmetic of csrc/core, re-typed for Triton: the same operations in the same order.

Launch with enable_fp_fusion=False: every fused multiply-add is written out.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950216293335)  # float32 values, exactly
LN2 = tl.constexpr(0.6931471824645996)
LARGEST = tl.constexpr(3.4028234663852886e38)
MASS_SCALE = tl.constexpr(1099511627776.0)
STREAM_TILE, STREAM_TOKEN, STREAM_XTC = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
STREAM_ACCEPT, STREAM_RESIDUAL_TILE, STREAM_RESIDUAL_TOKEN = tl.constexpr(3), tl.constexpr(4), tl.constexpr(5)
STREAM_BITS = tl.constexpr(8)  # of the last word of a counter; the step has the others


@triton.jit
def bits_of(x):
    return x.to(tl.uint32, bitcast=True)


@triton.jit
def float_of(u):
    return u.to(tl.uint32).to(tl.float32, bitcast=True)


@triton.jit
def to_float(x):
    """A logit as float32, exactly; by its bits from bfloat16, whose subnormals Triton's interpreter loses."""
    if x.dtype == tl.bfloat16:
        return float_of(x.to(tl.uint16, bitcast=True).to(tl.uint32) << 16)
    else:
        return x.to(tl.float32)


@triton.jit
def constant(value, like):
    """A number in the shape and the dtype of a tensor."""
    return tl.full(like.shape, value, like.dtype)


@triton.jit
def ordered(x):
    """A uint32 that grows with x; -0 and +0 are one value."""
    u = bits_of(x + 0.0)
    return tl.where((u >> 31) != 0, ~u, u | 0x80000000)


@triton.jit
def unordered(u):
    return float_of(tl.where((u >> 31) != 0, u & 0x7FFFFFFF, ~u))


@triton.jit
def exponent_scale(temperature):
    c = tl.div_rn(constant(LOG2E, temperature), temperature)
    return tl.where(c < LARGEST, c, LARGEST)


@triton.jit
def exponent(x, x_max, scale):
    return (x - x_max) * scale


@triton.jit
def weight(t):
    """2^t for t <= 0; zero below 2^-126 and for NaN."""
    counts = t >= -126.0
    t = tl.where(counts, t, 0.0)
    whole = tl.floor(t)
    f = t - whole
    p = tl.fma(constant(0.001879318617284298, f), f, constant(0.008990995585918427, f))
    p = tl.fma(p, f, constant(0.05581867694854736, f))
    p = tl.fma(p, f, constant(0.240159273147583, f))
    p = tl.fma(p, f, constant(0.6931517124176025, f))
    p = tl.fma(p, f, constant(1.0, f))
    scale = float_of((whole.to(tl.int32) + 127) << 23)
    return tl.where(counts, p * scale, 0.0)


@triton.jit
def mass(w):
    """In units of 2^-40 of the largest weight, rounded down; int64."""
    return (w * MASS_SCALE).to(tl.int64)


@triton.jit
def moment(t):
    """Mass times -t, rounded down like the mass."""
    return tl.where(t >= -126.0, (weight(t) * -t * MASS_SCALE).to(tl.int64), 0)


@triton.jit
def nucleus_mass(p, total):
    return (p.to(tl.float64) * total.to(tl.float64)).to(tl.int64)


@triton.jit
def exponential(r):
    """-log(1 - u) with u = (r + 1/2) / 2^32."""
    low = r < 0x40000000
    near = (r.to(tl.float32) + 0.5) * -2.3283064365386963e-10
    v = bits_of((~r).to(tl.float32) + 0.5)
    n = (v - 0x3F400000).to(tl.int32, bitcast=True) >> 23
    far = float_of(v - (n.to(tl.uint32, bitcast=True) << 23)) - 1.0
    f = tl.where(low, near, far)
    e = tl.where(low, 0.0, (n - 32).to(tl.float32))
    q = tl.fma(constant(0.05413250246, f), f, constant(-0.12067372339, f))
    q = tl.fma(q, f, constant(0.14983918178, f))
    q = tl.fma(q, f, constant(-0.16822811584, f))
    q = tl.fma(q, f, constant(0.19977077119, f))
    q = tl.fma(q, f, constant(-0.24993442251, f))
    q = tl.fma(q, f, constant(0.33333548556, f))
    q = tl.fma(q, f, constant(-0.50000060649, f))
    q = tl.fma(q, f, constant(1.0, f))
    return -tl.fma(e, constant(LN2, f), f * q)


@triton.jit
def race_key(m, e):
    return tl.div_rn(m.to(tl.float32), e)


@triton.jit
def philox(c0, c1, c2, c3, key0, key1):
    for _ in tl.static_range(10):
        high_a, low_a = tl.umulhi(tl.full([], 0xD2511F53, tl.uint32), c0), c0 * 0xD2511F53
        high_b, low_b = tl.umulhi(tl.full([], 0xCD9E8D57, tl.uint32), c2), c2 * 0xCD9E8D57
        c0, c1, c2, c3 = high_b ^ c1 ^ key0, low_b, high_a ^ c3 ^ key1, low_a
        key0 += 0x9E3779B9
        key1 += 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def noise_bits(seed, position, stream, index):
    """32 uniform bits for each index; four neighbours share an evaluation."""
    block = (index // 4).to(tl.uint32)
    zero = tl.zeros_like(block)
    c0, c1, c2, c3 = philox(
        block,
        zero + position.to(tl.uint32),
        zero + (position >> 32).to(tl.uint32),
        zero + stream,
        zero + seed.to(tl.uint32),
        zero + (seed >> 32).to(tl.uint32),
    )
    word = index % 4
    return tl.where(word == 0, c0, tl.where(word == 1, c1, tl.where(word == 2, c2, c3)))


@triton.jit
def noise(seed, position, stream, index):
    """A standard exponential for each index."""
    return exponential(noise_bits(seed, position, stream, index))


@triton.jit
def uniform(r):
    """(r + 1/2) / 2^32 as float64, never 0 or 1."""
    return (r.to(tl.float64) + 0.5) * 2.3283064365386963e-10


@triton.jit
def natural_log(x, shift):
    """log(x / 2^shift) of positive normal float64."""
    u = x.to(tl.int64, bitcast=True)
    n = (u - 0x3FE8000000000000) >> 52
    y = (u - (n << 52)).to(tl.float64, bitcast=True)
    s = (y - 1.0) / (y + 1.0)
    z = s * s
    series = constant(1.0, z) / 21.0
    for i in tl.static_range(10):
        series = tl.fma(series, z, constant(1.0, z) / (19.0 - 2 * i))
    return tl.fma((n - shift).to(tl.float64), constant(0.693147180559945309, z), 2.0 * s * series)


@triton.jit
def log_mass(m):
    return natural_log(m.to(tl.float64), 40)


@triton.jit
def probability_unit(total):
    return (1099511627776.0 / total.to(tl.float64)).to(tl.float32)


@triton.jit
def log_probability(t, total):
    return tl.fma(t, constant(LN2, t), constant(0.0, t) - log_mass(total).to(tl.float32))


@triton.jit
def probability(t, total):
    return weight(t) * probability_unit(total)
