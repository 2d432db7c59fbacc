"""Runs `warpdraw bench generate`: whole generation, checked first, then timed in turn in one process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from ..backends import backend_for
from ..environment import package_version
from ..model.weights import Checkpoint, load
from .generation_batching import batching
from .generation_guided import guided
from .generation_jobs import Figure, Options, part_of
from .generation_names import names
from .generation_share import sampling_share
from .records import described

PACKAGES = ("transformers", "llguidance")
METHOD = {
    "timing": "wall time, methods called in turn in one process; a ratio is the median of the ratios of the rounds",
    "verified": "before timing: the same tokens in a batch and one by one; transformers has the same logits, and the "
    "same greedy tokens in a padded batch; every method draws as many tokens as are asked for; JSON by a check that "
    "shares nothing with the guide",
}

Tell = Callable[[str, float], None]
Job = Callable[[Checkpoint, Options, Callable[[float], None]], tuple[list[Figure], dict[str, Any]]]

JOBS: dict[str, Job] = {
    "sampling's share": sampling_share,
    "continuous batching": batching,
    "JSON of a schema": guided,
    "names": names,
}


def run(options: Options, tell: Tell = lambda what, part: None) -> dict[str, Any]:
    """Measure: a document of plain data. `tell` hears what is being done and the finished part, 0 to 1."""
    chosen = {name: job for name, job in JOBS.items() if options.only in name}
    if not chosen:
        raise ValueError(f"only: expected part of the name of a job ({'; '.join(JOBS)}), got {options.only!r}")
    tell(f"loading {options.model}", 0.0)
    model = load(options.model)
    figures: list[Figure] = []
    details: dict[str, Any] = {}
    absent: dict[str, str] = {}
    for number, (name, job) in enumerate(chosen.items()):
        tell(name, number / len(chosen))
        found, detail = job(model, options, part_of(partial(tell, name), number, len(chosen)))
        absent |= detail.pop("absent", {})
        figures += found
        details[name] = detail
    document = described("generate", options=asdict(options))
    document["method"] = METHOD
    document["environment"]["packages"] = {name: package_version(name) for name in PACKAGES}
    return document | {
        "backend": backend_for(torch.device("cpu")).name,
        "figures": [asdict(figure) | {"met": figure.met} for figure in figures],
        "details": details,
        "absent": absent,
    }
