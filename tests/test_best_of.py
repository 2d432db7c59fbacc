"""Best of n: the samples with the largest mean log-probability of the model, whatever they were drawn by."""

import pytest
import torch
from small_model import EOS, small_model

from warpdraw import SamplingParams, best_of, generate

MODEL = small_model()
PROMPTS = [[5, 6], [90, 91, 92]]


@torch.no_grad()
def mean_of(prompt, tokens):
    """The mean log-probability of tokens in the model's own distribution, without a cache."""
    logits = MODEL.model(torch.tensor([[*prompt, *tokens]]))[0, len(prompt) - 1 : -1]
    return float(logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None]).mean())


@pytest.mark.parametrize("fields", [{}, {"temperature": 1.7, "top_k": 40}, {"banned_ids": [EOS], "min_p": 0.01}])
def test_it_keeps_the_samples_with_the_largest_mean(fields):
    params = SamplingParams(seed=3, n=3, max_tokens=12, stop_ids=list(range(0, 250, 12)), **fields)
    found = best_of(MODEL, PROMPTS, params, samples=8)
    drawn = generate(MODEL, PROMPTS, SamplingParams(seed=3, n=8, max_tokens=12, stop_ids=params.stop_ids, **fields))
    assert [(each.index, each.sample) for each in found] == [(i, j) for i in range(2) for j in range(3)]
    for index, prompt in enumerate(PROMPTS):
        texts = [each for each in drawn if each.index == index]
        texts.sort(key=lambda each: mean_of(prompt, each.token_ids), reverse=True)
        kept = [each for each in found if each.index == index]
        assert [each.seed for each in kept] == [each.seed for each in texts[:3]]
        for each in kept:
            assert each.score == pytest.approx(mean_of(prompt, each.token_ids), abs=1e-4)
    assert len({len(each.token_ids) for each in drawn}) > 1


def test_the_mean_is_no_sum():
    """A sum prefers short texts; some set of samples has to tell the two apart."""
    params = SamplingParams(seed=5, n=12, max_tokens=20, stop_ids=list(range(0, 250, 5)))
    found = best_of(MODEL, [[5, 6]], params, samples=12)
    sums = [each.score * each.completion_tokens for each in found]
    assert sums != sorted(sums, reverse=True)
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)


def test_the_seed_of_a_completion_gives_it_again():
    found = best_of(MODEL, PROMPTS, SamplingParams(seed=3, max_tokens=10), samples=6)
    for each, prompt in zip(found, PROMPTS, strict=True):
        assert generate(MODEL, [prompt], SamplingParams(seed=each.seed, max_tokens=10))[0].token_ids == each.token_ids


def test_logprobs_are_given_only_to_those_who_asked():
    assert best_of(MODEL, "ab", SamplingParams(max_tokens=3), samples=2)[0].logprobs is None
    assert len(best_of(MODEL, "ab", SamplingParams(max_tokens=3, logprobs=2), samples=2)[0].logprobs[0].top) == 2


def test_drafts_change_nothing():
    params = SamplingParams(seed=3, n=2, max_tokens=10)
    plain, drafted = best_of(MODEL, "abab", params), best_of(MODEL, "abab", params, draft="ngram")
    assert [each.token_ids for each in plain] == [each.token_ids for each in drafted]
    assert [each.score for each in plain] == pytest.approx([each.score for each in drafted])


def test_a_failed_sample_is_the_last_choice():
    found = best_of(MODEL, "ab", SamplingParams(allowed_ids=[5], banned_ids=[5]), samples=2)[0]
    assert (found.finish_reason, found.score) == ("error", None)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match=r"params\[0\].n: expected at most samples = 2, got 3"):
        best_of(MODEL, "ab", SamplingParams(n=3), samples=2)
    with pytest.raises(ValueError, match="samples: expected an integer of at least 1, got 0"):
        best_of(MODEL, "ab", samples=0)
    with pytest.raises(ValueError, match="params: expected one for each of 1 prompts, got 2"):
        best_of(MODEL, "ab", [SamplingParams()] * 2)
    with pytest.raises(TypeError, match=r"params\[0\]: expected a SamplingParams, got 3"):
        best_of(MODEL, "ab", [3])
