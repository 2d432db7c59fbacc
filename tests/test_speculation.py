"""Generation with drafts: the text of generation without, the model's distribution, and what is counted on the way."""

import dataclasses
import itertools
import random

import pytest
import torch
from checks import chi_square
from small_model import EOS, byte_tokenizer, small_model
from test_generate import even_after_a_line, requests

import warpdraw
from warpdraw import Speculation, generate, load, stream
from warpdraw.generation.lookup import Ngrams, Suffixes
from warpdraw.generation.pace import Pace
from warpdraw.generation.params import SamplingParams
from warpdraw.model.config import ModelConfig
from warpdraw.model.transformer import Transformer
from warpdraw.model.weights import Checkpoint

MODEL = small_model()
TARGET, DRAFT = load("tiny-target"), load("tiny-draft")
SHIPPED = ["The sky is", "The grass is very", "My cat sleeps on the"]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_model(like: Checkpoint, context: int = 256, seed: int = 5, scale: float = 3.0) -> Checkpoint:
    """A model with the same tokens and weights that mean nothing."""
    config = ModelConfig(
        vocab_size=like.config.vocab_size, hidden_size=16, layers=1, heads=2, mlp_size=32, max_positions=context
    )
    torch.manual_seed(seed)
    model = Transformer(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(scale)
    return Checkpoint(model, like.tokenizer, config, like.eos_ids, like.path)


def plain_of(completions):
    return [dataclasses.replace(each, speculation=None) for each in completions]


DRAFTS = {
    "model": DRAFT,
    "itself": TARGET,
    "random": random_model(TARGET),
    "ngram": "ngram",
    "suffix": "suffix",
}


@pytest.mark.parametrize("tokens", [1, 3, 7])
@pytest.mark.parametrize("draft", DRAFTS)
def test_the_text_is_the_one_without_drafts(draft, tokens):
    for temperature in (0.0, 0.9):
        params = SamplingParams(seed=7, temperature=temperature, max_tokens=30, ignore_eos=True, repetition_penalty=1.1)
        usual = generate(TARGET, SHIPPED, params)
        for adaptive in (True, False):
            speculation = Speculation(DRAFTS[draft], tokens=tokens, adaptive=adaptive)
            assert plain_of(generate(TARGET, SHIPPED, params, draft=speculation)) == usual


MIXED = requests(24)
USUAL = {}


@pytest.mark.parametrize(
    ("draft", "tokens"), [("random", 3), ("small", 5), ("itself", 7), ("short", 4), ("ngram", 4), ("suffix", 6)]
)
def test_mixed_requests_give_the_text_and_reports_of_generation_without_drafts(draft, tokens):
    """All parameters, orders, reports and lengths in a batch, several samples, and more samples than rows."""
    drafts = {
        "random": random_model(MODEL),
        "small": random_model(MODEL, scale=40.0),
        "itself": MODEL,
        "short": random_model(MODEL, context=40),
    }
    prompts, params = MIXED
    params = [dataclasses.replace(each, n=1 + number % 5 // 3) for number, each in enumerate(params)]
    if not USUAL:
        USUAL["mixed"] = generate(MODEL, prompts, params)
    speculation = Speculation(drafts.get(draft, draft), tokens=tokens, adaptive=tokens % 2 == 0)
    for max_rows in (64, 5):
        drafted = generate(MODEL, prompts, params, max_rows=max_rows, draft=speculation)
        for one, other in zip(drafted, USUAL["mixed"], strict=True):
            assert dataclasses.replace(one, speculation=None) == other
    assert sum(drafted.throughput.speculation.drafted) > 0


@pytest.mark.parametrize("draft", [MODEL, "suffix"], ids=["itself", "suffix"])
def test_stops_masks_and_limits_are_where_they_are_without_drafts(draft):
    masked = even_after_a_line
    cases = [
        {"stop": ["e", "a"], "max_tokens": 60},
        {"stop": ["e"], "min_tokens": 9, "max_tokens": 60},
        {"stop_ids": list(range(40, 90)), "max_tokens": 60},
        {"stop_ids": list(range(40, 90)), "min_tokens": 6, "max_tokens": 60},
        {"bitmask": masked, "max_tokens": 21},
        {"bitmask": lambda ids: torch.zeros(9, dtype=torch.int32) if len(ids) == 5 else None, "max_tokens": 21},
        {"allowed_ids": [5], "max_tokens": 40},
        {"max_tokens": 1},
        {"max_tokens": 400, "ignore_eos": True},
    ]
    for number, case in enumerate(cases):
        params = SamplingParams(**{"temperature": 0.8, "seed": number, **case})
        prompts = [[3, 4, 3, 4, 5], list(range(30)), [7] * 200]
        usual = generate(MODEL, prompts, params)
        assert plain_of(generate(MODEL, prompts, params, draft=Speculation(draft, tokens=6))) == usual


def test_a_mask_is_asked_only_about_what_it_allows():
    asked = []

    def ascending(ids):
        asked.append(tuple(ids))
        assert all(a < b for a, b in itertools.pairwise(ids))
        bits = [sum(1 << i for i in range(32) if 32 * word + i > (ids[-1] if ids else -1)) for word in range(9)]
        return torch.tensor([bit - 2**32 if bit >= 2**31 else bit for bit in bits], dtype=torch.int32)

    for draft, method in ((random_model(MODEL), "coupled"), (MODEL, "rejection"), ("ngram", "coupled")):
        params = SamplingParams(seed=1, bitmask=ascending, max_tokens=12)
        [completion] = generate(MODEL, [[1, 2, 3, 1, 2]], params, draft=Speculation(draft, method=method))
        assert completion.finish_reason in ("length", "error", "stop")
    assert all(EOS not in ids for ids in asked)


def test_explained_steps_are_those_without_drafts():
    params = SamplingParams(seed=3, top_p=0.9, max_tokens=12, presence_penalty=0.5)
    usual = generate(TARGET, SHIPPED, params, explain=3)
    assert plain_of(generate(TARGET, SHIPPED, params, explain=3, draft=DRAFT)) == usual


def test_rows_that_cannot_be_drawn_end_and_leave_the_others_alone():
    broken = random_model(MODEL)
    with torch.no_grad():
        broken.model.embedding.weight[100:200] = float("nan")
    prompts, params = [[1, 2], [3], [250]], SamplingParams(seed=2, temperature=1.5, max_tokens=30, ignore_eos=True)
    usual = generate(broken, prompts, params)
    assert {each.finish_reason for each in usual} == {"error"}
    healthy = generate(MODEL, prompts, params)
    for tokens in (1, 4):
        assert plain_of(generate(broken, prompts, params, draft=Speculation(MODEL, tokens=tokens))) == usual
        assert plain_of(generate(MODEL, prompts, params, draft=Speculation(broken, tokens=tokens))) == healthy


@pytest.mark.parametrize("method", ["coupled", "point_mass", "rejection", "block", "greedy"])
def test_at_temperature_0_every_method_gives_the_greedy_text(method):
    params = [SamplingParams(temperature=0.0, seed=1, max_tokens=length, ignore_eos=True) for length in (40, 7, 24)]
    usual = generate(TARGET, SHIPPED, params)
    drafted = generate(TARGET, SHIPPED, params, draft=Speculation(DRAFT, tokens=5, method=method))
    assert plain_of(drafted) == usual


@pytest.mark.parametrize("method", ["rejection", "block"])
def test_a_request_repeats_itself_alone_and_in_any_batch(method):
    prompts, params = MIXED
    speculation = Speculation(random_model(MODEL), tokens=4, method=method)
    chosen = random.Random(1).sample(range(24), 8)
    together = generate(MODEL, [prompts[i] for i in chosen], [params[i] for i in chosen], draft=speculation, max_rows=5)
    for place, i in enumerate(chosen):
        [alone] = generate(MODEL, [prompts[i]], params[i], draft=speculation)
        assert dataclasses.replace(together[place], index=0) == alone
        assert len(alone.logprobs or []) == (alone.completion_tokens if params[i].logprobs is not None else 0)


def tiny(seed, scale, vocabulary=6):
    """A model over a few tokens, and its tokens as bytes."""
    config = ModelConfig(vocab_size=vocabulary, hidden_size=16, layers=1, heads=2, mlp_size=16, max_positions=16)
    torch.manual_seed(seed)
    model = Transformer(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(scale)
    return Checkpoint(model, byte_tokenizer(), config, (), DRAFT.path)


def joint(model, prompt, length, params):
    """The probability of every sequence of so many tokens after a prompt, [V ** length]."""
    vocabulary = model.config.vocab_size
    sequences = torch.tensor(list(itertools.product(range(vocabulary), repeat=length)))
    with torch.no_grad():
        logits = model.model(torch.cat([torch.tensor([prompt]).expand(len(sequences), -1), sequences], 1))
    at = logits[:, len(prompt) - 1 : -1].reshape(-1, vocabulary).contiguous()
    p = warpdraw.filter_probs(at, params.temperature, params.top_k).view(len(sequences), length, -1).double()
    return p.gather(2, sequences[..., None]).squeeze(-1).prod(1)


LONG = {"temperature": 0.8, "max_tokens": 5}  # in several steps, each of which may decide anew about a position
FILTERED = {"temperature": 0.6, "top_k": 3, "max_tokens": 3}


@pytest.mark.parametrize(
    ("method", "fields", "cost"),
    [
        ("rejection", LONG, None),
        ("rejection", FILTERED, 0.02),
        ("block", LONG, None),
        ("block", LONG, 0.3),
        ("block", FILTERED, 0.02),
        ("coupled", FILTERED, None),
    ],
)
def test_whole_sequences_follow_the_model(method, fields, cost):
    """Four standard deviations of chi-square, with seeds that do not change.

    Block verification whose noise is the same in each step exceeds them: by drafts (4.8) or by what accepts (9.7).
    """
    vocabulary = 3 if fields is LONG else 4
    model, draft = tiny(1, 6.0, vocabulary), tiny(2, 6.0, vocabulary)
    length, samples = fields["max_tokens"], 8000
    speculation = Speculation(draft, tokens=4, method=method, adaptive=cost is not None, cost=cost)
    params = SamplingParams(seed=11, n=samples, **fields)
    completions = generate(model, [[1, 2]], params, max_rows=1000, draft=speculation)
    assert 0.2 < completions.throughput.speculation.acceptance < 0.8
    places = [
        sum(token * vocabulary ** (length - 1 - i) for i, token in enumerate(each.token_ids)) for each in completions
    ]
    counts = torch.bincount(torch.tensor(places), minlength=vocabulary**length)
    statistic, df = chi_square(counts, joint(model, [1, 2], length, params) * samples)
    print(f"{method}: {(statistic - df) / (2 * df) ** 0.5:.1f} standard deviations, {df} degrees of freedom")
    assert df > 20
    assert statistic < df + 4 * (2 * df) ** 0.5


def test_coupled_drafts_are_accepted_about_as_often_as_by_rejection():
    params = [SamplingParams(seed=seed, max_tokens=48, ignore_eos=True) for seed in range(48)]
    rates = {}
    for method in ("coupled", "rejection", "block"):
        speculation = Speculation(DRAFT, tokens=1, method=method, adaptive=False)
        rates[method] = generate(TARGET, SHIPPED * 16, params, draft=speculation).throughput.speculation.acceptance
    print(rates)
    assert abs(rates["coupled"] - rates["rejection"]) < 0.03, rates
    assert abs(rates["block"] - rates["rejection"]) < 0.03, rates


def test_what_is_counted_adds_up():
    params = SamplingParams(seed=5, max_tokens=40, ignore_eos=True, n=2)
    completions = generate(TARGET, SHIPPED, params, draft=Speculation(DRAFT, tokens=4, adaptive=False))
    whole = completions.throughput.speculation
    for each in completions:
        counted = each.speculation
        assert counted.tokens == each.completion_tokens - 1 == counted.steps + sum(counted.accepted)
        assert all(a <= d for a, d in zip(counted.accepted, counted.drafted, strict=True))
        assert counted.accepted == sorted(counted.accepted, reverse=True)
        assert counted.tokens_per_step == counted.tokens / counted.steps
    for name in ("steps", "tokens"):
        assert getattr(whole, name) == sum(getattr(each.speculation, name) for each in completions)
    for name in ("drafted", "accepted"):
        assert getattr(whole, name) == [
            sum(counts) for counts in zip(*(getattr(each.speculation, name) for each in completions), strict=True)
        ]
    assert whole.acceptance_by_place[0] == whole.accepted[0] / whole.drafted[0] > 0.5
    assert min(whole.draft_seconds, whole.target_seconds, whole.verify_seconds) > 0
    itself = generate(TARGET, SHIPPED, params, draft=Speculation(TARGET, tokens=3, adaptive=False))
    assert itself.throughput.speculation.acceptance == 1.0
    assert generate(TARGET, "a", params)[0].speculation is None


def test_steps_with_drafts_are_counted_as_steps_without_graphs():
    params = SamplingParams(seed=7, max_tokens=10, ignore_eos=True)
    counted = generate(TARGET, "The sky is", params, graphs=True, draft="ngram").throughput
    assert counted.graph_steps == 0
    assert counted.eager_steps == {"steps with drafts differ in the number of tokens": counted.speculation.steps + 1}


def test_events_come_token_by_token():
    params = SamplingParams(seed=7, max_tokens=30, logprobs=1)
    events = list(stream(TARGET, "The sky is", params, draft=DRAFT))
    usual = list(stream(TARGET, "The sky is", params))
    assert [dataclasses.replace(each, completion=None) for each in events] == [
        dataclasses.replace(each, completion=None) for each in usual
    ]


def test_ngrams_propose_what_followed_the_latest_longest_one():
    chance = random.Random(2)
    for _ in range(200):
        longest = chance.randint(1, 4)
        sequence = [chance.randrange(3) for _ in range(chance.randint(1, 30))]
        index = Ngrams(longest)
        cut = chance.randint(0, len(sequence))
        index.extend(sequence[:cut])
        index.extend(sequence[cut:])
        expected = []
        for n in range(min(longest, len(sequence) - 1), 0, -1):
            begins = [i for i in range(n, len(sequence)) if sequence[i - n : i] == sequence[-n:]]
            if begins:
                grown = list(sequence)
                for i in range(5):
                    grown.append(grown[begins[-1] + i])
                expected = grown[len(sequence) :]
                break
        assert index.propose(5) == expected


def ends_of(sequence, end):
    """Where a token follows an occurrence of `end`."""
    return [i for i in range(len(end), len(sequence)) if sequence[i - len(end) : i] == end]


def test_suffixes_propose_what_most_often_followed_the_longest_one():
    chance = random.Random(3)
    for _ in range(200):
        sequence = [chance.randrange(3) for _ in range(chance.randint(1, 40))]
        index = Suffixes()
        index.extend(sequence)
        grown = list(sequence)

        # The longest end that occurred before; then the longest end of it and the drafts that has a continuation.
        end = next((sequence[-n:] for n in range(len(sequence) - 1, 0, -1) if ends_of(sequence, sequence[-n:])), [])
        expected = []
        while end and len(expected) < 6:
            followed = [(sequence[i], i) for i in ends_of(sequence, end)]
            if not followed:
                end = end[1:]
                continue
            counts = {token: [i for other, i in followed if other == token] for token, _ in followed}
            token = max(counts, key=lambda each: (len(counts[each]), max(counts[each])))
            expected.append(token)
            grown.append(token)
            end = [*end, token]
        assert index.propose(6) == expected


def test_the_pace_follows_acceptance_and_nothing_else():
    good, bad = Pace(7, 0.3, True), Pace(7, 0.3, True)
    for _ in range(60):
        good.learn(4, 4)
        bad.learn(4, 0)
    assert good.drafts() == 7
    assert [place for place in range(200) if bad.drafts()] == [16, 49, 114]
    assert {Pace(5, 9.0, False).drafts() for _ in range(3)} == {5}
    again = Pace(7, 0.3, True)
    for _ in range(60):
        again.learn(4, 4)
    assert again.drafts() == good.drafts()


def test_what_is_refused():
    other = small_model(context=64)
    renamed = dataclasses.replace(random_model(TARGET), tokenizer=byte_tokenizer())
    for draft, error, text in [
        (other, ValueError, "draft: expected a model with the vocabulary of 1264 tokens, got 257"),
        (renamed, ValueError, "draft: expected a model with the same tokens"),
        ("nothing", ValueError, "draft: expected a Checkpoint or one of ngram, suffix, got 'nothing'"),
        (7, TypeError, "draft: expected a Checkpoint"),
    ]:
        with pytest.raises(error, match=text):
            generate(TARGET, "a", draft=draft)
    for fields, error, text in [
        ({"tokens": 0}, ValueError, r"tokens: expected an integer in \[1, 64\], got 0"),
        ({"tokens": True}, TypeError, "tokens: expected an integer"),
        ({"ngram": 65}, ValueError, r"ngram: expected an integer in \[1, 64\], got 65"),
        ({"method": "tree"}, ValueError, "method: expected one of coupled, point_mass, rejection, block, greedy"),
        ({"draft": "suffix", "method": "rejection"}, ValueError, "without a draft model, got 'rejection'"),
        ({"draft": "ngram", "method": "block"}, ValueError, "without a draft model, got 'block'"),
        ({"adaptive": 1}, TypeError, "adaptive: expected True or False"),
        ({"cost": -1}, ValueError, "cost: expected None or a number >= 0, got -1"),
        ({"cost": "1"}, TypeError, "cost: expected None or a number >= 0"),
    ]:
        with pytest.raises(error, match=text):
            Speculation(**{"draft": DRAFT, **fields})
    with pytest.raises(
        ValueError, match=r"params\[0\].temperature: expected 0 with drafts of method 'greedy', got 1.0"
    ):
        generate(TARGET, "a", draft=Speculation(DRAFT, method="greedy"))
