"""Contrastive search: the definition of the paper by brute force, without a cache; ends, bans, and what it refuses."""

import re
from functools import cache

import pytest
import torch
from families_zoo import write
from small_model import EOS, small_model

import warpdraw
from warpdraw import SamplingParams, contrastive_search, generate

MODEL = small_model()


def hidden_states(model, tokens):
    """The last hidden states [T, hidden] and logits [T, V] of a whole sequence, without a cache."""
    states = []
    logits = model.model(torch.tensor([tokens]), states=states)
    return states[0][0], logits[0]


def by_definition(model, prompt, alpha, k, count, banned=()):
    """argmax over the k best v of (1 - alpha) p(v) - alpha max_j cos(h_v, h_j), every state computed anew."""
    tokens = list(prompt)
    with torch.no_grad():
        while len(tokens) < len(prompt) + count:
            before, logits = hidden_states(model, tokens)
            last = logits[-1].clone()
            last[list(banned)] = -torch.inf
            p, best = last.softmax(-1).topk(k)
            scores = []
            for probability, token in zip(p.tolist(), best.tolist(), strict=True):
                state = hidden_states(model, [*tokens, token])[0][-1]
                cosines = [float(state @ other / (state.norm() * other.norm())) for other in before]
                scores.append((1 - alpha) * probability - alpha * max(cosines))
            tokens.append(best.tolist()[scores.index(max(scores))])
            if tokens[-1] in model.eos_ids:
                break
    return tokens[len(prompt) :]


@cache
def shipped():
    return warpdraw.load("tiny-target")


@pytest.mark.parametrize(("alpha", "k"), [(0.0, 4), (0.3, 5), (0.6, 4), (0.9, 7), (1.0, 3), (0.6, 1)])
def test_it_is_the_definition(alpha, k):
    for model, prompt in ((MODEL, [7, 80, 33]), (shipped(), shipped().tokenizer.encode("The sky is"))):
        found = contrastive_search(model, [prompt], SamplingParams(max_tokens=12), alpha=alpha, k=k)[0]
        assert found.token_ids == by_definition(model, prompt, alpha, k, 12)


@pytest.mark.parametrize("name", ["gpt2-tied", "qwen3-head-dim"])
def test_hidden_states_are_those_of_transformers(name, tmp_path):
    peer = write(name, tmp_path)
    tokens = [3, 9, 27, 81, 5]
    theirs = peer(torch.tensor([tokens]), output_hidden_states=True).hidden_states[-1][0]
    torch.testing.assert_close(hidden_states(warpdraw.load(tmp_path), tokens)[0], theirs, rtol=2e-4, atol=2e-4)


def test_alpha_changes_the_text():
    texts = {
        contrastive_search(shipped(), "The sky is", SamplingParams(max_tokens=20), alpha=alpha)[0].text
        for alpha in (0.0, 0.6, 0.9)
    }
    assert len(texts) == 3


def test_alpha_0_is_greedy():
    params = SamplingParams(max_tokens=30)
    greedy = generate(MODEL, "ab", SamplingParams(max_tokens=30, temperature=0))[0]
    found = contrastive_search(MODEL, "ab", params, alpha=0.0)[0]
    assert (found.token_ids, found.finish_reason, found.stop) == (
        greedy.token_ids,
        greedy.finish_reason,
        greedy.stop,
    )


def test_several_prompts_are_continued_as_each_alone_however_many_at_a_time():
    prompts = [[5, 6], [90, 91, 92, 93, 94], [1], [17] * 20]
    params = [SamplingParams(max_tokens=m, stop_ids=ids) for m, ids in [(9, [3]), (20, []), (4, [5, 6]), (12, [200])]]
    alone = [contrastive_search(MODEL, [one], each)[0] for one, each in zip(prompts, params, strict=True)]
    for max_rows in (4, 9, 64):
        together = contrastive_search(MODEL, prompts, params, max_rows=max_rows)
        assert [each.index for each in together] == [0, 1, 2, 3]
        assert [each.token_ids for each in together] == [each.token_ids for each in alone]


def test_bans_and_ends_hold():
    banned = list(range(0, 250, 2))
    params = SamplingParams(max_tokens=10, banned_ids=banned, stop_ids=[249], min_tokens=4)
    found = contrastive_search(MODEL, [[3, 4, 5]], params)[0]
    assert not set(found.token_ids) & set(banned)
    assert found.token_ids[:4] == by_definition(MODEL, [3, 4, 5], 0.6, 4, 4, (*banned, 249, EOS))
    repeats = contrastive_search(MODEL, [[3, 4, 5]], SamplingParams(max_tokens=30, no_repeat_ngram=1))[0].token_ids
    assert len(set(repeats)) == len(repeats)


def test_a_stop_string_ends_the_text():
    found = contrastive_search(shipped(), "The sky is", SamplingParams(max_tokens=20, stop=["."]))[0]
    assert found.stop == "."
    assert found.text == " blue and the sun is warm"


def test_no_candidate_is_an_error_of_that_text_alone():
    params = [SamplingParams(allowed_ids=[5], banned_ids=[5]), SamplingParams(max_tokens=3, ignore_eos=True)]
    failed, fine = contrastive_search(MODEL, ["ab", "ab"], params)
    assert (failed.finish_reason, failed.token_ids) == ("error", [])
    assert fine.completion_tokens == 3


def test_fewer_candidates_than_k():
    found = contrastive_search(MODEL, "ab", SamplingParams(max_tokens=5, allowed_ids=[5, 7]), k=6)[0]
    assert set(found.token_ids) <= {5, 7}


@pytest.mark.parametrize(
    ("fields", "options", "message"),
    [
        ({"temperature": 0.7}, {}, "params[0].temperature: expected 1.0 with contrastive search, which does not read"),
        ({"top_k": 4}, {}, "params[0].top_k: expected 0 with contrastive search"),
        ({"n": 2}, {}, "params[0].n: expected 1 with contrastive search"),
        ({}, {"alpha": 1.5}, "alpha: expected a number in [0, 1], got 1.5"),
        ({}, {"k": 0}, "k: expected an integer of at least 1, got 0"),
        ({}, {"k": 65}, "k: expected at most max_rows = 64, got 65"),
        ({}, {"k": 300, "max_rows": 300}, "k: expected at most the vocabulary = 257, got 300"),
    ],
)
def test_what_it_does_not_read_is_refused(fields, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        contrastive_search(MODEL, "ab", SamplingParams(**fields), **options)
