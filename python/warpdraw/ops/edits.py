"""Steps 1 to 4 of docs/sampling.md on one row after the other: candidates, bias, penalties from the history, bans."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from .arguments import Arguments


def edited_logits(arguments: Arguments) -> Tensor:
    """The logits as fp32 after every edit, each operation rounded once; -inf for tokens that are no candidates."""
    x = arguments.logits.float()
    x = torch.where(x.isnan(), -torch.inf, x)
    for row in (arguments.valid() & _edits_anything(arguments)).nonzero().flatten().tolist():
        one = arguments.row(row)
        edited = _with_penalties(_with_bias(x[row], one), one)
        lost = edited.isnan() | ~_candidates(one) | _banned(one)
        x[row] = edited.masked_fill(lost, -torch.inf)
    return x


def _edits_anything(arguments: Arguments) -> Tensor:
    """The rows that the steps may change, [B]."""
    lists = (
        arguments.bitmask,
        arguments.allowed_ids,
        arguments.banned_ids,
        arguments.stop_ids,
        arguments.bias_ids,
    )
    given = any(ids is not None for ids in lists)
    return (arguments.vocab_size != 0) | arguments.reads_history() | given


def _ids(values: Tensor | None) -> list[int]:
    """A padded list of one row [1, N] without its padding."""
    return [] if values is None else [token for token in values[0].tolist() if token != -1]


def _mask_of(ids: list[int] | set[int], one: Arguments) -> Tensor:
    mask = torch.zeros(one.logits.shape[1], dtype=torch.bool, device=one.logits.device)
    mask[list(ids)] = True
    return mask


def _candidates(one: Arguments) -> Tensor:
    """The tokens that vocab_size, bitmask and allowed_ids leave, [V]."""
    V = one.logits.shape[1]
    token = torch.arange(V, device=one.logits.device)
    allowed = token < (one.vocab_size if one.vocab_size > 0 else V)
    if one.bitmask is not None:
        bits = (one.bitmask[0, :, None] >> torch.arange(32, device=token.device)) & 1
        covered = torch.zeros_like(allowed)
        covered[: bits.numel()] = bits.flatten()[:V].bool()
        allowed &= covered
    if only := _ids(one.allowed_ids):
        allowed &= _mask_of(only, one)
    return allowed


def _with_bias(x: Tensor, one: Arguments) -> Tensor:
    if one.bias_ids is not None and one.bias is not None:
        x = x.clone()
        for token, bias in zip(one.bias_ids[0].tolist(), one.bias[0], strict=True):
            if token != -1:
                x[token] += bias
    return x


def history_of(one: Arguments) -> tuple[list[int], int]:
    """The tokens of a row's history that count, and where its output begins."""
    tokens = [] if one.history is None else one.history[0, : int(one.lengths())].tolist()
    return tokens, min(int(one.prompt_length), len(tokens))


def _with_penalties(x: Tensor, one: Arguments) -> Tensor:
    """Repetition, frequency, presence, DRY: each once for every token that it concerns."""
    if not one.reads_history():
        return x
    x = x.clone()
    history, prompt = history_of(one)
    seen = _mask_of(set(history), one)
    x = torch.where(
        seen,
        torch.where(x > 0, x / one.repetition_penalty, x * one.repetition_penalty),
        x,
    )
    for token, count in Counter(history[prompt:]).items():
        x[token] -= one.frequency_penalty[0] * count
        x[token] -= one.presence_penalty[0]
    if one.dry_multiplier > 0:
        allowed = int(one.dry_allowed_length)
        for token, length in copied_lengths(history, _ids(one.dry_breakers)).items():
            if length >= allowed:
                x[token] -= _dry_penalty(one.dry_multiplier[0], one.dry_base[0], length - allowed)
    return x


def _dry_penalty(multiplier: Tensor, base: Tensor, exponent: int) -> Tensor:
    """multiplier * base ** exponent, product by product in fp32, and finite."""
    largest = torch.finfo(torch.float32).max
    power = torch.ones_like(base)
    for _ in range(exponent):
        if power >= largest or base == 1:
            break
        power = power * base
    return (multiplier * power.clamp(max=largest)).clamp(max=largest)


def copied_lengths(history: list[int], breakers: list[int]) -> dict[int, int]:
    """For each token that followed an earlier copy of the history's end: the length of the longest such copy."""
    longest: dict[int, int] = {}
    for after in range(1, len(history)):
        length = 0
        while length < after and history[after - 1 - length] == history[-1 - length] not in breakers:
            length += 1
        token = history[after]
        if length > 0 and token not in breakers:
            longest[token] = max(length, longest.get(token, 0))
    return longest


def _banned(one: Arguments) -> Tensor:
    """The tokens of no_repeat_ngram, banned_ids, and stop_ids while the output is short, [V]."""
    ids = set(_ids(one.banned_ids))
    history, prompt = history_of(one)
    output = len(history) - prompt
    if output < int(one.min_tokens):
        ids |= set(_ids(one.stop_ids))
    n = int(one.no_repeat_ngram)
    if n > 0:
        for start in range(len(history) - n + 1):
            if history[start : start + n - 1] == history[len(history) - n + 1 :]:
                ids.add(history[start + n - 1])
    return _mask_of(ids, one)
