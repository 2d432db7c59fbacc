"""One draw for a batch of rows: their parameters as tensors, one call of the op, what it says of each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..model.tokenizer import Tokenizer
from .params import SamplingParams
from .results import Candidate, Step, TokenLogprob


@dataclass(frozen=True)
class Place:
    """Where a row draws: its parameters, its seed, the position of the token, and tokens it may not be."""

    params: SamplingParams
    seed: int
    position: int
    forbidden: tuple[int, ...] = ()


@dataclass(frozen=True)
class Drawn:
    """The token of one row, or None where the row has no candidate."""

    token: int | None
    logprob: TokenLogprob | None = None
    step: Step | None = None


def draw(logits: Tensor, places: Sequence[Place], tokenizer: Tokenizer, explain: int = 0) -> list[Drawn]:
    """Draw one token for each row of logits [B, V]; the rows of one order go through one call.

    Masks forbidden tokens in `logits` itself. `explain` leading candidates are reported for each row.
    """
    for row, place in enumerate(places):
        if place.forbidden:
            logits[row, list(place.forbidden)] = -torch.inf

    drawn: dict[int, Drawn] = {}
    for order in {place.params.order for place in places}:
        rows = [row for row, place in enumerate(places) if place.params.order == order]
        part = logits if len(rows) == len(places) else logits[rows]
        drawn.update(zip(rows, _draw(part, [places[row] for row in rows], tokenizer, explain), strict=True))
    return [drawn[row] for row in range(len(places))]


def _draw(logits: Tensor, places: list[Place], tokenizer: Tokenizer, explain: int) -> list[Drawn]:
    def column(values: list[Any], dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=logits.device)

    params = [place.params for place in places]
    wanted = any(each.logprobs is not None for each in params)
    filters = {
        "temperature": column([each.temperature for each in params], torch.float32),
        "top_k": column([each.top_k for each in params], torch.int32),
        "top_p": column([each.top_p for each in params], torch.float32),
        "min_p": column([each.min_p for each in params], torch.float32),
        "order": params[0].order,
    }
    result = ops.sample(
        logits,
        **filters,
        seed=column([place.seed for place in places], torch.int64),
        position=column([place.position for place in places], torch.int64),
        logprob=wanted,
        raw_logprob=wanted,
    )
    valid = result.valid.tolist()
    tokens = [token if valid[row] else None for row, token in enumerate(result.tokens.tolist())]
    logprobs = _logprobs(logits, params, tokens, result) if wanted else [None] * len(places)
    steps = _steps(logits, filters, places, tokens, tokenizer, explain) if explain else [None] * len(places)
    return [Drawn(*row) for row in zip(tokens, logprobs, steps, strict=True)]


def _logprobs(
    logits: Tensor, params: list[SamplingParams], tokens: list[int | None], result: Any
) -> list[TokenLogprob | None]:
    filtered, raw = result.logprob.tolist(), result.raw_logprob.tolist()
    most = min(max(each.logprobs or 0 for each in params), logits.shape[1])
    values, ids = (part.tolist() for part in ops.log_softmax(logits).topk(most)) if most else ([], [])

    logprobs: list[TokenLogprob | None] = []
    for row, (token, count) in enumerate(zip(tokens, (each.logprobs for each in params), strict=True)):
        if token is None or count is None:
            logprobs.append(None)
        else:
            top = tuple(zip(ids[row], values[row], strict=True))[:count] if count else ()
            logprobs.append(TokenLogprob(token, filtered[row], raw[row], top))
    return logprobs


def _steps(
    logits: Tensor,
    filters: dict[str, Any],
    places: list[Place],
    tokens: list[int | None],
    tokenizer: Tokenizer,
    explain: int,
) -> list[Step | None]:
    before = ops.softmax(logits)
    after = ops.filter_probs(logits, **filters)
    kept = ops.filter_logits(logits, **filters) > -torch.inf

    steps: list[Step | None] = []
    for row, (place, token) in enumerate(zip(places, tokens, strict=True)):
        if token is None:
            steps.append(None)
            continue
        leading = before[row].topk(min(explain, logits.shape[1])).indices.tolist()
        candidates = tuple(
            Candidate(
                token=tokenizer.token_text(i),
                id=i,
                probability=float(before[row, i]),
                filtered_probability=float(after[row, i]),
                kept=bool(kept[row, i]),
                drawn=i == token,
            )
            for i in (leading if token in leading else [*leading, token])
        )
        rest = max(0.0, 1.0 - sum(candidate.probability for candidate in candidates))
        steps.append(Step(place.position, int(kept[row].sum()), candidates, rest))
    return steps
