"""What is reported of a draw besides its token: log-probabilities, kept tokens, and the steps that --explain shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import ops
from .place import Place
from .results import Candidate, KeptTokens, Step, TokenLogprob
from .vocabulary import Vocabulary

# The problem of a row where nothing may be drawn.
NOTHING_LEFT = "its parameters leave no token that has a logit"


class Reports:
    """What a call reports of every row, because one of its rows asked for it."""

    def __init__(self, places: Sequence[Place]) -> None:
        params = [place.params for place in places]
        self.logprobs = any(each.logprobs is not None for each in params)
        self.kept = any(each.kept is not None for each in params)
        self.arguments: dict[str, Any] = {}
        if self.logprobs:
            top = {"top_n": max(each.logprobs or 0 for each in params), "top_of": places[0].call[1]}
            self.arguments |= {"logprob": True, "raw_logprob": True, "rank": True, **top}
        if self.kept:
            self.arguments |= {"kept_count": True, "max_kept": max(each.kept or 0 for each in params)}
        if any(each.mirostat for each in params):
            self.arguments["raw_logprob"] = True
        # What a call that verifies drafts reports itself, and what another one has to.
        self.of_verified = {"logprob": True, "raw_logprob": True} if self.logprobs else {}
        self.named = [
            *(("top_ids", "top_logprobs") if self.logprobs else ()),
            *(("kept_count", "kept_ids") if self.kept else ()),
        ]

    def logprobs_of(self, places: Sequence[Place], tokens: list[int | None], result: Any) -> list[TokenLogprob | None]:
        """One for each row that asked for it."""
        if not self.logprobs:
            return [None] * len(tokens)
        logprob, raw, rank = result.logprob.tolist(), result.raw_logprob.tolist(), result.rank.tolist()
        has_top = result.top_ids is not None
        ids, values = (result.top_ids.tolist(), result.top_logprobs.tolist()) if has_top else ([], [])

        logprobs: list[TokenLogprob | None] = []
        for row, (token, place) in enumerate(zip(tokens, places, strict=True)):
            count = place.params.logprobs
            if token is None or count is None:
                logprobs.append(None)
                continue
            pairs = zip(ids[row][:count], values[row][:count], strict=True) if count else ()
            top = tuple((i, value) for i, value in pairs if i >= 0)
            logprobs.append(TokenLogprob(token, logprob[row], raw[row], rank[row], top))
        return logprobs

    def kept_of(self, places: Sequence[Place], tokens: list[int | None], result: Any) -> list[KeptTokens | None]:
        """One for each row that asked for it."""
        if not self.kept:
            return [None] * len(tokens)
        counts = result.kept_count.tolist()
        ids = result.kept_ids.tolist() if result.kept_ids is not None else [[]] * len(counts)
        kept: list[KeptTokens | None] = []
        for row, (token, place) in enumerate(zip(tokens, places, strict=True)):
            wanted = place.params.kept
            if token is None or wanted is None:
                kept.append(None)
            else:
                kept.append(KeptTokens(counts[row], tuple(ids[row][: min(wanted, counts[row])])))
        return kept


def explained(
    logits: Tensor,
    arguments: dict[str, Any],
    positions: Sequence[int],
    tokens: list[int | None],
    leading: int,
    vocabulary: Vocabulary,
) -> list[Step | None]:
    """How each row was drawn, with so many of its leading candidates."""
    before = ops.softmax(logits)
    after = ops.filter_probs(logits, **arguments)
    kept = ops.filter_logits(logits, **arguments) > -torch.inf

    steps: list[Step | None] = []
    for row, (position, token) in enumerate(zip(positions, tokens, strict=True)):
        if token is None:
            steps.append(None)
            continue
        shown = before[row].topk(min(leading, logits.shape[1])).indices.tolist()
        candidates = tuple(
            Candidate(
                token=vocabulary.tokenizer.token_text(i),
                id=i,
                probability=float(before[row, i]),
                filtered_probability=float(after[row, i]),
                kept=bool(kept[row, i]),
                drawn=i == token,
            )
            for i in (shown if token in shown else [*shown, token])
        )
        rest = max(0.0, 1.0 - sum(candidate.probability for candidate in candidates))
        steps.append(Step(position, int(kept[row].sum()), candidates, rest))
    return steps


def problem(logits: Tensor) -> str:
    """Why a row has no candidate."""
    if bool((logits > -torch.inf).any()):
        return NOTHING_LEFT
    return "its logits are all NaN or -inf"
