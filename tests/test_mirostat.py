"""Mirostat: the paper's algorithms step by step, in any batch; rewound rows; the surprise reached; what is refused."""

import math
import re
from dataclasses import replace

import pytest
import torch
from small_model import small_model

import warpdraw
from warpdraw import SamplingParams, generate
from warpdraw.generation.draw import Draws
from warpdraw.generation.mirostat import exponent, kept_tokens
from warpdraw.generation.place import Place
from warpdraw.generation.vocabulary import Ids, TokenLists

MODEL = small_model()
V = MODEL.config.vocab_size


def zipf_exponent(p):
    """The paper's estimate from the 100 most probable tokens: a fit of log(p_i / p_(i+1)) to log((i + 1) / i)."""
    p = sorted(p, reverse=True)[:100]
    above = below = 0.0
    for i in range(1, len(p)):
        t, b = math.log((i + 1) / i), math.log(p[i - 1] / p[i])
        above += t * b
        below += t * t
    return above / below


def by_definition(prompt, version, params, count):
    """Tokens, as the paper's algorithms draw them, with everything computed anew for each."""
    mu, tokens, kept = 2 * params.mirostat_tau, [], []
    for _ in range(count):
        with torch.no_grad():
            logits = MODEL.model(torch.tensor([[*prompt, *tokens]]))[0, -1].double()
        p = (logits / params.temperature).softmax(-1)
        if version == 1:
            s = zipf_exponent(p.tolist())
            k = round((((s - 1) * 2**mu) / (1 - V ** -(s - 1))) ** (1 / s))
        else:
            k = sum(-math.log2(each) <= mu for each in p.tolist())
        kept.append(min(max(k, 1), V))
        drawn = warpdraw.sample(
            logits.float()[None],
            temperature=params.temperature,
            seed=params.seed,
            position=len(prompt) + len(tokens),
            top_k=kept[-1],
        )
        tokens.append(int(drawn.tokens))
        surprise = -math.log2(float(logits.softmax(-1)[tokens[-1]]))
        mu -= params.mirostat_eta * (surprise - params.mirostat_tau)
    return tokens, kept


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("tau", "eta", "temperature"), [(5.0, 0.1, 1.0), (4.5, 0.7, 1.0), (6.0, 1.0, 1.6)])
def test_it_is_the_definition(version, tau, eta, temperature):
    params = SamplingParams(
        mirostat=version,
        mirostat_tau=tau,
        mirostat_eta=eta,
        temperature=temperature,
        seed=5,
        max_tokens=30,
        ignore_eos=True,
        kept=0,
    )
    for prompt in ([7, 80], [1, 2, 3, 4]):
        found = generate(MODEL, [prompt], params)[0]
        tokens, kept = by_definition(prompt, version, params, 30)
        assert [each.count for each in found.kept] == kept
        assert found.token_ids == tokens
        assert len(set(kept)) > 5


def test_the_exponent_of_a_law_is_found():
    for s in (0.5, 1.0, 1.7):
        assert exponent([-s * math.log(i) for i in range(1, 101)]) == pytest.approx(s)
    assert exponent([0.0]) == math.inf


def test_the_last_token_kept_has_the_surprise():
    """For p(i) ~ 1 / i^s with the sum as the paper's integral, the surprise of token k is mu."""
    s, vocabulary = 1.3, 10_000
    leading = [-s * math.log(i) for i in range(1, 101)]
    for mu in (3.0, 6.0, 9.0):
        k = kept_tokens(leading, mu, vocabulary)
        mass = (1 - vocabulary ** (1 - s)) / (s - 1)
        assert -math.log2(k**-s / mass) == pytest.approx(mu, abs=0.5 * s / k / math.log(2) + 1e-6)


@pytest.mark.parametrize("limit", [-50.0, 0.0, 5.0, 2000.0])
@pytest.mark.parametrize("leading", [[0.0], [-5.0] * 100, [0.0, -80.0, -700.0], [-i * 0.01 for i in range(100)]])
def test_no_distribution_is_too_strange(leading, limit):
    assert 1 <= kept_tokens(leading, limit, 128_256) <= 128_256


@pytest.mark.parametrize("version", [1, 2])
def test_the_mean_surprise_is_what_was_asked_for(version):
    for tau in (4.5, 5.5):
        params = SamplingParams(
            mirostat=version,
            mirostat_tau=tau,
            mirostat_eta=0.3,
            temperature=3.0,
            seed=5,
            n=4,
            max_tokens=120,
            ignore_eos=True,
            logprobs=0,
        )
        bits = [
            -each.raw_logprob / math.log(2) for one in generate(MODEL, [[7, 80]], params) for each in one.logprobs[20:]
        ]
        assert sum(bits) / len(bits) == pytest.approx(tau, abs=0.25)


def mixed():
    """Rows with and without mirostat, which start and end at different steps, some of them with a filter and bans."""
    own = {"ignore_eos": True, "logprobs": 1, "kept": 3}
    return [
        SamplingParams(mirostat=1, mirostat_tau=2.0, mirostat_eta=0.5, seed=1, max_tokens=9, **own),
        SamplingParams(top_k=5, epsilon=0.01, seed=2, max_tokens=14, **own),
        SamplingParams(mirostat=2, mirostat_tau=1.0, seed=3, max_tokens=17, n=2, repetition_penalty=1.3, **own),
        SamplingParams(seed=4, max_tokens=5, no_repeat_ngram=2, **own),
        SamplingParams(mirostat=1, mirostat_tau=4.0, seed=5, max_tokens=12, banned_ids=list(range(200)), **own),
    ]


def test_rows_with_and_without_share_a_batch():
    prompts = [[5], [6, 7], [8, 9, 10], [11] * 20, [12]]
    alone = [one for prompt, each in zip(prompts, mixed(), strict=True) for one in generate(MODEL, [prompt], each)]
    for max_rows in (2, 64):
        for one, other in zip(generate(MODEL, prompts, mixed(), max_rows=max_rows), alone, strict=True):
            assert (one.token_ids, one.kept) == (other.token_ids, other.kept)
            assert one.logprobs == other.logprobs


def test_a_row_that_loses_tokens_goes_on_from_what_it_knew_then():
    """Each draw depends on the tokens before it alone: rows may be rewound."""
    params = SamplingParams(mirostat=2, mirostat_tau=2.0, mirostat_eta=0.5, seed=3)
    torch.manual_seed(0)
    logits = 3 * torch.randn(12, 1, 50)

    def draws(rewinds):
        place = Place("params", params, TokenLists(), 3, [1], (), [])
        draw = Draws(Ids(50, 50))
        for step in range(12):
            token = draw.draw(logits[len(place.tokens)], [place])[0].token
            place.tokens.append(token)
            if step in rewinds:
                del place.tokens[-rewinds[step] :]
                draw = Draws(Ids(50, 50))  # the positions of a batch are those of its rows
        return place.tokens, place.limits[: len(place.tokens) + 1]

    tokens, limits = draws({})
    rewound, limits_after = draws({3: 2, 6: 3})
    assert rewound == tokens[: len(rewound)]
    assert limits_after == limits[: len(rewound) + 1]
    assert len(set(limits)) == 13


def test_explained_steps_show_the_filter():
    params = SamplingParams(mirostat=2, mirostat_tau=0.5, seed=7, max_tokens=6, kept=0)
    found = generate(warpdraw.load("tiny-target"), "The sky is", params, explain=8)[0]
    assert [step.kept for step in found.steps] == [each.count for each in found.kept]
    assert [[candidate.probability >= 0.5 for candidate in found.steps[0].candidates if candidate.kept]] == [[False]]


def test_graphs_say_why_there_are_none():
    params = SamplingParams(mirostat=2, seed=7, max_tokens=8, ignore_eos=True)
    completions = generate(MODEL, "ab", params, graphs=True)
    assert completions.throughput.graph_steps == 0
    assert completions.throughput.eager_steps["mirostat chooses its filter on the host"] >= 5
    assert completions[0].token_ids == generate(MODEL, "ab", params)[0].token_ids


def test_graphs_run_again_when_mirostat_and_guided_rows_are_gone():
    steered = [SamplingParams(mirostat=1, mirostat_tau=4.0), SamplingParams(guidance=2.0)]
    long = SamplingParams(seed=2, max_tokens=40, ignore_eos=True)
    early = [replace(each, seed=1, max_tokens=6, ignore_eos=True) for each in steered]
    prompts, params = ["ab", "cd", "ef", "gh"], [*early, long, long]
    completions = generate(MODEL, prompts, params, graphs=True)
    assert completions.throughput.graph_steps >= 25
    plain = generate(MODEL, prompts, params)
    assert [each.token_ids for each in completions] == [each.token_ids for each in plain]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mirostat": 3}, "mirostat: expected 0, 1 or 2, got 3"),
        ({"mirostat": True}, "mirostat: expected 0, 1 or 2, got True"),
        ({"mirostat_tau": 0.0}, "mirostat_tau: expected a number in (0, inf), got 0.0"),
        ({"mirostat_eta": -1}, "mirostat_eta: expected a number in [0, inf), got -1"),
        ({"mirostat_eta": math.nan}, "mirostat_eta: expected a number in [0, inf), got nan"),
        ({"mirostat": 2, "top_k": 5}, "top_k: expected 0 together with mirostat, which is the filter, got 5"),
        ({"mirostat": 1, "top_p": 0.9}, "top_p: expected 1 together with mirostat, which is the filter, got 0.9"),
        ({"mirostat": 1, "order": "hf"}, "order: expected 'vllm' together with mirostat"),
        ({"mirostat": 2, "xtc_probability": 0.1}, "xtc_probability: expected 0 together with mirostat"),
        ({"mirostat": 2, "temperature": 0.0}, "temperature: expected above 0 together with mirostat"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        SamplingParams(**fields)


def test_drafts_are_refused():
    with pytest.raises(ValueError, match=r"params\[0\].mirostat: expected 0 together with drafts, got 2"):
        generate(MODEL, "abab", SamplingParams(mirostat=2), draft="ngram")


def test_a_sampler_refuses_it():
    with pytest.raises(
        ValueError, match=r"params\.mirostat: expected 0 in a sampler, because its filters stay as they are"
    ):
        warpdraw.Sampler(vocabulary=5, max_batch=1).add(SamplingParams(mirostat=2), [0])
