"""The parameters of mirostat and of guidance: their ranges, and what they exclude."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .checks import check_number

if TYPE_CHECKING:
    from .params import SamplingParams

# Mirostat is the filter: what each of these is where it is off.
OTHER_FILTERS = {
    "top_k": 0,
    "top_p": 1,
    "min_p": 0,
    "top_n_sigma": 0,
    "typical_p": 1,
    "epsilon": 0,
    "eta": 0,
    "xtc_probability": 0,
    "order": "vllm",
}
# Far beyond what any text needs, and within what float32 holds after a product with a logit.
LARGEST_GUIDANCE = 1e6
SMALLEST = math.ulp(0.0)


def check_steering(params: SamplingParams) -> None:
    """TypeError or ValueError for what is out of range, or makes no sense together."""
    if isinstance(params.mirostat, bool) or params.mirostat not in (0, 1, 2):
        raise ValueError(f"mirostat: expected 0, 1 or 2, got {params.mirostat!r}")
    largest = math.nextafter(math.inf, 0)
    check_number("mirostat_tau", params.mirostat_tau, SMALLEST, largest, "a number in (0, inf)")
    check_number("mirostat_eta", params.mirostat_eta, 0, largest, "a number in [0, inf)")
    if params.mirostat:
        for name, off in OTHER_FILTERS.items():
            value = getattr(params, name)
            if value != off:
                raise ValueError(f"{name}: expected {off!r} together with mirostat, which is the filter, got {value!r}")
        if params.temperature == 0:
            raise ValueError("temperature: expected above 0 together with mirostat, which needs a draw, got 0")
    check_number("guidance", params.guidance, -LARGEST_GUIDANCE, LARGEST_GUIDANCE, "a number in [-1000000, 1000000]")
    if params.negative_prompt is not None:
        if not isinstance(params.negative_prompt, str):
            raise TypeError(f"negative_prompt: expected text or None, got {params.negative_prompt!r}")
        if params.guidance == 1:
            raise ValueError("negative_prompt: expected together with a guidance other than 1, got guidance 1")
