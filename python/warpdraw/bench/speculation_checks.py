"""Whether a method verifies drafts by rejection: its tokens against what is possible, their law and the acceptance."""

from __future__ import annotations

import math
from dataclasses import asdict
from functools import lru_cache

import torch
from torch import Tensor

from .. import ops
from ..backends import use
from .peers import Job
from .peers.speculation import Verify
from .speculation_cases import Drafted
from .verify import NotVerified, check_drawn, check_law

# The law is tested on so many requests of two drafts each.
REQUESTS, DRAFTS, VOCAB = 3000, 2, 300
NOISE = 0.5


def check_verdicts(name: str, tokens: Tensor, accepted: Tensor, given: Drafted, job: Job) -> None:
    """The accepted drafts, one token that the target's filters keep, then -1."""
    requests, K = given.drawn.shape
    places = torch.arange(K + 1)
    shape = tokens.shape == (requests, K + 1) and bool(((accepted >= 0) & (accepted <= K)).all())
    if not shape:
        raise NotVerified(f"{name} does not give tokens {[requests, K + 1]} of 0 to {K} drafts")
    kept = places < accepted[:, None]
    right = torch.where(kept[:, :-1], tokens[:, :-1] == given.drawn, True).all()
    if not right or not ((tokens == -1) == (places > accepted[:, None])).all():
        raise NotVerified(f"{name} does not give the accepted drafts, a token, and -1 after it")
    after = accepted.long()[:, None]
    check_drawn(name, tokens.gather(1, after)[:, 0], given.target[torch.arange(requests), accepted.long()], job)


@lru_cache
def check_law_of_rejection(name: str, verify: Verify, job: Job, one_request: bool, device: torch.device) -> None:
    """Over many requests on the same rows: tokens fall by the target's distribution, and 1 - TV of the drafts pass.

    The acceptance must be right to six standard deviations.
    """
    generator = torch.Generator().manual_seed(2024)
    rows = 3 * torch.randn(DRAFTS + 1, VOCAB, generator=generator)
    drafted_from = rows[:-1] + NOISE * torch.randn(DRAFTS, VOCAB, generator=generator)
    with use("reference"):
        p, q = (ops.filter_probs(x, **asdict(job), order="hf").double() for x in (rows, drafted_from))
    drafts = torch.stack([torch.multinomial(each, REQUESTS, True, generator=generator) for each in q], 1)
    target, draft = (x.expand(REQUESTS, -1, -1) for x in (rows, drafted_from))
    size = 1 if one_request else REQUESTS
    made = []
    for start in range(0, REQUESTS, size):
        some = slice(start, start + size)
        made.append(verify(drafts[some].to(device), target[some].to(device), draft[some].to(device), job))
    tokens, accepted = (torch.cat(parts).cpu().long() for parts in zip(*made, strict=True))
    if ((tokens < -1) | (tokens >= VOCAB)).any():
        raise NotVerified(f"{name} gives tokens outside the vocabulary")
    tried = torch.ones(REQUESTS, dtype=torch.bool)
    for place in range(DRAFTS):
        _check_place(name, tokens[tried, place], p[place])
        passed, agree = accepted > place, torch.minimum(p[place], q[place]).sum().item()
        expected, deviation = agree * tried.sum().item(), math.sqrt(agree * (1 - agree) * tried.sum().item())
        if not abs(passed[tried].sum().item() - expected) <= 6 * deviation + 1:
            part = passed[tried].double().mean().item()
            raise NotVerified(f"{name} accepts {part:.3f} of the drafts at place {place}, not {agree:.3f}")
        tried = tried & passed
    _check_place(name, tokens[tried, DRAFTS], p[DRAFTS])


def _check_place(name: str, tokens: Tensor, p: Tensor) -> None:
    if (tokens < 0).any():
        raise NotVerified(f"{name} leaves out a token")
    check_law(name, tokens, p)
