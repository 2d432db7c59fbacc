"""Best of n: several samples of a prompt, of which those that the model finds most probable are kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..model.weights import Checkpoint
from .checks import check_count
from .loop import Prompts, generate
from .params import SamplingParams
from .results import Completion, Completions


def best_of(
    model: Checkpoint,
    prompts: Prompts,
    params: SamplingParams | Sequence[SamplingParams] | None = None,
    *,
    samples: int = 5,
    **options: Any,
) -> Completions:
    """Draw `samples` completions of each prompt, and keep the params.n with the largest mean log-probability.

    The mean is over the tokens drawn, the one that ended the text included, of their natural log-probability in the
    model's own distribution (before temperature, filters, penalties and bans), so that it compares texts of unequal
    length, and of unequal parameters. `Completion.score` is the mean, and `sample` the place, from 0; of equal ones
    the first drawn is the better. The `seed` of a completion gives it again.

    options  those of `generate`.

    Raises ValueError or TypeError as `generate` does, and where params.n is larger than `samples`.

    >>> from warpdraw import SamplingParams, best_of, load
    >>> best, second = best_of(load("tiny-target"), "The sky is", SamplingParams(seed=7, n=2), samples=4)
    >>> best.score >= second.score
    True
    """
    check_count("samples", samples, 1)
    several = [prompts] if isinstance(prompts, str) else list(prompts)
    wanted = [params or SamplingParams()] * len(several) if isinstance(params, SamplingParams | None) else list(params)
    for index, each in enumerate(wanted):
        if isinstance(each, SamplingParams) and each.n > samples:
            raise ValueError(f"params[{index}].n: expected at most samples = {samples}, got {each.n}")
    drawn = generate(model, several, [_reporting(each, samples) for each in wanted], **options)  # type: ignore[arg-type]

    kept: list[Completion] = []
    for index, each in enumerate(wanted):
        scored = [replace(one, score=mean_logprob(one)) for one in drawn if one.index == index]
        scored.sort(key=lambda one: -math.inf if one.score is None else one.score, reverse=True)
        kept += (
            replace(one, sample=place, logprobs=one.logprobs if each.logprobs is not None else None)
            for place, one in enumerate(scored[: each.n])
        )
    return Completions(kept, drawn.throughput)


def mean_logprob(completion: Completion) -> float | None:
    """The mean log-probability of a completion's tokens in the model's own distribution; None for a failed one."""
    if completion.error is not None or not completion.logprobs:
        return None
    return math.fsum(each.raw_logprob for each in completion.logprobs) / len(completion.logprobs)


def _reporting(params: SamplingParams, samples: int) -> SamplingParams:
    if not isinstance(params, SamplingParams):  # for `generate` to refuse
        return params
    return replace(params, n=samples, logprobs=params.logprobs or 0)
