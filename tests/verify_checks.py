"""What speculative verification owes on any backend: sequences that were drafted and verified step by step follow the
target's own distribution, jointly, and every rule does what it says.

The "models" are tables: the logits of the next token after each token, so that the distribution of whole sequences is
known exactly. Bugs planted into the kernels are judged by the same checks.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from certificates import arguments_of
from checks import assert_distribution
from torch import Tensor

import warpdraw
from warpdraw.ops.filters import kept_tokens

V, LENGTH = 6, 5
START = V  # what stands before a sequence
FAR = 10**9  # between the seeds of what must be independent
ODD = 0x9E3779B97F4A7C15  # between the seeds of one request's drafts, from step to step

FILTERS = {"temperature": 0.8, "top_k": 5, "top_p": 0.95, "min_p": 0.01}
PENALTIES = {"frequency_penalty": 0.7, "repetition_penalty": 1.3, "temperature": 1.1, "top_k": 5}
DRAFTED = {"temperature": 1.2, "top_k": 5, "top_p": 0.98}
CHAIN = (0, 1, 2)  # the node that each draft follows
TREE = (0, 0, 1, 1, 2, 3)


def _table(seed: int, near: Tensor | None = None) -> Tensor:
    noise = torch.randn(V + 1, V, generator=torch.Generator().manual_seed(seed))
    return 1.5 * noise if near is None else near + 0.8 * noise


TARGET = _table(1)
DRAFT = _table(2, TARGET)


@dataclass(frozen=True)
class Game:
    """How sequences are drafted and verified: the rule, the shape of the drafts, how the target and drafts filter."""

    method: str
    parents: tuple[int, ...] = CHAIN
    siblings: str = "independent"
    params: dict[str, Any] = field(default_factory=lambda: FILTERS)
    drafted: dict[str, Any] = field(default_factory=lambda: DRAFTED)
    counts_steps: bool = True
    draft: Tensor = field(default_factory=lambda: DRAFT)  # the table that drafts are drawn from
    spread: int = 1  # between the ids of neighbouring tokens, so that they lie in several tiles
    verify: Callable[..., Any] = warpdraw.verify  # or one with a bug


GAMES = {
    "coupled": Game("coupled"),
    "coupled, tree": Game("coupled", TREE),
    "coupled, penalties": Game("coupled", params=PENALTIES),
    "coupled, different drafts": Game("coupled", TREE, "distinct"),
    "rejection": Game("rejection"),
    "rejection, no filters": Game("rejection", params={}, drafted={}),
    "rejection, penalties": Game("rejection", params=PENALTIES),
    "rejection, tree": Game("rejection", TREE),
    "rejection, tiles": Game("rejection", spread=43),
    "rejection, different drafts": Game("rejection", TREE, "distinct"),
    "point mass": Game("point_mass"),
    "point mass, tree": Game("point_mass", TREE, "distinct", PENALTIES),
    "block": Game("block"),
    "block, penalties": Game("block", params=PENALTIES),
    "block, tiles": Game("block", spread=43),
}


# --------------------------------------------------------------------------------------------------------------------
# The target's own distribution.


def next_probabilities(prefixes: Tensor, params: dict[str, Any]) -> Tensor:
    """The target's distribution after each prefix [N, T], in float64, [N, V]."""
    last = prefixes[:, -1] if prefixes.shape[1] else torch.full((len(prefixes),), START)
    inputs: dict[str, Any] = {"logits": TARGET[last], **params}
    if prefixes.shape[1]:
        inputs["history"] = prefixes.int()
    return kept_tokens(arguments_of(inputs)).log_weights.softmax(-1)


@functools.cache
def _joint(params: tuple[tuple[str, Any], ...]) -> Tensor:
    joint = torch.ones(1, dtype=torch.float64)
    prefixes = torch.empty(1, 0, dtype=torch.int64)
    for _ in range(LENGTH):
        joint = (joint[:, None] * next_probabilities(prefixes, dict(params))).flatten()
        each = torch.arange(V).repeat(len(prefixes))
        prefixes = torch.cat([prefixes.repeat_interleave(V, 0), each[:, None]], 1)
    return joint


def joint_distribution(params: dict[str, Any]) -> Tensor:
    """The probability of every sequence of LENGTH tokens, in the order of their digits."""
    return _joint(tuple(params.items()))


# --------------------------------------------------------------------------------------------------------------------
# Drafting and verifying.


def spread_out(logits: Tensor, spread: int) -> Tensor:
    """The same tokens at every `spread`-th id."""
    if spread == 1:
        return logits
    wide = logits.new_full((*logits.shape[:-1], V * spread), -torch.inf)
    wide[..., ::spread] = logits
    return wide


def links(parents: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """first_child and next_sibling of one request, [1, K+1] each."""
    K = len(parents)
    first, sibling = torch.full((1, K + 1), -1, dtype=torch.int32), torch.full((1, K + 1), -1, dtype=torch.int32)
    for node in range(K, 0, -1):
        sibling[0, node], first[0, parents[node - 1]] = first[0, parents[node - 1]].item(), node
    return first, sibling


def _drafts(game: Game, last: Tensor, seed: Tensor, position: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Tokens of the drafts [N, K], and the tokens of all nodes [N, K+1]."""
    nodes = [last]
    tried: dict[int, list[Tensor]] = {}
    depth = {0: 0}
    for node, parent in enumerate(game.parents, 1):
        depth[node] = depth[parent] + 1
        logits = game.draft[nodes[parent]]
        before = tried.setdefault(parent, [])
        if game.siblings == "distinct":
            for token in before:
                logits = logits.scatter(1, token[:, None], -torch.inf)
        if game.method == "point_mass":
            token = logits.argmax(-1)
        else:
            noise = seed + FAR * len(before)
            if game.method == "block" and game.counts_steps:
                noise = noise + (((step + 1) * ODD + 2**63) % 2**64 - 2**63)
            given = dict(game.drafted)
            if game.method == "coupled":
                given = {name: value for name, value in game.params.items() if "penalty" not in name}
            rows = spread_out(logits, game.spread)
            token = warpdraw.sample(rows, seed=noise, position=position + depth[parent], **given).tokens // game.spread
        before.append(token)
        nodes.append(token)
    together = torch.stack(nodes, 1)
    return together[:, 1:], together


def play(game: Game, count: int, first_seed: int = 0) -> tuple[Tensor, list[int], int]:
    """Sequences [count, LENGTH]; how often each number of drafts was accepted; how often any were verified."""
    K = len(game.parents)
    tokens = torch.full((count, LENGTH + K + 1), -1)
    length = torch.zeros(count, dtype=torch.int64)
    seeds = first_seed + torch.arange(count)
    accepted, verified, step = [0] * (K + 1), 0, 0
    tree = dict(zip(("first_child", "next_sibling"), links(game.parents), strict=True))
    while len(active := (length < LENGTH).nonzero().flatten()):
        at, seed = length[active], seeds[active]
        last = torch.where(at > 0, tokens[active, (at - 1).clamp(min=0)], START)
        drafts, nodes = _drafts(game, last, seed, at, step)
        given: dict[str, Any] = dict(game.params)
        if game.method in ("rejection", "block"):
            given["draft_logits"] = spread_out(game.draft[nodes[:, :K]], game.spread)
            given |= {f"draft_{name}": value for name, value in game.drafted.items()}
        if game.parents != CHAIN:
            given |= {name: link.expand(len(active), -1) for name, link in tree.items()}
            given["siblings"] = game.siblings
        if any("penalty" in name for name in game.params):
            given |= {"history": tokens[active].int().clamp(min=0), "history_length": at.int()}
        result = game.verify(
            drafts * game.spread, spread_out(TARGET[nodes], game.spread), method=game.method, seed=seed, position=at,
            step=step if game.counts_steps else 0, **given,
        )  # fmt: skip
        assert result.valid.all()
        places = torch.arange(K + 1)
        new = places <= result.accepted[:, None]
        assert ((result.tokens >= 0) == new).all(), "accepted counts the tokens before the last"
        tokens[active[:, None].expand_as(new)[new], (at[:, None] + places)[new]] = result.tokens[new] // game.spread
        length[active] += result.accepted + 1
        for number, times in enumerate(torch.bincount(result.accepted, minlength=K + 1).tolist()):
            accepted[number] += times
        verified, step = verified + len(active), step + 1
    return tokens[:, :LENGTH], accepted, verified


def check_game(game: Game, count: int, first_seed: int = 0) -> None:
    """Whole sequences against the target's own joint distribution, and that drafts are accepted at all."""
    sequences, accepted, _ = play(game, count, first_seed)
    digits = (sequences * V ** torch.arange(LENGTH - 1, -1, -1)).sum(-1)
    counts = torch.bincount(digits, minlength=V**LENGTH)
    expected = joint_distribution(game.params)
    outside = counts.masked_fill(expected > 0, 0).nonzero().flatten().tolist()
    assert not outside, f"sequences that the target never draws: {outside[:5]}"
    assert_distribution(counts, expected, f"{count} sequences, {game.method}")
    # Which tokens stand at each place shows small errors better than the joint distribution of all.
    for place in range(LENGTH):
        alone = torch.bincount(sequences[:, place], minlength=V)
        shape = [V**place, V, V ** (LENGTH - 1 - place)]
        assert_distribution(alone, expected.view(shape).sum((0, 2)), f"place {place}, {game.method}")
    assert all(times > 0 for times in accepted[: 2 if game.parents == TREE else len(CHAIN) + 1]), (
        f"accepted: {accepted}"
    )


# --------------------------------------------------------------------------------------------------------------------
# Rules one by one.

METHODS = ("coupled", "rejection", "point_mass", "block", "greedy")


def random_call(B: int, K: int, vocab: int, seed: int, spread: float = 0.7) -> dict[str, Any]:
    """Drafts by `sample` from logits near the target's, under the same seed, of a chain."""
    generator = torch.Generator().manual_seed(seed)
    target = 2 * torch.randn(B, K + 1, vocab, generator=generator)
    draft = target[:, :K] + spread * torch.randn(B, K, vocab, generator=generator)
    call = {"target_logits": target, "draft_logits": draft}
    call |= {"seed": torch.arange(B) + 1000 * seed, "position": torch.arange(B) * 100}
    return {"draft_tokens": _drawn(call), **call}


def _drawn(call: dict[str, Any], far: int = 0, **params: Any) -> Tensor:
    """Drafts drawn from the draft rows of a call, under its seeds or others."""
    rows, seed, at = call["draft_logits"], call["seed"] + far, call["position"]
    each = [warpdraw.sample(rows[:, i], seed=seed, position=at + i, **params).tokens for i in range(rows.shape[1])]
    return torch.stack(each, 1)


def check_coupled_is_sample() -> None:
    """The output of the coupled rule is what `sample` draws, whatever is drafted; so is that of a point mass."""
    params = {"temperature": 0.9, "top_k": 20, "top_p": 0.9, "min_p": 0.01}
    call = random_call(200, 4, 130, seed=1)
    for method, drafts in itertools.product(("coupled", "point_mass"), ("drawn", "best", "absurd")):
        given = dict(call)
        if drafts != "drawn":
            given["draft_tokens"] = (
                call["target_logits"][:, :4].argmax(-1) if drafts == "best" else torch.zeros(200, 4).long()
            )
        result = warpdraw.verify(**given, method=method, **params, logprob=True, raw_logprob=True)
        for place in range(5):
            rows = result.tokens[:, place] >= 0
            if not rows.any():
                continue
            alone = warpdraw.sample(
                call["target_logits"][rows, place], seed=call["seed"][rows], position=call["position"][rows] + place,
                **params, logprob=True, raw_logprob=True,
            )  # fmt: skip
            for got, want in (
                (result.tokens, alone.tokens), (result.logprob, alone.logprob), (result.raw_logprob, alone.raw_logprob)
            ):  # fmt: skip
                assert torch.equal(got[rows, place], want), f"{method}, {drafts} drafts, place {place}"
        same = torch.cat([given["draft_tokens"] == result.tokens[:, :4], torch.zeros(200, 1, dtype=torch.bool)], 1)
        assert torch.equal(result.accepted, same.int().cumprod(-1).sum(-1).int())
        assert torch.equal(result.bonus, result.accepted == 4)


def check_greedy() -> None:
    """Ties go to the lowest id, temperature does not matter, and drafts are accepted while they are first."""
    target = torch.randint(0, 4, (300, 4, 70), generator=torch.Generator().manual_seed(3)).float()
    best = target.argmax(-1)
    drafts = torch.where(torch.rand(300, 3, generator=torch.Generator().manual_seed(4)) < 0.8, best[:, :3], 69)
    want = (drafts == best[:, :3]).int().cumprod(-1).sum(-1)
    for temperature in (0.0, 1.0, 30.0):
        result = warpdraw.verify(drafts, target, method="greedy", temperature=temperature, seed=5)
        assert torch.equal(result.accepted, want.int())
        place = torch.arange(4)
        assert torch.equal(result.tokens, best.masked_fill(place > want[:, None], -1))


def check_impossible_drafts() -> None:
    """What the target never draws is never accepted, nor what the draft never draws; and nothing of it comes out."""
    B = 3000
    target, draft = torch.zeros(B, 2, 40), torch.zeros(B, 1, 40)
    target[:, :, 7] = -torch.inf
    for method in METHODS:
        result = warpdraw.verify(torch.full((B, 1), 7), target, draft, method, seed=torch.arange(B))
        assert not result.accepted.any(), method
        assert result.valid.all()
        assert not (result.tokens == 7).any(), method
    draft[:, :, 3] = -torch.inf
    for method in ("rejection", "block"):
        result = warpdraw.verify(torch.full((B, 1), 3), target, draft, method, seed=torch.arange(B))
        assert not result.accepted.any(), f"{method}: a draft that its own distribution never draws"


def check_certain_drafts() -> None:
    """Where draft and target are the same everything is accepted; the bonus token obeys the filters too."""
    call = random_call(2000, 3, 100, seed=5, spread=0.0)
    for method in ("coupled", "rejection", "block"):
        for params in ({}, {"temperature": 0.7, "top_k": 3}):
            given = dict(call)
            given |= {"draft_tokens": _drawn(call, **params), **params}
            given |= {f"draft_{name}": value for name, value in params.items()}
            result = warpdraw.verify(**given, method=method)
            assert result.bonus.all(), f"{method}, {params}: {int((~result.bonus).sum())} of 2000 were rejected"
            if params:
                kept = warpdraw.filter_logits(call["target_logits"][:, 3], **params) > -torch.inf
                assert kept.gather(-1, result.tokens[:, 3:]).all(), f"{method}: the bonus token was filtered out"


def check_degenerate_residuals() -> None:
    """Where rounding leaves nothing of the residual, the token comes from the target, and never from its outside."""
    B = 500
    target, draft = torch.full((B, 2, 9), -torch.inf), torch.full((B, 1, 9), -torch.inf)
    target[:, :, 4], draft[:, :, 4], draft[:, :, 2] = 0.0, 0.0, -18.5  # q = 1e-8 is nothing beside 1 in fp32
    for method in ("rejection", "block"):
        result = warpdraw.verify(torch.full((B, 1), 2), target, draft, method, seed=torch.arange(B))
        assert (result.tokens[:, 0] == 4).all(), method
        assert not result.accepted.any(), method


def check_padding() -> None:
    """-1 is no draft: nothing after it counts, and what comes out is what fewer drafts give."""
    call = random_call(400, 4, 65, seed=6)
    for method in METHODS:
        whole = warpdraw.verify(**call, method=method, nodes=True)
        for place in range(4):
            with_hole = call["draft_tokens"].clone()
            with_hole[:, place] = -1
            padded = warpdraw.verify(**{**call, "draft_tokens": with_hole}, method=method, nodes=True)
            assert padded.valid.all()
            assert (padded.accepted <= place).all()
            assert (padded.bonus == (padded.accepted == place)).all(), method
            if place:
                drafts, rows = call["draft_tokens"], call["target_logits"]
                fewer = {**call, "draft_tokens": drafts[:, :place].contiguous(), "target_logits": rows[:, : place + 1]}
                fewer["draft_logits"] = call["draft_logits"][:, :place]
                shorter = warpdraw.verify(**fewer, method=method)
                assert torch.equal(padded.tokens[:, : place + 1], shorter.tokens), method
            if method != "block":
                stop = whole.accepted < place
                assert torch.equal(padded.tokens[stop], whole.tokens[stop]), method


def check_invalid_requests() -> None:
    """A wrong entry spoils its request alone."""
    call = random_call(12, 3, 50, seed=7)
    first, sibling = (link.expand(12, -1).clone() for link in links(CHAIN))
    good = warpdraw.verify(**call, method="rejection", first_child=first, next_sibling=sibling)
    assert good.valid.all()
    assert torch.equal(good.tokens, warpdraw.verify(**call, method="rejection").tokens)
    method = torch.full((12,), 1, dtype=torch.int32)
    step = torch.zeros(12, dtype=torch.int64)
    drafts = call["draft_tokens"].clone()
    drafts[0, 1], drafts[1, 2] = 50, -2
    first[2, 1], first[3, 2], sibling[4, 1], sibling[5, 0] = 1, 0, 2, 1  # a loop, a way back, two ways to 2, a root's
    first[5, 0] = -1
    method[6], method[7], step[8] = 5, 3, 2**24  # no rule; block with a tree
    given = {
        **call,
        "draft_tokens": drafts,
        "method": method,
        "first_child": first,
        "next_sibling": sibling,
        "step": step,
    }
    draft_temperature = torch.ones(12)
    draft_temperature[9] = torch.nan
    found = warpdraw.verify(**given, draft_temperature=draft_temperature)
    assert found.valid.tolist() == [False] * 10 + [True] * 2
    assert (found.tokens[:10] == -1).all()
    assert not found.accepted[:10].any()
    assert torch.equal(found.tokens[10:], good.tokens[10:])


def check_drafts_join_the_history() -> None:
    """Penalties of each row see the drafts before it: the coupled rule gives what `sample` gives step by step."""
    B, K, vocab = 60, 3, 40
    call = random_call(B, K, vocab, seed=8)
    history = torch.randint(0, vocab, (B, 12), generator=torch.Generator().manual_seed(9), dtype=torch.int32)
    length = torch.arange(B, dtype=torch.int32) % 13
    params = {
        "repetition_penalty": 1.6, "frequency_penalty": 0.8, "presence_penalty": 0.3, "dry_multiplier": 0.9,
        "dry_allowed_length": 1, "no_repeat_ngram": 3, "prompt_length": (length // 2), "min_tokens": 6,
        "stop_ids": torch.arange(20, dtype=torch.int32).expand(B, -1), "temperature": 0.7,
    }  # fmt: skip
    same = {"seed": call["seed"], **params}
    tokens, now, lengths = [], torch.cat([history, torch.zeros(B, K + 1, dtype=torch.int32)], 1), length.long()
    for place in range(K + 1):
        drawn = warpdraw.sample(
            call["target_logits"][:, place], position=call["position"] + place,
            history=now, history_length=lengths.int(), **same,
        ).tokens  # fmt: skip
        tokens.append(drawn)
        now = now.scatter(1, lengths[:, None], drawn.int()[:, None])
        lengths = lengths + 1
    want = torch.stack(tokens, 1)
    given = {**call, "draft_tokens": want[:, :K].contiguous(), "history": history, "history_length": length, **params}
    result = warpdraw.verify(**given)
    assert torch.equal(result.tokens, want)
    assert result.bonus.all()


def check_rows_of_masks() -> None:
    """Every row has a mask of its own, in both shapes, and requests may have different numbers of rows."""
    B, K, vocab = 20, 3, 70
    call = random_call(B, K, vocab, seed=10)
    generator = torch.Generator().manual_seed(11)
    words = torch.randint(-(2**31), 2**31, (B, K + 1, 3), generator=generator).int()
    counts = 1 + torch.arange(B) % (K + 1)
    keep = torch.arange(K + 1) < counts[:, None]
    drafts = call["draft_tokens"].masked_fill(~keep[:, 1:], -1)
    allowed = ((words[:, :, :, None] >> torch.arange(32)) & 1).flatten(2)[:, :, :vocab].bool()
    masked = call["target_logits"].masked_fill(~allowed, -torch.inf)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int32), counts.cumsum(0).int()])
    for method in METHODS:
        given = {**call, "draft_tokens": drafts, "method": method}
        want = warpdraw.verify(**{**given, "target_logits": masked})
        together = warpdraw.verify(**given, bitmask=words)
        ragged = {**given, "target_logits": call["target_logits"][keep]}
        apart = warpdraw.verify(**ragged, offsets=offsets, bitmask=words[keep])
        for found in (together, apart):
            assert torch.equal(found.tokens, want.tokens), method
            assert torch.equal(found.accepted, want.accepted), method


def check_block_accepts_more() -> None:
    """Block verification accepts at least as many drafts as rejection, and the same where there is one."""
    for K, more in ((1, False), (4, True)):
        call = random_call(20_000, K, 12, seed=12 + K, spread=1.0)
        call["target_logits"], call["draft_logits"] = call["target_logits"] / 2, call["draft_logits"] / 2
        call["draft_tokens"] = _drawn(call, FAR)
        block, chain = (warpdraw.verify(**call, method=method).accepted.float() for method in ("block", "rejection"))
        if more:
            assert block.mean() > chain.mean() + 0.02, f"{block.mean():.3f} against {chain.mean():.3f}"
        else:
            assert torch.equal(block, chain)


# Positions under seed 1 at which the u of acceptance is within 2^-25 of 1, or of 0.
NEARLY_1 = (17787757, 27879679, 84720884, 124804677, 130040652)
NEARLY_0 = (31942119, 119612390, 158015557)
# Others, and logits -z at which the second of two tokens has exactly the probability u.
EQUAL = ((771, 6.626059532165527), (7276, 6.909678936004639), (8561, 6.635117053985596), (25614, 7.346035003662109))


def check_rare_uniforms() -> None:
    """A uniform number is never 0 or 1, and a draft is accepted below its probability, not at it."""

    def accepts(position: int, target: list[float], **params: Any) -> bool:
        """Whether the second of two tokens is accepted as a draft."""
        rows, drafted = torch.tensor([[target, target]]), torch.tensor([[[0.0, 1.0]]])
        draft = torch.ones(1, 1, dtype=torch.int64)
        result = warpdraw.verify(draft, rows, drafted, "rejection", seed=1, position=position, **params)
        return bool(result.accepted.item())

    for position in NEARLY_1:
        assert accepts(position, [0.0, 1.0]), f"position {position}: p = q was rejected"
    for position in NEARLY_0:
        assert not accepts(position, [0.0, -torch.inf]), f"position {position}: p = 0 was accepted"
    certain = {"draft_temperature": 0.0}
    for position, z in EQUAL:
        likelier = torch.nextafter(torch.tensor(-z), torch.tensor(0.0)).item()
        assert not accepts(position, [0.0, -z], **certain), f"position {position}: p = u q was accepted"
        assert accepts(position, [0.0, likelier], **certain), f"position {position}: not where it turns"


def check_noise_is_not_shared() -> None:
    """Whatever draft was rejected, what comes instead follows the same residual, under the draft's own seed too."""
    N = 50_000
    left = (TARGET[0].double().softmax(-1) - DRAFT[0].double().softmax(-1)).clamp(min=0.0)
    for spread in (1, 43):
        target, draft = (spread_out(rows[:1], spread).expand(N, -1) for rows in (TARGET, DRAFT))
        drafts = warpdraw.sample(draft, seed=torch.arange(N)).tokens[:, None]
        result = warpdraw.verify(
            drafts, target[:, None].expand(-1, 2, -1), draft[:, None], "rejection", seed=torch.arange(N)
        )
        assert 0.05 < (result.accepted == 0).double().mean() < 0.95
        for token in drafts.unique().tolist():
            rows = (result.accepted == 0) & (drafts[:, 0] == token)
            if rows.sum() > 500:
                counts = torch.bincount(result.tokens[rows, 0] // spread, minlength=V)
                assert_distribution(counts, left / left.sum(), f"after draft {token}, spread {spread}")


def check_siblings_decide_independently() -> None:
    """The second draft of a node passes as often as what the first one left says, once the first is rejected."""
    N = 10_000
    p, q = torch.tensor([0.6, 0.28, 0.12, 1e-9]), torch.full((4,), 0.25)
    left = (p - q).clamp(min=0.0)
    expected = (left / left.sum() / q)[1].item()
    tree = dict(zip(("first_child", "next_sibling"), (x.expand(N, -1) for x in links((0, 0))), strict=True))
    result = warpdraw.verify(
        torch.tensor([[2, 1]]).expand(N, -1), p.log().expand(N, 3, -1), q.log().expand(N, 2, -1), "rejection",
        seed=torch.arange(N), nodes=True, **tree,
    )  # fmt: skip
    second = result.nodes[:, 1]
    share = (second == 2).sum().item() / (second != 1).sum().item()
    assert abs(share - expected) < 0.04, f"{share:.3f}, expected {expected:.3f}"


def check_many_tiles(other: str = "scalar") -> None:
    """The bits of another backend where what is left lies in many tiles of like mass."""
    for vocab, dtype in ((700, torch.bfloat16), (3001, torch.float32)):
        call = random_call(24, 2, vocab, seed=vocab, spread=2.0)
        call["target_logits"], call["draft_logits"] = call["target_logits"].to(dtype) / 4, call["draft_logits"] / 4
        for method in ("rejection", "block"):
            found = warpdraw.verify(**call, method=method).tokens
            with warpdraw.use(other):
                assert torch.equal(found, warpdraw.verify(**call, method=method).tokens), f"{method}, V = {vocab}"


def check_poor_drafts() -> None:
    """The first two tokens jointly, from drafts unlike the target: several of one node, and blocks."""
    poor = _table(3)
    expected = joint_distribution({}).view(V * V, -1).sum(-1)
    for method, parents, siblings in (
        ("rejection", (0, 0, 0), "independent"),
        ("rejection", (0, 0, 0), "distinct"),
        ("block", CHAIN, "independent"),
    ):
        sequences, _, _ = play(Game(method, parents, siblings, {}, {}, draft=poor), 30_000)
        counts = torch.bincount(sequences[:, 0] * V + sequences[:, 1], minlength=V * V)
        assert_distribution(counts, expected, f"{method}, {siblings} drafts {parents}")


def check_steps_draw_anew() -> None:
    """Each step decides about the same drafts independently."""
    N = 20_000
    target, draft = TARGET[:1].expand(N, 2, -1), DRAFT[:1].expand(N, 1, -1)
    drafts = torch.full((N, 1), int((TARGET[0] - DRAFT[0]).argmin()))  # the least likely to be accepted
    for method in ("rejection", "block"):
        first, second = (
            warpdraw.verify(drafts, target, draft, method, seed=torch.arange(N), step=step).accepted.long()
            for step in (0, 1)
        )
        share = first.double().mean()
        alone = torch.stack([1 - share, share])
        counts = torch.bincount(2 * first + second, minlength=4)
        assert_distribution(counts, torch.outer(alone, alone).flatten(), f"two steps, {method}")


RULES = (
    check_steps_draw_anew,
    check_siblings_decide_independently,
    check_rare_uniforms,
    check_coupled_is_sample,
    check_greedy,
    check_impossible_drafts,
    check_certain_drafts,
    check_degenerate_residuals,
    check_padding,
    check_invalid_requests,
    check_drafts_join_the_history,
    check_rows_of_masks,
    check_block_accepts_more,
    check_noise_is_not_shared,
    check_poor_drafts,
)


def check_rules() -> None:
    for rule in RULES:
        try:
            rule()
        except AssertionError as error:
            raise AssertionError(f"{rule.__name__}: {error}") from error
