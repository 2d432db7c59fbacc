"""Banned phrases: texts without them, by the definition of rewinding, with drafts and guides, and what is reported."""

import dataclasses
import json

import pytest
import torch
from small_model import small_model
from test_guides import DRAFT, PERSON, TARGET, is_person

import warpdraw
from warpdraw import Engine, SamplingParams, Speculation, generate, guides, stream
from warpdraw.generation import holding, row
from warpdraw.generation.phrases import Phrases

MODEL = small_model()
DRAFTS = {"model": DRAFT, "suffix": "suffix", "ngram": "ngram", "eight": Speculation(DRAFT, 8, adaptive=False)}
BANNED = ["blue", "The Air", "is fresh", " leaves turn ", "most people"]


def banning(phrases=BANNED, **fields):
    return SamplingParams(**{"ban_phrases": phrases, "max_tokens": 60, "seed": 3, **fields})


def by_definition(model, prompt, params, **options):
    """The tokens of a request, each drawn from the logits of the whole sequence, and the rewinds on the way.

    What the text is, and where a phrase begins, is read from the decoded sequence: nothing here is held or kept.
    """
    ids, tokenizer = model.tokenizer.encode(prompt), model.tokenizer
    before = len(tokenizer.decode(ids))
    tokens, bans, rewinds = [], {}, []
    while len(tokens) < params.max_tokens:
        with torch.no_grad():
            logits = model.model(torch.tensor([ids + tokens]))[0, -1:]
        given = {"seed": torch.tensor([params.seed]), "position": torch.tensor([len(ids) + len(tokens)])}
        history = torch.tensor([ids + tokens], dtype=torch.int32)
        given |= {
            "history": history,
            "history_length": torch.tensor([len(ids) + len(tokens)], dtype=torch.int32),
            "prompt_length": torch.tensor([len(ids)], dtype=torch.int32),
        }
        banned = sorted(bans.get(tuple(tokens), {-1}))
        result = warpdraw.sample(logits, banned_ids=torch.tensor([banned], dtype=torch.int32), **given, **options)
        tokens.append(result.tokens.item())
        texts = [tokenizer.decode(ids + tokens[:count])[before:] for count in range(len(tokens) + 1)]
        lower = texts[-1].lower()
        at = min((lower.find(each.lower()) for each in params.ban_phrases if each.lower() in lower), default=None)
        if at is not None:
            position = next(count for count in range(len(tokens)) if len(texts[count + 1]) > at)
            bans.setdefault(tuple(tokens[:position]), set()).add(tokens[position])
            rewinds.append((position, tokens[position]))
            del tokens[position:]
        elif tokens[-1] in model.eos_ids:
            break
    return tokens, rewinds


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("options", [{}, {"presence_penalty": 0.8, "no_repeat_ngram": 4}], ids=["plain", "history"])
def test_the_tokens_are_those_of_the_definition(seed, options):
    params = banning(seed=seed, **options)
    completion = generate(TARGET, "The sky is", params)[0]
    tokens, rewinds = by_definition(TARGET, "The sky is", params, **options)
    assert completion.token_ids == tokens
    assert [(each.position, each.token) for each in completion.guarded] == rewinds
    assert {each.action for each in completion.guarded} <= {"rewind"}


def test_the_definition_has_rewinds_to_follow():
    rewinds = [by_definition(TARGET, "The sky is", banning(seed=seed))[1] for seed in range(3)]
    assert sum(map(len, rewinds)) > 3


@pytest.mark.parametrize("draft", DRAFTS.values(), ids=DRAFTS)
def test_the_text_is_the_same_with_drafts(draft):
    params = banning(n=4, frequency_penalty=0.2)
    prompts = ["The sky is", "The grass is very"]
    plain, drafted = generate(TARGET, prompts, params), generate(TARGET, prompts, params, draft=draft)
    assert [each.token_ids for each in drafted] == [each.token_ids for each in plain]
    assert [each.guarded for each in drafted] == [each.guarded for each in plain]
    assert sum(len(each.guarded) for each in plain) > 2
    assert sum(drafted.throughput.speculation.accepted) > 0


@pytest.mark.parametrize("seed", range(5))
def test_phrases_a_schema_and_a_draft_at_once(seed):
    """The text satisfies the schema, has none of the phrases, and is the same with every draft."""
    banned = ["tea", "true", "the", "9", "er", "small"]
    params = banning(banned, guide=guides.json_schema(PERSON), n=3, max_tokens=120, seed=seed, repetition_penalty=1.1)
    prompts = ["The sky is", "My cat"]
    plain = generate(TARGET, prompts, params)
    for completion in plain:
        assert completion.finish_reason == "stop"
        assert is_person(completion.text)
        assert not any(phrase in completion.text.casefold() for phrase in banned)
        assert json.loads(completion.text)["cold"] is False
    assert sum(len(each.guarded) for each in plain) > 5
    for draft in DRAFTS.values():
        drafted = generate(TARGET, prompts, params, draft=draft)
        assert [each.token_ids for each in drafted] == [each.token_ids for each in plain]
        assert [each.text for each in drafted] == [each.text for each in plain]
        assert [each.guarded for each in drafted] == [each.guarded for each in plain]
        assert sum(drafted.throughput.speculation.accepted) > 0


def test_a_token_is_banned_at_its_position_only():
    blue = next(each for each in generate(TARGET, "The sky is", banning(["blue and"], seed=7))[0].guarded)
    completion = generate(TARGET, "The sky is", banning(["blue and"], seed=7, n=20, max_tokens=100))
    later = [each for each in completion if blue.token in each.token_ids]
    assert later
    assert not any("blue and" in each.text for each in completion)
    assert any("blue" in each.text and each.guarded for each in later)


@pytest.mark.parametrize("case", [False, True])
def test_the_case_of_letters_matters_where_it_shall(case):
    completions = generate(TARGET, "The sky is", banning(["THE"], n=10, ban_case=case))
    found = ["the" in each.text.lower() for each in completions]
    assert any(found) == case
    assert any(each.guarded for each in completions) != case


def test_only_the_generated_text_counts():
    completion = generate(TARGET, "The sky is", banning(["sky is", "is blue", "s blue"], seed=7))[0]
    assert (completion.text, completion.guarded) == (generate(TARGET, "The sky is", banning([], seed=7))[0].text, ())
    assert completion.text.startswith(" blue")


def test_several_samples_are_each_that_of_its_seed():
    together = generate(TARGET, "The sky is", banning(n=5), max_rows=3)
    for sample in together:
        alone = generate(TARGET, "The sky is", banning(seed=sample.seed))[0]
        assert (alone.text, alone.guarded) == (sample.text, sample.guarded)


@pytest.mark.parametrize("draft", [None, DRAFT], ids=["", "draft"])
@pytest.mark.parametrize("stop", [(), ("and the", "clear.", "wet")], ids=["", "stop"])
def test_what_is_reported_is_that_of_the_tokens_that_stay(draft, stop):
    params = banning(n=4, logprobs=1, kept=3, stop=stop, min_tokens=4)
    events, texts = list(stream(TARGET, "The sky is", params, explain=2, draft=draft)), {}
    for event in events:
        texts.setdefault(event.sample, []).append(event)
    assert any(each.completion.guarded for each in events if each.completion)
    for several in texts.values():
        completion = several[-1].completion
        ids = completion.token_ids
        assert "".join(event.text for event in several) == completion.text
        assert [token for event in several for token in event.token_ids] == ids
        assert [each.token for each in completion.logprobs] == ids
        assert [event.logprob.token for event in several if event.logprob] == ids
        assert len(completion.kept) == len(completion.steps) == len(ids) == completion.completion_tokens
        assert [step.position for step in completion.steps] == [4 + place for place in range(len(ids))]
        assert [next(each.id for each in step.candidates if each.drawn) for step in completion.steps] == ids
        assert not any(phrase.lower() in completion.text.lower() for phrase in BANNED)
        if not completion.stop or completion.stop == 0:
            assert TARGET.tokenizer.decode(ids) == completion.text


def test_text_is_given_out_before_the_end_but_never_taken_back():
    so_far, longest_wait = "", 0
    completion = generate(TARGET, "The sky is", banning(seed=4))[0]
    for event in stream(TARGET, "The sky is", banning(seed=4)):
        longest_wait = max(longest_wait, len(event.text))
        so_far += event.text
        assert completion.text.startswith(so_far)
    assert longest_wait < 20 < len(completion.text)


def test_a_phrase_may_lie_across_characters_of_several_tokens():
    # Each byte is a token; the second one of é is held with the first.
    guide = guides.regex("x(é|e|€)y")
    samples = generate(MODEL, "a", banning(["É", "€Y"], guide=guide, n=12))
    assert {(sample.text, sample.finish_reason) for sample in samples} == {("xey", "stop")}
    assert {action.position for sample in samples for action in sample.guarded} == {1}


def test_a_phrase_in_text_that_is_held_for_a_stop_string_counts_when_it_is_given_out():
    guide = guides.regex("(ab|cd)(ef|gh)!")
    for sample in generate(MODEL, "x", banning(["be"], guide=guide, stop=["abefoo"], n=12)):
        assert sample.text in ("abgh!", "cdef!", "cdgh!")
    # What a stop string cuts off does not count.
    for sample in generate(MODEL, "x", banning(["be"], guide=guide, stop=["abe"], n=12)):
        assert sample.text in ("", "abgh!", "cdef!", "cdgh!")
        assert sample.stop == "abe" or sample.text


@pytest.mark.parametrize("draft", [None, MODEL], ids=["", "draft"])
def test_a_ban_that_leaves_nothing_to_say_ends_the_text_by_its_guard(draft):
    guide = guides.regex("ab(c|d)[xy]")
    ended = generate(MODEL, "x", banning(["c", "D"], guide=guide), draft=draft)[0]
    assert (ended.text, ended.finish_reason) == ("ab", "guard")
    assert ended.error == "no token can be drawn at position 3: banned phrases begin in all that is left, 2 tokens"
    assert [(each.action, each.position) for each in ended.guarded] == [("rewind", 2), ("rewind", 2), ("stop", 2)]


@pytest.mark.parametrize("draft", [None, MODEL], ids=["", "draft"])
def test_a_dead_end_inside_held_text_takes_back_one_token_more(draft):
    # After "ab" nothing can be said, but "ab" is still held, because it may become "abz".
    guide = guides.regex("(ab[cd]|e[fg])")
    for ended in generate(MODEL, "x", banning(["abz", "c", "d"], guide=guide, n=12), draft=draft):
        assert (ended.text, ended.finish_reason) in (("ef", "stop"), ("eg", "stop"))
        if any(each.position == 1 for each in ended.guarded):
            backed = [each.position for each in ended.guarded]
            assert backed[-2:] == [1, 0]


def test_a_ban_goes_with_the_text_before_it():
    # "x1" bans x after "a", and "ay" then bans "a": after "b" an x may follow.
    guide = guides.regex("(ax1|ay|bx!)")
    params = banning(["x1", "ax2", "ay"], guide=guide, logit_bias={"x": 20.0, "a": 10.0}, n=12)
    samples = generate(MODEL, "x", params)
    assert {(sample.text, sample.finish_reason) for sample in samples} == {("bx!", "stop")}
    assert any([action.position for action in sample.guarded] == [1, 0] for sample in samples)


def test_a_text_is_not_taken_back_for_ever(monkeypatch):
    monkeypatch.setattr(row, "MOST_REWINDS", 5)
    letters = [chr(code) for code in range(97, 123)]
    ended = generate(TARGET, "The sky is", banning(letters))[0]
    assert (ended.finish_reason, len(ended.guarded)) == ("guard", 5)
    assert ended.error.startswith("ban_phrases: gave up after 5 rewinds, the last at 0 for ")
    assert not any(letter in ended.text for letter in letters)
    assert holding.MOST_REWINDS == 1000


def test_a_text_that_is_cancelled_has_no_part_of_a_phrase_that_was_complete():
    engine = Engine(TARGET, slots=2)
    request = engine.add("The sky is", banning(["and the air is warm"], seed=7, max_tokens=30))
    events = [event for _ in range(4) for event in engine.step()]
    engine.cancel(request)
    events += engine.step()
    completion = events[-1].completion
    assert completion.finish_reason == "cancelled"
    assert "".join(event.text for event in events) == completion.text == " blue and the air"
    assert [token for event in events for token in event.token_ids] == completion.token_ids
    assert TARGET.tokenizer.decode(completion.token_ids) == completion.text
    assert engine.idle


def test_steps_as_graphs_draw_the_same():
    params = banning(n=3, presence_penalty=0.5)
    plain, graphs = (generate(TARGET, "The sky is", params, graphs=each) for each in (False, True))
    assert graphs.throughput.graph_steps > 10
    assert [each.token_ids for each in plain] == [each.token_ids for each in graphs]


@pytest.mark.parametrize(
    ("phrases", "problem"),
    [
        ([""], "ban_phrases: expected strings of at least one character, got '' among them"),
        ([3], "ban_phrases: expected strings, got 3 among them"),
    ],
)
def test_phrases_that_cannot_be_meant_are_refused(phrases, problem):
    with pytest.raises((TypeError, ValueError), match=problem):
        SamplingParams(ban_phrases=phrases)
    with pytest.raises(TypeError, match="ban_case: expected True or False, got 1"):
        SamplingParams(ban_case=1)


@pytest.mark.parametrize("method", ["rejection", "block"])
def test_methods_whose_noise_decides_more_than_a_token_are_refused(method):
    with pytest.raises(ValueError, match=rf"ban_phrases: expected none with drafts of method '{method}'"):
        generate(TARGET, "The sky is", banning(), draft=Speculation(DRAFT, method=method))


def test_the_beginnings_of_phrases():
    phrases = Phrases(["in all", "All in all", "straße"])
    assert phrases.found("we ALL IN ALL") == (3, "All in all")
    assert phrases.found("in ALL") == (0, "in all")
    assert phrases.found("all in") is None
    assert [phrases.begin(text) for text in ("", "x", "all in al", "xi", "in a", "b all i", "Straß")] == [
        0,
        1,
        0,
        1,
        0,
        2,
        0,
    ]
    assert dataclasses.replace(SamplingParams(ban_phrases="a")).ban_phrases == ("a",)
