"""The ways in which published implementations of speculative decoding lose exactness, each a test over whole sequences.

Sequences of five tokens are drafted and verified step by step; their joint distribution is compared with the target's
own. Bugs planted into the kernels (mutants.py) are judged by the same checks.
"""

import dataclasses

import pytest
import torch
import verify_checks
from conftest import BACKENDS, SIMULATED, runnable
from verify_checks import CHAIN, FAR, GAMES, TREE, check_game, play, random_call

import warpdraw

SEQUENCES = 500_000


@pytest.mark.parametrize("name", GAMES)
def test_sequences_follow_the_target(threads, name):
    """Half a million sequences, jointly, with filters, penalties, chains, trees and every rule."""
    threads(2)
    check_game(GAMES[name], SEQUENCES)


@pytest.mark.parametrize("name", GAMES)
@pytest.mark.parametrize("backend", ["scalar", "portable", "avx2", "avx512", *SIMULATED, "triton"])
def test_every_backend_makes_the_same_sequences(backend, name):
    """The oracle's, token for token over several steps, so that what holds of one holds of all."""
    if BACKENDS[runnable(backend)].device != "cpu":
        pytest.skip(f"{backend}: these tensors are on the CPU; tests/test_gpu.py compares with it")
    count = {"triton": 3, "cuda_host_cluster": 12, "cuda_host_split": 12}.get(backend, 5000)
    with warpdraw.use("scalar"):
        want = play(GAMES[name], count)
    with warpdraw.use(backend):
        found = play(GAMES[name], count)
    assert torch.equal(found[0], want[0])
    assert found[1:] == want[1:]


def changed(name, **changes):
    return dataclasses.replace(GAMES[name], **changes)


def is_refused(game, count=200_000):
    with pytest.raises(AssertionError, match=r"chi-square|never draws"):
        check_game(game, count)


# --------------------------------------------------------------------------------------------------------------------
# The classes of bugs.


def test_1_noise_is_not_shared_by_the_decisions_of_a_step(native):
    """Draft, acceptance and residual draw from streams of their own, also where the draft has the request's seed."""
    verify_checks.check_noise_is_not_shared()


def test_2_block_verification_draws_anew_in_every_step():
    """Without the step in the counter, and without other noise for the drafts of each step, sequences are wrong."""
    is_refused(changed("block", counts_steps=False), SEQUENCES)


def test_3_uniform_numbers_are_never_0_or_1(native):
    """At the rarest ones a certain draft is accepted, and equality rejects."""
    verify_checks.check_rare_uniforms()


def test_4_a_wrong_draft_distribution_shows():
    def as_if_drawn_at_temperature_1(*args, draft_temperature, **kwargs):
        return warpdraw.verify(*args, **kwargs)

    def as_if_unfiltered(*args, draft_top_k, draft_top_p, **kwargs):
        return warpdraw.verify(*args, **kwargs)

    for bug in (as_if_drawn_at_temperature_1, as_if_unfiltered):
        is_refused(changed("rejection", verify=bug, drafted={"temperature": 1.6, "top_k": 3, "top_p": 0.9}))


@pytest.mark.parametrize("missing", ["top_k", "temperature", "frequency_penalty"])
def test_5_every_row_has_every_processor(missing):
    """The first row with all of them, the others without one: it shows."""

    def bug(draft_tokens, target_logits, **kwargs):
        first = warpdraw.verify(draft_tokens[:, :1], target_logits[:, :2], **_narrow(kwargs))
        rest = warpdraw.verify(draft_tokens, target_logits, **{k: v for k, v in kwargs.items() if k != missing})
        stop = first.accepted == 0
        tokens = torch.where(stop[:, None], torch.full_like(rest.tokens, -1), rest.tokens)
        tokens[:, 0] = first.tokens[:, 0]
        both = ~stop & (rest.accepted == 0)
        tokens[both, 1:] = -1
        return rest._replace(tokens=tokens, accepted=((tokens >= 0).sum(-1) - 1).int())

    def _narrow(kwargs):
        return {k: v[:, :1] if k == "draft_logits" else v for k, v in kwargs.items()}

    is_refused(changed("coupled, penalties", verify=bug))


def test_6_the_bonus_row_has_every_processor(native):
    verify_checks.check_certain_drafts()


def test_7_block_verification_accepts_what_it_should(native):
    """More than rejection does, and not everything."""
    verify_checks.check_block_accepts_more()
    verify_checks.check_impossible_drafts()


@pytest.mark.parametrize("method", verify_checks.METHODS)
def test_8_seeds_are_of_requests_not_of_slots(threads, method):
    """Any batch, order and number of threads: each request's own result; and another seed gives another one."""
    call = {**random_call(96, 4, 3000, seed=1), "temperature": 1.1, "top_p": 0.99}

    def of(rows):
        picked = {name: x[rows] if isinstance(x, torch.Tensor) else x for name, x in call.items()}
        return warpdraw.verify(**picked, method=method).tokens

    whole = of(slice(None))
    order = torch.randperm(96, generator=torch.Generator().manual_seed(2))
    for count in (1, 2):
        threads(count)
        assert torch.equal(of(order), whole[order])
        for size in (1, 7, 64):
            assert torch.equal(torch.cat([of(slice(at, at + size)) for at in range(0, 96, size)]), whole)
    if method != "greedy":
        other = warpdraw.verify(**{**call, "seed": call["seed"] + FAR}, method=method).tokens
        assert (other != whole).any(-1).float().mean() > 0.5


def test_9_padding_is_no_draft(native):
    verify_checks.check_padding()


def test_10_the_distribution_does_not_depend_on_the_size_of_the_batch():
    """The kept set of the first row is that of `sample`, whether one request is verified or many."""
    call = {**random_call(64, 2, 5000, seed=3), "top_p": 0.7, "temperature": 0.9}
    kept = warpdraw.filter_logits(call["target_logits"][:, 0], temperature=0.9, top_p=0.7) > -torch.inf
    found = torch.zeros_like(kept)
    for draw in range(60):
        for rows in (slice(0, 1), slice(0, 64)):
            given = {name: x[rows] if isinstance(x, torch.Tensor) else x for name, x in call.items()}
            tokens = warpdraw.verify(**{**given, "seed": draw}, method="rejection").tokens[:, 0]
            found[rows].scatter_(1, tokens[:, None], True)
    drafts = torch.zeros_like(kept).scatter_(1, call["draft_tokens"][:, :1], True)
    assert not (found & ~kept & ~drafts).any()
    assert not (found & ~kept).any()


def test_11_greedy_ties_go_to_the_lowest_id(native):
    verify_checks.check_greedy()


def test_12_where_nothing_is_left_the_target_decides(native):
    verify_checks.check_degenerate_residuals()


# --------------------------------------------------------------------------------------------------------------------
# How many drafts are accepted.


def test_acceptance_is_what_theory_says():
    """Rejection: 1 - TV at one position; coupling: at least (1 - TV) / (1 + TV); a point mass: p of the draft."""
    N = 200_000
    target, draft = verify_checks.TARGET[:1], verify_checks.DRAFT[:1]
    p, q = target.double().softmax(-1)[0], draft.double().softmax(-1)[0]
    distance = 0.5 * (p - q).abs().sum().item()
    seeds = torch.arange(N)
    drafts = warpdraw.sample(draft.expand(N, -1), seed=seeds).tokens[:, None]
    rows = target[:, None].expand(N, 2, -1)
    slack = 4 * 0.5 / N**0.5

    def share(method, given=drafts):
        return (
            warpdraw.verify(given, rows, draft[:, None].expand(N, -1, -1), method, seed=seeds).accepted.double().mean()
        )

    assert abs(share("rejection") - (1 - distance)) < slack
    assert share("coupled") > (1 - distance) / (1 + distance) - slack
    best = torch.full((N, 1), int(q.argmax()))
    assert abs(share("point_mass", best) - p[q.argmax()]) < slack


def test_trees_accept_more_than_chains():
    for name in ("coupled", "rejection"):
        shares = []
        for parents in (CHAIN[:2], TREE):
            _, accepted, verified = play(changed(name, parents=parents), 20_000)
            shares.append(1 - accepted[0] / verified)
        assert shares[1] > shares[0] + 0.02, shares
