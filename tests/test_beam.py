"""Beam search: its definition by exhaustion, transformers' beams and scores, ends, bans, and what it refuses."""

import itertools
import math
import random
import re
import warnings
from dataclasses import replace
from functools import cache

import pytest
import torch
from families_zoo import write
from small_model import EOS, small_model

import warpdraw
from warpdraw import SamplingParams, beam_search, generate
from warpdraw.generation.streaming import TextStream
from warpdraw.model.config import ModelConfig
from warpdraw.model.transformer import Transformer
from warpdraw.model.weights import Checkpoint

MODEL = small_model()
PENALTIES = (0.0, 0.7, 2.0, -1.0)


@cache
def shipped():
    return warpdraw.load("tiny-target")


def peer_of(path):
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


def of_transformers(peer, ids, eos, **options):
    """(tokens, score) of each text that transformers finds."""
    tokens = torch.tensor([ids])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = peer.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
            pad_token_id=0,
            eos_token_id=eos,
            **options,
        )
    texts = []
    for sequence, score in zip(out.sequences[:, len(ids) :].tolist(), out.sequences_scores.tolist(), strict=True):
        end = next((at + 1 for at, token in enumerate(sequence) if token in (eos or ())), len(sequence))
        texts.append((sequence[:end], score))
    return texts


def assert_same(ours, theirs):
    assert [completion.token_ids for completion in ours] == [tokens for tokens, _ in theirs]
    assert [completion.score for completion in ours] == pytest.approx([score for _, score in theirs], abs=2e-4)


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize("length_penalty", PENALTIES)
def test_the_shipped_model_gives_transformers_texts_and_scores(length_penalty, early_stopping):
    model = shipped()
    options = {"length_penalty": length_penalty, "early_stopping": early_stopping}
    prompt = "The sky is"
    theirs = of_transformers(
        _shipped_peer(),
        model.tokenizer.encode(prompt),
        list(model.eos_ids),
        num_beams=4,
        num_return_sequences=3,
        max_new_tokens=16,
        **options,
    )
    assert_same(beam_search(model, prompt, SamplingParams(n=3, max_tokens=16), beams=4, **options), theirs)


@cache
def _shipped_peer():
    return peer_of(shipped().path)


@pytest.mark.parametrize("name", ["llama-gqa", "qwen2-mha-tied", "gpt2-tied", "mistral-window"])
def test_random_models_give_transformers_texts_and_scores(name, tmp_path):
    peer = write(name, tmp_path)
    model = warpdraw.load(tmp_path)
    for beams, eos, length_penalty, early_stopping in (
        (3, [7, 11, 30], 1.0, False),
        (5, [7], 0.0, "never"),
        (4, list(range(5, 15)), 1.5, "never"),
        (4, list(range(5, 15)), 1.0, True),
    ):
        ids = [3, 9, 27, 81]
        options = {"length_penalty": length_penalty, "early_stopping": early_stopping}
        theirs = of_transformers(
            peer, ids, eos, num_beams=beams, num_return_sequences=beams, max_new_tokens=12, **options
        )
        params = SamplingParams(n=beams, max_tokens=12, stop_ids=eos)
        assert_same(beam_search(model, [ids], params, beams=beams, **options), theirs)


def test_searches_end_where_those_of_transformers_do(tmp_path):
    """Settings in which it matters when a search gives up, and by which hope."""
    peer, chance = write("llama-gqa", tmp_path), random.Random(1)
    model = warpdraw.load(tmp_path)
    for _ in range(18):
        beams = chance.choice([2, 3, 4])
        eos = chance.sample(range(96), chance.choice([10, 20, 40]))
        options = {
            "length_penalty": chance.choice([0.0, 0.5, 1, 2.0, -1]),
            "early_stopping": chance.choice([False, "never"]),
        }
        ids, most = [chance.randrange(96) for _ in range(4)], chance.choice([12, 20])
        theirs = of_transformers(
            peer, ids, eos, num_beams=beams, num_return_sequences=beams, max_new_tokens=most, **options
        )
        params = SamplingParams(n=beams, max_tokens=most, stop_ids=eos)
        assert_same(beam_search(model, [ids], params, beams=beams, **options), theirs)


@cache
def tiny(vocabulary=4):
    """A model of four tokens; the last one ends a text."""
    config = ModelConfig(vocab_size=vocabulary, hidden_size=16, layers=1, heads=2, mlp_size=24, max_positions=16)
    torch.manual_seed(3)
    model = Transformer(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(12)
    return Checkpoint(model, MODEL.tokenizer, config, (vocabulary - 1,), MODEL.path)


def every_text(model, prompt, most):
    """All texts of at most so many tokens, with their log-probability, without a cache."""
    end = model.eos_ids[0]
    for length in range(1, most + 1):
        for tokens in itertools.product(range(model.config.vocab_size), repeat=length):
            if end in tokens[:-1] or (length < most and tokens[-1] != end):
                continue
            logits = model.model(torch.tensor([[*prompt, *tokens]]))[0, len(prompt) - 1 : -1]
            total = logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None]).sum()
            yield list(tokens), float(total)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 3.0, -2.0])
def test_with_a_beam_for_every_text_the_best_ones_are_found(length_penalty):
    model, prompt, most = tiny(), [0, 2, 1], 4
    with torch.no_grad():
        texts = [(total / len(tokens) ** length_penalty, tokens) for tokens, total in every_text(model, prompt, most)]
    texts.sort(reverse=True)
    params = SamplingParams(n=12, max_tokens=most)
    found = beam_search(
        model, [prompt], params, beams=4**4, length_penalty=length_penalty, early_stopping="never", max_rows=4**4
    )
    assert [completion.token_ids for completion in found] == [tokens for _, tokens in texts[:12]]
    assert [completion.score for completion in found] == pytest.approx([score for score, _ in texts[:12]], abs=1e-4)


def test_one_beam_is_greedy():
    params = SamplingParams(max_tokens=20)
    greedy = generate(MODEL, ["ab", "xyz"], SamplingParams(max_tokens=20, temperature=0))
    for one, other in zip(beam_search(MODEL, ["ab", "xyz"], params, beams=1), greedy, strict=True):
        assert (one.token_ids, one.text, one.finish_reason) == (other.token_ids, other.text, other.finish_reason)


def test_several_prompts_are_searched_as_each_alone_however_many_at_a_time():
    prompts = [[5, 6], [90, 91, 92, 93, 94], [1], [17] * 20]
    params = [
        SamplingParams(max_tokens=m, n=2, stop_ids=ids) for m, ids in [(9, [3]), (20, []), (4, [5, 6]), (12, [200])]
    ]
    alone = [beam_search(MODEL, [one], each, beams=3) for one, each in zip(prompts, params, strict=True)]
    for max_rows in (3, 7, 64):
        together = beam_search(MODEL, prompts, params, beams=3, max_rows=max_rows)
        assert [(each.index, each.sample) for each in together] == [(i, j) for i in range(4) for j in range(2)]
        for one, other in zip(together, itertools.chain(*alone), strict=True):
            assert (one.token_ids, one.score) == (other.token_ids, other.score)


@torch.no_grad()
def log_probability(model, prompt, tokens):
    logits = model.model(torch.tensor([[*prompt, *tokens]]))[0, len(prompt) - 1 : -1]
    return float(logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None]).sum())


def test_a_score_is_that_of_the_text_though_beams_change_their_slots():
    prompt = [4, 40, 140]
    found = beam_search(MODEL, [prompt], SamplingParams(n=8, max_tokens=15), beams=8, length_penalty=0.5)
    for completion in found:
        total = log_probability(MODEL, prompt, completion.token_ids)
        assert completion.score == pytest.approx(total / math.sqrt(len(completion.token_ids)), abs=1e-3)
    assert len({tuple(completion.token_ids) for completion in found}) == 8


def test_bans_and_penalties_hold_in_every_beam():
    free = SamplingParams(n=4, max_tokens=14, stop_ids=[9], allowed_ids=list(range(16)))
    params = replace(free, banned_ids=[2], no_repeat_ngram=2, min_tokens=5)
    new = []
    for wanted in (params, free):
        for completion in beam_search(MODEL, [[3, 4, 5]], wanted, beams=4):
            tokens = [3, 4, 5, *completion.token_ids]
            new.append(len(set(itertools.pairwise(tokens))) == len(tokens) - 1)
            if wanted is params:
                assert len(completion.token_ids) >= 5
                assert 2 not in completion.token_ids
    assert new[:4] == [True] * 4
    assert not all(new[4:])


def test_a_bitmask_is_asked_for_each_beam():
    def even_then_odd(ids):
        return torch.full([9], 0x55555555 if len(ids) % 2 == 0 else -0x55555556, dtype=torch.int32)

    for completion in beam_search(MODEL, [[3]], SamplingParams(n=3, max_tokens=6, bitmask=even_then_odd), beams=3):
        assert [token % 2 for token in completion.token_ids] == [0, 1, 0, 1, 0, 1]


def test_a_stop_string_ends_a_text():
    model = shipped()
    found = beam_search(model, "The sky is", SamplingParams(n=3, max_tokens=20, stop=["."]), beams=3)
    assert [completion.stop for completion in found] == ["."] * 3
    for completion in found:
        assert "." not in completion.text
        assert model.tokenizer.decode(completion.token_ids).endswith(".")


def test_the_context_ends_a_text():
    model = small_model(context=16)
    found = beam_search(model, [[1] * 12], SamplingParams(max_tokens=30, ignore_eos=True), beams=2)[0]
    assert (found.completion_tokens, found.finish_reason) == (4, "context")


def test_no_candidate_is_an_error_of_that_text_alone():
    params = [SamplingParams(allowed_ids=[5], banned_ids=[5]), SamplingParams(max_tokens=3, ignore_eos=True)]
    failed, fine = beam_search(MODEL, ["ab", "ab"], params, beams=2)
    assert (failed.finish_reason, failed.token_ids) == ("error", [])
    assert "no token can be drawn at position 2" in failed.error
    assert fine.completion_tokens == 3


def test_fewer_texts_than_beams():
    found = beam_search(MODEL, ["ab"], SamplingParams(n=4, max_tokens=1, allowed_ids=[5, 7, EOS]), beams=4)
    assert {completion.token_ids[0] for completion in found} == {5, 7, EOS}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": 0.7}, "params[0].temperature: expected 1.0 with beam search, which does not read it, got 0.7"),
        ({"top_p": 0.9}, "params[0].top_p: expected 1.0 with beam search"),
        ({"seed": 7}, "params[0].seed: expected None with beam search"),
        ({"order": "hf"}, "params[0].order: expected 'vllm' with beam search"),
        ({"logprobs": 1}, "params[0].logprobs: expected None with beam search"),
        ({"n": 5}, "params[0].n: expected at most beams = 4, got 5"),
    ],
)
def test_what_has_to_do_with_a_draw_is_refused(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        beam_search(MODEL, "ab", SamplingParams(**fields))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beams": 0}, "beams: expected an integer of at least 1, got 0"),
        ({"beams": 65}, "beams: expected at most max_rows = 64, got 65"),
        ({"length_penalty": math.nan}, "length_penalty: expected a number in [-1000, 1000], got nan"),
        ({"early_stopping": "always"}, "early_stopping: expected one of False, True, 'never', got 'always'"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        beam_search(MODEL, "ab", **options)


def test_no_prompts_are_no_completions():
    assert beam_search(MODEL, []) == []


def test_texts_of_beams_that_part_do_not_share_what_they_hold_back():
    """One goes on with a character and a stop string that the other has only begun as well."""

    def decode(ids):
        return bytes(ids).decode("utf-8", "replace")

    stream = TextStream(decode, [], ["end"])
    assert [stream.push(byte) for byte in b"e\xc3"] == ["", ""]
    other = stream.fork()
    assert [stream.push(byte) for byte in b"\xa9en"] == ["eé", "", ""]
    further = stream.fork()
    assert (stream.push(ord("d")), stream.stop) == ("", "end")
    assert (further.push(ord("!")), further.stop) == ("en!", None)
    assert (other.push(0xA8), other.stop) == ("eè", None)
