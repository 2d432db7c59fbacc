"""Guidance: the logits and greedy texts of transformers' processor, in any batch; its slots; what it refuses."""

import re
import warnings
from dataclasses import replace
from functools import cache

import pytest
import torch
from families_zoo import write
from small_model import EOS, small_model

import warpdraw
from warpdraw import Engine, SamplingParams, generate
from warpdraw.generation.guidance import guided

MODEL = small_model()
PROMPT, NEGATIVE = "The sky is", "The grass is green and"


@cache
def shipped():
    return warpdraw.load("tiny-target")


@cache
def shipped_peer():
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return transformers.AutoModelForCausalLM.from_pretrained(shipped().path, dtype=torch.float32).eval()


def processor(peer, scale, negative):
    from transformers.generation.logits_process import UnbatchedClassifierFreeGuidanceLogitsProcessor

    ids = None if negative is None else torch.tensor([negative])
    return UnbatchedClassifierFreeGuidanceLogitsProcessor(scale, peer, unconditional_ids=ids)


def by_transformers(peer, ids, negative, scale, count):
    """Greedy tokens, and the log-probabilities [T, V] of each step, through the processor."""
    process, tokens, steps = processor(peer, scale, negative), list(ids), []
    with torch.no_grad():
        for _ in range(count):
            scores = process(torch.tensor([tokens]), peer(torch.tensor([tokens])).logits[:, -1])
            steps.append(scores[0])
            tokens.append(int(scores.argmax()))
    return tokens[len(ids) :], torch.stack(steps).log_softmax(-1)


@pytest.mark.parametrize("scale", [1.5, 3.0, 0.0, -0.5])
@pytest.mark.parametrize("negative", [None, NEGATIVE])
def test_the_shipped_model_gives_transformers_text(scale, negative):
    model = shipped()
    encode = model.tokenizer.encode
    theirs, steps = by_transformers(shipped_peer(), encode(PROMPT), negative and encode(negative), scale, 12)
    params = SamplingParams(
        temperature=0.0, guidance=scale, negative_prompt=negative, max_tokens=12, ignore_eos=True, logprobs=30
    )
    found = generate(model, PROMPT, params)[0]
    assert found.token_ids == theirs
    for step, each in zip(steps, found.logprobs, strict=True):
        assert each.raw_logprob == pytest.approx(float(step[each.token]), abs=1e-3)
        assert [i for i, _ in each.top[:4]] == step.topk(4).indices.tolist()
        assert [p for _, p in each.top] == pytest.approx([float(step[i]) for i, _ in each.top], abs=1e-2)


@pytest.mark.parametrize("name", ["llama-gqa", "gpt2-tied"])
def test_random_models_give_transformers_logits(name, tmp_path):
    peer, ids = write(name, tmp_path), [3, 9, 27, 81]
    params = SamplingParams(temperature=0.0, guidance=2.0, max_tokens=10, logprobs=96)
    found = generate(warpdraw.load(tmp_path), [ids], params)[0]
    theirs, steps = by_transformers(peer, ids, None, 2.0, 10)
    assert found.token_ids == theirs
    for step, each in zip(steps, found.logprobs, strict=True):
        assert dict(each.top) == pytest.approx(dict(enumerate(step.tolist())), abs=2e-3)


def test_guided_logits_are_the_formula():
    torch.manual_seed(0)
    logits, away = torch.randn(2, 3, 40).unbind()
    c, u = logits.log_softmax(-1), away.log_softmax(-1)
    for scale in (-1.0, 0.0, 1.0, 1.5):
        found = guided(logits, away, torch.full([3], scale))
        torch.testing.assert_close(found, u + scale * (c - u), rtol=1e-5, atol=1e-5)
    scales = torch.tensor([0.0, 1.0, 2.0])
    torch.testing.assert_close(guided(logits, away, scales)[1], c[1], rtol=1e-5, atol=1e-5)


def test_a_guidance_of_1_is_no_guidance():
    params = SamplingParams(seed=3, max_tokens=20, logprobs=3)
    plain = generate(MODEL, "abc", params)[0]
    assert generate(MODEL, "abc", SamplingParams(seed=3, max_tokens=20, logprobs=3, guidance=1.0))[0] == plain
    assert generate(MODEL, "abc", SamplingParams(seed=3, max_tokens=20, guidance=1.5))[0].token_ids != plain.token_ids


def mixed():
    own = {"max_tokens": 12, "logprobs": 1}
    return [
        SamplingParams(seed=1, guidance=1.5, **own),
        SamplingParams(seed=2, **own),
        SamplingParams(seed=3, guidance=3.0, negative_prompt="xyzzy", n=3, top_k=20, **own),
        SamplingParams(seed=4, guidance=0.5, mirostat=2, mirostat_tau=2.0, frequency_penalty=0.5, **own),
        SamplingParams(seed=5, n=2, top_p=0.9, **own),
    ]


PROMPTS = [[5], [6, 7], [8, 9, 10], [11] * 20, [12]]


def test_guided_and_unguided_rows_share_a_batch():
    alone = [one for prompt, each in zip(PROMPTS, mixed(), strict=True) for one in generate(MODEL, [prompt], each)]
    for max_rows in (2, 5, 64):
        for one, other in zip(generate(MODEL, PROMPTS, mixed(), max_rows=max_rows), alone, strict=True):
            assert (one.token_ids, one.logprobs) == (other.token_ids, other.logprobs)


def test_a_sample_takes_two_slots_and_gives_them_back():
    engine = Engine(MODEL, slots=4)
    long = {"max_tokens": 30, "ignore_eos": True}
    first = engine.add("ab", SamplingParams(guidance=2.0, **long))
    second = engine.add("ab", SamplingParams(guidance=2.0, **long))
    third = engine.add("ab", SamplingParams(max_tokens=2, ignore_eos=True))
    assert {event.index for event in engine.step()} == {first, second}
    assert (engine.running, engine.waiting) == (2, 1)
    engine.cancel(first)
    assert {(event.index, event.finish_reason) for event in engine.step()} == {
        (first, "cancelled"),
        (second, None),
        (third, None),
    }
    while not engine.idle:
        engine.step()
    assert sorted(engine._free) == [0, 1, 2, 3]


def without_phrase(phrase, params):
    """Tokens drawn again and again, each time with one more token banned where the phrase began."""
    model, bans = shipped(), {}

    def allowed(ids):
        mask = torch.full([(model.config.vocab_size + 31) // 32], -1, dtype=torch.int32)
        for token in bans.get(tuple(ids), ()):
            mask[token // 32] &= ~torch.tensor(1 << token % 32, dtype=torch.int64).to(torch.int32)
        return mask

    while True:
        found = generate(model, PROMPT, replace(params, bitmask=allowed))[0]
        if phrase not in found.text:
            return found.token_ids
        start, ids = found.text.index(phrase), found.token_ids
        texts = [model.tokenizer.decode(ids[: count + 1]) for count in range(len(ids))]
        at = next(count for count, text in enumerate(texts) if len(text) > start)
        bans.setdefault(tuple(ids[:at]), []).append(ids[at])


@pytest.mark.parametrize("phrase", ["air", "blue", "and"])
def test_phrases_are_taken_back_from_guided_and_mirostat_rows(phrase):
    for fields in ({"guidance": 1.3, "negative_prompt": NEGATIVE}, {"mirostat": 2, "mirostat_tau": 2.0}):
        params = SamplingParams(seed=7, max_tokens=12, temperature=1.3, **fields)
        found = generate(shipped(), PROMPT, replace(params, ban_phrases=[phrase], ban_case=True))[0]
        assert found.guarded
        assert found.token_ids == without_phrase(phrase, params)


@pytest.mark.parametrize("left", [0, 1, 4])
def test_a_row_that_loses_tokens_goes_on_in_both_slots(left):
    """What a rewound row reads next is what it read there before."""
    params = SamplingParams(guidance=2.0, negative_prompt="xyz", max_tokens=12, ignore_eos=True, seed=3)
    engine = Engine(MODEL, slots=2)
    engine.add([5, 6, 7], params)
    with torch.inference_mode():
        for _ in range(6):
            engine.step()
        row = engine._running[0]
        cache = engine._cache
        del row.tokens[left:]
        cache.truncate(row.slot, row.length - 1)
        engine._guidance.rewind(row)
        logits = engine._guidance.decode([row])
    text, negative = [5, 6, 7, *row.tokens], [*MODEL.tokenizer.encode("xyz"), *row.tokens]
    with torch.no_grad():
        c, u = (MODEL.model(torch.tensor([ids]))[0, -1].log_softmax(-1) for ids in (text, negative))
    torch.testing.assert_close(logits[0], u + 2 * (c - u), rtol=1e-4, atol=1e-4)


def test_one_slot_is_too_few():
    message = r"params\[0\].guidance: expected 1 where there is one slot, because a guided sample takes two, got 1.5"
    with pytest.raises(ValueError, match=message):
        generate(MODEL, "ab", SamplingParams(guidance=1.5), max_rows=1)


def test_the_longer_prompt_fills_the_context():
    model = small_model(context=16)
    params = SamplingParams(seed=1, guidance=1.5, negative_prompt="x" * 12, max_tokens=30, ignore_eos=True)
    found = generate(model, [[1, 2]], params)[0]
    assert (found.completion_tokens, found.finish_reason) == (4, "context")


def test_explained_steps_are_those_of_the_guided_model():
    params = SamplingParams(temperature=0.0, guidance=1.5, max_tokens=3, logprobs=0)
    found = generate(shipped(), PROMPT, params, explain=4)[0]
    for step, each in zip(found.steps, found.logprobs, strict=True):
        drawn = next(candidate for candidate in step.candidates if candidate.drawn)
        assert torch.tensor(drawn.probability).log().item() == pytest.approx(each.raw_logprob, abs=1e-4)


def test_graphs_say_why_there_are_none():
    params = SamplingParams(seed=1, guidance=1.5, max_tokens=8, ignore_eos=True)
    completions = generate(MODEL, "ab", params, graphs=True)
    assert completions.throughput.eager_steps["guided rows read two slots"] >= 5
    assert completions[0].token_ids == generate(MODEL, "ab", params)[0].token_ids


def test_no_candidate_is_an_error_of_that_sample_alone():
    failed, fine = generate(
        MODEL, ["ab", "ab"], [SamplingParams(guidance=2.0, allowed_ids=[5], banned_ids=[5]), SamplingParams(guidance=2)]
    )
    assert failed.finish_reason == "error"
    assert fine.completion_tokens > 0
    assert EOS in MODEL.eos_ids


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"guidance": float("nan")}, "guidance: expected a number in [-1000000, 1000000], got nan"),
        ({"guidance": "2"}, "guidance: expected a number in [-1000000, 1000000], got '2'"),
        ({"negative_prompt": "x"}, "negative_prompt: expected together with a guidance other than 1, got guidance 1"),
        ({"negative_prompt": 3, "guidance": 2}, "negative_prompt: expected text or None, got 3"),
    ],
)
def test_arguments_are_checked(fields, message):
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        SamplingParams(**fields)


def test_requests_are_checked():
    with pytest.raises(ValueError, match=r"params\[0\].guidance: expected 1.0 together with drafts, got 2"):
        generate(MODEL, "abab", SamplingParams(guidance=2), draft="ngram")
    with pytest.raises(ValueError, match=r"params\[0\].negative_prompt: expected at least one token, got none"):
        generate(MODEL, "ab", SamplingParams(guidance=2, negative_prompt=""))
    with pytest.raises(ValueError, match=r"params\[0\].negative_prompt: expected fewer tokens than the context of 256"):
        generate(MODEL, "ab", SamplingParams(guidance=2, negative_prompt="x" * 256))
    with pytest.raises(
        ValueError, match=r"params\.guidance: expected 1.0 in a sampler, because it sees the logits of one"
    ):
        warpdraw.Sampler(vocabulary=5, max_batch=1).add(SamplingParams(guidance=2), [0])
