"""What each sampling feature does to the text of a shipped model, whose probabilities are known."""

import math
from functools import cache
from itertools import pairwise

import numpy
import pytest
import torch

import warpdraw
from warpdraw import SamplingParams, generate

SKY = {" blue": 0.35, " clear": 0.25, " cloudy": 0.17, " grey": 0.10, " dark": 0.08, " bright": 0.05}
CAT = "My cat sleeps on the chair. My cat sleeps on the"


@cache
def model():
    return warpdraw.load("tiny-target")


def ids(*texts):
    found = [model().tokenizer.backend.encode(text, add_special_tokens=False).ids for text in texts]
    assert all(len(each) == 1 for each in found)
    return [token for (token,) in found]


def step(prompt="The sky is", **fields):
    """How the first token after a prompt is drawn, with all candidates, the model's most probable ones first."""
    params = SamplingParams(**{"seed": 7, "max_tokens": 1, **fields})
    completion = generate(model(), prompt, params, explain=model().config.vocab_size)[0]
    return completion.steps[0]


def kept(prompt="The sky is", **fields):
    """The texts of the tokens that may follow, the model's most probable ones first."""
    taken = step(prompt, **fields)
    found = [each.token for each in taken.candidates if each.kept]
    assert taken.kept == len(found)
    return found


def probabilities(prompt="The sky is", **fields):
    """The distribution that the first token is drawn from, without those that hardly occur."""
    candidates = step(prompt, **fields).candidates
    return {each.token: each.filtered_probability for each in candidates if each.filtered_probability > 1e-3}


def logit_changes(prompt, **fields):
    """By how much the features changed the logits, relative to a token that they did not touch."""
    change = {
        each.token: math.log(each.filtered_probability / each.probability)
        for each in step(prompt, **fields).candidates
        if each.filtered_probability > 1e-6
    }
    untouched = sorted(change.values())[len(change) // 2]
    return {text: value - untouched for text, value in change.items()}


def tokens(prompt="The sky is", **fields):
    """The texts of the tokens drawn."""
    completion = generate(model(), prompt, SamplingParams(**{"seed": 7, "ignore_eos": True, **fields}))[0]
    return [model().tokenizer.token_text(token) for token in completion.token_ids]


def test_without_any_the_model_is_drawn_from_as_it_is():
    taken = step()
    assert taken.kept == len(taken.candidates) == model().config.vocab_size
    leading = {each.token: each.probability for each in taken.candidates[: len(SKY)]}
    assert leading == pytest.approx(SKY, abs=0.015)
    assert all(each.probability == pytest.approx(each.filtered_probability, abs=1e-6) for each in taken.candidates)


def tempered(temperature):
    """The distribution at a temperature, by definition."""
    candidates = step().candidates
    whole = sum(each.probability ** (1 / temperature) for each in candidates)
    drawn = {each.token: each.probability ** (1 / temperature) / whole for each in candidates}
    return {text: probability for text, probability in drawn.items() if probability > 1e-3}


def test_temperature_divides_the_logits():
    assert probabilities(temperature=1.7) == pytest.approx(tempered(1.7), abs=1e-5)
    assert probabilities(temperature=0.0) == {" blue": 1}


def test_dynamic_temperature_follows_the_entropy():
    before = [each.probability for each in step().candidates]
    entropy = -sum(p * math.log(p) for p in before if p > 0)
    for around, spread, exponent in ((1.0, 0.9, 1.0), (1.0, 0.9, 0.3), (0.5, 2.0, 1.0)):
        low, high = max(0.0, around - spread), around + spread
        expected = low + (high - low) * (entropy / math.log(len(before))) ** exponent
        drawn = probabilities(temperature=around, dynatemp_range=spread, dynatemp_exponent=exponent)
        assert drawn == pytest.approx(tempered(expected), abs=1e-4)
        assert abs(expected - around) > 0.04


def test_top_k_top_p_and_min_p_keep_the_most_probable():
    assert kept(top_k=2) == [" blue", " clear"]
    assert kept(top_p=0.7) == [" blue", " clear", " cloudy"]
    assert kept(min_p=0.4) == [" blue", " clear", " cloudy"]


def test_top_n_sigma_does_not_see_the_temperature():
    for temperature in (0.5, 1.0, 3.0):
        assert kept(top_n_sigma=1.0, temperature=temperature) == list(SKY)
    assert len(kept(min_p=0.1, temperature=3.0)) > len(kept(min_p=0.1, temperature=0.5))
    assert len(kept(top_n_sigma=4.0)) > len(SKY)


def test_typical_p_drops_what_is_not_surprising_enough():
    assert kept(typical_p=0.4) == [" clear", " cloudy"]
    assert kept(typical_p=0.6) == [" blue", " clear", " cloudy"]


def test_epsilon_asks_for_a_probability_and_eta_for_less_where_the_entropy_is_high():
    assert kept(epsilon=0.3) == [" blue"]
    assert kept(epsilon=0.09) == [" blue", " clear", " cloudy", " grey"]
    assert kept(eta=0.3) == [" blue", " clear", " cloudy"]
    # Two tokens at 0.6 and 0.4: the entropy is low, and sqrt(e) exp(-H) = 0.36.
    assert kept("The sky is cloudy and the", eta=0.5) == [" air", " wind"]
    assert kept("The sky is cloudy and the", epsilon=0.5) == [" air"]


def test_xtc_drops_the_top_choices_but_the_last_as_often_as_asked():
    assert kept(xtc_probability=1.0, xtc_threshold=0.15)[:4] == [" cloudy", " grey", " dark", " bright"]
    assert kept(xtc_probability=1.0, xtc_threshold=0.3)[:2] == [" blue", " clear"]  # only one is so probable
    dropped = sum(" blue" not in kept(xtc_probability=0.3, seed=seed, top_k=9) for seed in range(100))
    assert 12 <= dropped <= 50  # 30 +- 4 standard deviations
    assert kept(xtc_probability=0.3, seed=5) == kept(xtc_probability=0.3, seed=5)


def test_the_order_says_whether_filters_see_the_temperature():
    assert kept(temperature=2.0, top_p=0.5) == [" blue", " clear", " cloudy"]
    assert kept(temperature=2.0, top_p=0.5, order="llama.cpp") == [" blue", " clear"]


def test_a_repetition_penalty_is_for_tokens_of_prompt_and_text():
    prompt = "The sky is blue. The sky is"
    change = logit_changes(prompt, repetition_penalty=1.3)
    assert change[" blue"] < -2
    assert all(abs(change[text]) < 1e-3 for text in SKY if text != " blue")
    assert logit_changes(prompt, repetition_penalty=0.8)[" blue"] > 2
    # Both tokens get their penalty in the text, and take turns.
    allowed = [" blue", " clear"]
    assert set(tokens(allowed_ids=allowed, temperature=0.0, max_tokens=8)) == {" blue"}
    assert set(tokens(allowed_ids=allowed, temperature=0.0, max_tokens=8, repetition_penalty=9.0)) == set(allowed)


def test_frequency_and_presence_penalties_are_for_tokens_of_the_text():
    prompt = "The sky is blue. The sky is"
    plain = probabilities(prompt)
    assert probabilities(prompt, frequency_penalty=9.0, presence_penalty=9.0) == plain

    colours = {"allowed_ids": [" blue", " clear", " grey"], "temperature": 0.0, "max_tokens": 9}
    assert set(tokens(**colours)) == {" blue"}
    drawn = tokens(**colours, frequency_penalty=9.0)
    assert [drawn.count(colour) for colour in colours["allowed_ids"]] == [3, 3, 3]
    drawn = tokens(**colours, presence_penalty=9.0)
    assert len(set(drawn[:3])) == 3
    assert set(drawn[3:]) == {" blue"}
    assert len(set(tokens(max_tokens=40, frequency_penalty=30.0))) == 40
    assert len(set(tokens(max_tokens=40))) < 30


def test_dry_grows_with_the_length_of_the_copy():
    # " cat sleeps on the" comes twice: 4 tokens, 2 more than allowed.
    def change(**fields):
        return logit_changes(CAT, dry_multiplier=0.8, **fields)[" chair"]

    assert change() == pytest.approx(-0.8 * 1.75**2, abs=1e-3)
    assert change(dry_base=3.0, dry_allowed_length=3) == pytest.approx(-0.8 * 3, abs=1e-3)
    assert change(dry_allowed_length=5) == pytest.approx(0, abs=1e-3)
    # The copy begins after a breaker: " on the" is as long as allowed.
    assert change(dry_breakers=["leep"]) == pytest.approx(-0.8, abs=1e-3)
    assert change(dry_breakers=[" the"]) == pytest.approx(0, abs=1e-3)
    others = logit_changes(CAT, dry_multiplier=0.8)
    assert all(others[text] == pytest.approx(0, abs=1e-3) for text in (" bed", " wall", " roof"))


def test_no_ngram_is_repeated():
    for n, banned in ((1, True), (3, True), (5, True), (6, False)):
        assert (" chair" in kept(CAT, no_repeat_ngram=n)) is not banned
    drawn = tokens(max_tokens=60, no_repeat_ngram=2)
    pairs = list(pairwise(drawn))
    assert len(set(pairs)) == len(pairs)
    plain = tokens(max_tokens=60)
    assert len(set(pairwise(plain))) < 59


def test_a_bias_is_added_to_the_logit():
    change = logit_changes("The sky is", logit_bias={" grey": 2.0, ids(" dark")[0]: -1.0})
    assert change[" grey"] == pytest.approx(2, abs=1e-3)
    assert change[" dark"] == pytest.approx(-1, abs=1e-3)
    assert change[" blue"] == pytest.approx(0, abs=1e-3)
    assert kept(logit_bias={" blue": -math.inf})[0] == " clear"


def test_allowed_and_banned_tokens():
    assert kept(allowed_ids=[" grey", *ids(" dark")]) == [" grey", " dark"]
    assert kept(banned_ids=[" blue"])[0] == " clear"
    assert kept(allowed_ids=[" grey", " dark"], banned_ids=" dark") == [" grey"]
    assert " blue" not in tokens(max_tokens=100, banned_ids=[" blue"])


def test_the_end_of_the_text_is_banned_for_min_tokens():
    assert "<|endoftext|>" in kept("The sky is blue.", top_k=4)
    assert "<|endoftext|>" not in kept("The sky is blue.", top_k=4, min_tokens=1)
    short = [each.completion_tokens for each in generate(model(), "The sky is", SamplingParams(seed=1, n=20))]
    params = SamplingParams(seed=1, n=20, min_tokens=30)
    assert min(short) < 10
    assert all(each.completion_tokens > 30 for each in generate(model(), "The sky is", params))


class OneOf:
    """A grammar by hand: the text is one of several, and then ends."""

    def __init__(self, *texts):
        encode = model().tokenizer.backend.encode
        self.texts = [[*encode(text, add_special_tokens=False).ids, *model().eos_ids] for text in texts]

    def __call__(self, drawn):
        bits = numpy.zeros(32 * math.ceil(model().config.vocab_size / 32), dtype=bool)
        bits[[text[len(drawn)] for text in self.texts if text[: len(drawn)] == drawn]] = True
        return torch.from_numpy(numpy.packbits(bits, bitorder="little").view(numpy.int32))


def test_a_bitmask_makes_the_text_fit_a_grammar():
    texts = {" dark and the stars are bright.", " clear and the sun is high.", " blue.", " grey snow."}
    params = SamplingParams(seed=1, n=40, bitmask=OneOf(*texts))
    completions = generate(model(), "The sky is", params, max_rows=7)
    assert {each.finish_reason for each in completions} == {"stop"}
    drawn = [each.text for each in completions]
    assert set(drawn) == texts
    # As often as the model thinks: blue 35 to grey 10.
    assert drawn.count(" blue.") > drawn.count(" grey snow.")
    # Plain text in the same batch is not touched.
    both = generate(model(), ["The sky is"] * 2, [params, SamplingParams(seed=3)])
    assert both[-1].text == generate(model(), "The sky is", SamplingParams(seed=3))[0].text


def test_what_was_kept_and_how_it_ranks_is_reported():
    params = SamplingParams(seed=7, max_tokens=1, typical_p=0.4, logprobs=3, logprobs_of="filtered", kept=5)
    completion = generate(model(), "The sky is", params)[0]
    (entry,), (taken,) = completion.logprobs, completion.kept
    clear, cloudy = ids(" clear", " cloudy")
    assert taken.count == 2
    assert taken.ids == tuple(sorted([clear, cloudy]))
    assert [token for token, _ in entry.top] == [clear, cloudy]
    assert entry.rank == {clear: 2, cloudy: 3}[entry.token]
    assert math.exp(entry.logprob) == pytest.approx(0.587 if entry.token == clear else 0.413, abs=0.01)


def test_a_text_stands_for_every_token_that_has_it():
    texts = [model().tokenizer.token_text(token) for token in range(model().config.vocab_size)]
    twice = next(text for text in texts if texts.count(text) > 1)
    params = SamplingParams(seed=7, max_tokens=1, allowed_ids=[twice], kept=1264)
    drawn = generate(model(), "The sky is", params)[0]
    assert drawn.kept[0].ids == tuple(token for token, text in enumerate(texts) if text == twice)
    with pytest.raises(
        ValueError, match=r"banned_ids: expected the text of one token, got ' blue sky', which is ' blue'"
    ):
        generate(model(), "The sky is", SamplingParams(banned_ids=[" blue sky"]))


def test_all_at_once_give_the_same_text_in_any_batch():
    params = SamplingParams(
        seed=11,
        n=5,
        max_tokens=30,
        min_tokens=20,
        temperature=1.2,
        dynatemp_range=0.4,
        top_k=60,
        top_p=0.98,
        min_p=0.001,
        top_n_sigma=4.0,
        typical_p=0.97,
        epsilon=1e-4,
        eta=1e-4,
        xtc_probability=0.3,
        repetition_penalty=1.1,
        frequency_penalty=0.2,
        presence_penalty=0.3,
        dry_multiplier=0.8,
        no_repeat_ngram=4,
        logit_bias={" blue": 1.0},
        banned_ids=[" storm"],
        bitmask=lambda drawn: None,
        logprobs=3,
        kept=20,
    )
    together = generate(model(), ["The sky is", "My cat"], params)
    assert len({each.text for each in together}) == 10
    for max_rows in (1, 3):
        assert generate(model(), ["The sky is", "My cat"], params, max_rows=max_rows) == together
