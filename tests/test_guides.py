"""Guides: every text is what its guide says, with drafts as without, and a guide that no text can follow is refused."""

import json
import re

import pytest
import torch
from small_model import EOS, small_model

import warpdraw
from warpdraw import SamplingParams, Speculation, generate, guides, load, stream
from warpdraw.guides.matcher import Matchers
from warpdraw.model.weights import Checkpoint

MODEL = small_model()
TARGET, DRAFT = load("tiny-target"), load("tiny-draft")

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
        "likes": {"type": "array", "items": {"enum": ["tea", "rain", "cats"]}, "minItems": 1, "maxItems": 3},
        "cold": {"type": "boolean"},
    },
    "required": ["name", "age", "likes", "cold"],
    "additionalProperties": False,
}


def is_person(text):
    value = json.loads(text)
    assert list(value) == ["name", "age", "likes", "cold"]
    assert isinstance(value["name"], str)
    assert len(value["name"]) <= 8
    assert type(value["age"]) is int
    assert 0 <= value["age"] <= 99
    assert 1 <= len(value["likes"]) <= 3
    assert set(value["likes"]) <= {"tea", "rain", "cats"}
    assert type(value["cold"]) is bool
    return True


def guided(guide, **fields):
    return SamplingParams(**{"guide": guide, "max_tokens": 120, "seed": 3, **fields})


def test_a_thousand_texts_satisfy_their_schema():
    guide = guides.json_schema(PERSON)
    texts = set()
    for seed in range(4):
        params = guided(guide, seed=seed, n=250, temperature=1.5 if seed % 2 else 1.0)
        for completion in generate(TARGET, "The sky is", params, max_rows=125):
            assert completion.finish_reason == "stop"
            assert is_person(completion.text)
            texts.add(completion.text)
    assert len(texts) > 500


@pytest.mark.parametrize(
    "draft", [DRAFT, "suffix", "ngram", Speculation(DRAFT, 6, adaptive=False)], ids=["model", "suffix", "ngram", "six"]
)
def test_a_guided_text_is_the_same_with_drafts(draft):
    params = guided(guides.json_schema(PERSON), n=4, presence_penalty=0.3)
    prompts = ["The sky is", "My name is"]
    plain, drafted = generate(TARGET, prompts, params), generate(TARGET, prompts, params, draft=draft)
    assert [each.token_ids for each in drafted] == [each.token_ids for each in plain]
    assert all(is_person(each.text) for each in drafted)
    assert sum(drafted.throughput.speculation.drafted) > 0


@pytest.mark.parametrize("method", ["rejection", "block"])
def test_texts_that_are_drafted_otherwise_satisfy_their_schema(method):
    params = guided(guides.json_schema(PERSON), n=20)
    for completion in generate(TARGET, "The sky is", params, draft=Speculation(DRAFT, 4, method)):
        assert is_person(completion.text)


def test_the_first_two_thirds_of_a_step_may_be_drafts_that_the_guide_ends():
    # Every draft is proposed inside a text that may end at each of its places.
    guide = guides.regex("(ab){1,9}")
    plain = generate(MODEL, "x", guided(guide, n=8))
    drafted = generate(MODEL, "x", guided(guide, n=8), draft=Speculation(MODEL, 8, adaptive=False))
    assert [each.token_ids for each in plain] == [each.token_ids for each in drafted]
    assert all(re.fullmatch("(ab){1,9}", each.text) for each in plain)
    assert len({each.text for each in plain}) > 2


def test_a_regular_expression_is_matched_from_its_first_to_its_last_character():
    pattern = r"(Mon|Tues)day, [0-9]{1,2} (May|June)"
    for completion in generate(MODEL, ["a", "b"], guided(guides.regex(pattern), n=10)):
        assert re.fullmatch(pattern, completion.text)
        assert (completion.finish_reason, completion.stop) == ("stop", EOS)


def test_a_grammar_is_derived():
    guide = guides.grammar('start: sum\nsum: NUMBER ("+" NUMBER){1,4} "="\nNUMBER: /[1-9][0-9]{0,2}/')
    for completion in generate(MODEL, "a", guided(guide, n=10)):
        assert re.fullmatch(r"[1-9][0-9]{0,2}(\+[1-9][0-9]{0,2}){1,4}=", completion.text)


def test_characters_of_several_tokens_are_whole():
    for completion in generate(MODEL, "a", guided(guides.regex("[à-ü€😀]{5}"), n=5)):
        assert len(completion.text) == 5
        assert re.fullmatch("[à-ü€😀]{5}", completion.text)


def test_blanks_between_the_parts_of_a_json_text_are_as_the_guide_says():
    tight = guides.json_schema(PERSON, whitespace="")
    for completion in generate(TARGET, "The sky is", guided(tight, n=5)):
        is_person(completion.text)
        assert json.dumps(json.loads(completion.text), separators=(",", ":"), ensure_ascii=False) == completion.text


@pytest.mark.parametrize("eos_ids", [(), (EOS,)])
def test_a_text_that_is_complete_ends_where_no_end_can_be_drawn(eos_ids):
    model = Checkpoint(MODEL.model, MODEL.tokenizer, MODEL.config, eos_ids, MODEL.path)
    for params in (guided(guides.regex("abc")), guided(guides.regex("abc"), ignore_eos=True)):
        completion = generate(model, "a", params)[0]
        ended = bool(eos_ids) and not params.ignore_eos
        assert (completion.text, completion.finish_reason) == ("abc", "stop")
        assert completion.stop == (EOS if ended else None)
        assert completion.completion_tokens == 3 + ended


def test_a_text_that_could_end_goes_on_where_its_ends_are_ignored():
    completion = generate(MODEL, "a", guided(guides.regex("a+"), ignore_eos=True, max_tokens=30))[0]
    assert (completion.text, completion.finish_reason) == ("a" * 30, "length")


def test_a_complete_text_does_not_wait_for_its_least_number_of_tokens():
    completion = generate(MODEL, "a", guided(guides.regex("abc"), min_tokens=9))[0]
    assert (completion.text, completion.finish_reason) == ("abc", "stop")


def test_stop_ids_end_a_text_only_where_it_is_complete():
    end = MODEL.tokenizer.encode("!")[0]
    completion = generate(MODEL, "a", guided(guides.regex("ab+"), stop_ids=[end], ignore_eos=True, n=20))
    assert {each.stop for each in completion} <= {end, None}
    assert all(re.fullmatch("ab+", each.text) for each in completion)
    assert any(each.stop == end for each in completion)


def test_a_text_that_is_cut_says_so():
    completion = generate(MODEL, "a", guided(guides.regex("[ab]{50}"), max_tokens=10))[0]
    assert completion.finish_reason == "length"
    assert re.fullmatch("[ab]{10}", completion.text)


def test_a_guide_and_a_bitmask_allow_what_both_allow():
    never_a = torch.full([9], -1, dtype=torch.int32)
    token = MODEL.tokenizer.encode("a")[0]
    never_a[token // 32] &= ~(1 << token % 32)
    for completion in generate(MODEL, "x", guided(guides.regex("[abc]{6}"), bitmask=lambda ids: never_a, n=9)):
        assert re.fullmatch("[bc]{6}", completion.text)
    for completion in generate(MODEL, "x", guided(guides.regex("[abc]{6}"), banned_ids=["b"], n=9)):
        assert re.fullmatch("[ac]{6}", completion.text)


def test_what_leaves_nothing_to_say_ends_the_text_by_its_guard():
    free = SamplingParams(seed=3, max_tokens=5, ignore_eos=True)
    good = generate(MODEL, "x", free)[0]
    ended, other = generate(MODEL, ["x", "x"], [guided(guides.regex("abc"), banned_ids=["b"]), free])
    assert (ended.text, ended.finish_reason) == ("a", "guard")
    assert ended.error == "no token can be drawn at position 2: its parameters leave no token that has a logit"
    assert [(each.guard, each.action, each.position) for each in ended.guarded] == [("guide", "stop", 1)]
    assert other.text == good.text


def test_a_guided_row_does_not_touch_those_beside_it():
    free = SamplingParams(seed=9, max_tokens=30)
    alone = generate(TARGET, "The sky is", free)[0]
    guide = guides.json_schema(PERSON)
    mixed = generate(TARGET, ["The sky is", "The sky is", "a"], [guided(guide), free, guided(guide, seed=5)])
    assert mixed[1] == alone.__class__(**{**alone.__dict__, "index": 1})
    assert is_person(mixed[0].text)
    assert is_person(mixed[2].text)
    assert generate(TARGET, "a", guided(guide, seed=5))[0].text == mixed[2].text


def test_a_guided_text_streams():
    events = list(stream(TARGET, "The sky is", guided(guides.json_schema(PERSON)), draft=DRAFT))
    assert "".join(event.text for event in events) == events[-1].completion.text


def test_a_matcher_goes_from_any_beginning_to_any_other():
    chosen = [
        TARGET.tokenizer.encode(text)[1:] for text in ('{"name":"a b"', '{"name": "rain","age":3', '{ "name"', "")
    ]
    matchers = Matchers(TARGET)
    guide = guides.json_schema(PERSON)
    walked = matchers.matcher(guide, TARGET.eos_ids)
    for tokens in [*chosen, *reversed(chosen), chosen[1], chosen[1][:3], chosen[0]]:
        fresh = matchers.matcher(guide, TARGET.eos_ids)
        assert walked.words(tokens).tolist() == fresh.words(tokens).tolist()
        assert not walked.problem


def test_a_head_wider_than_the_tokenizer_draws_none_of_what_is_beyond():
    wide = small_model()
    config = wide.config.__class__(**{**wide.config.__dict__, "vocab_size": 300})
    torch.manual_seed(1)
    model = Checkpoint(wide.model.__class__(config).eval(), wide.tokenizer, config, (EOS,), wide.path)
    for completion in generate(model, "a", guided(guides.regex("[ab]{3}"), n=5, temperature=3.0)):
        assert re.fullmatch("[ab]{3}", completion.text)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: guides.json_schema({"type": "integer", "minimum": 5, "maximum": 3}), "minimum (5) is greater than"),
        (lambda: guides.json_schema({"type": "string", "minLength": 4, "maxLength": 2}), "minLength (4) is greater"),
        (
            lambda: guides.json_schema({"type": "object", "properties": {"a": False}, "required": ["a"]}),
            "required property 'a' is unsatisfiable",
        ),
        (lambda: guides.json_schema({"type": "strange"}), "Invalid type: strange"),
        (lambda: guides.json_schema("{"), "text that is no JSON"),
        (lambda: guides.json_schema({"const": float("nan")}), "expected what JSON can say"),
        (lambda: guides.regex("(a"), "unclosed group"),
        (lambda: guides.regex("a(?=b)"), "look-around"),
        (lambda: guides.grammar("start: missing"), 'unknown name: "missing"'),
        (lambda: guides.grammar(""), "grammar: expected a grammar"),
    ],
)
def test_a_guide_that_no_text_can_follow_is_refused_when_it_is_made(make, says):
    with pytest.raises(ValueError, match=re.escape(says)) as raised:
        make()
    assert "\n" not in str(raised.value)


# Made by the tests and not before: without llguidance the tests are collected all the same, and those for GPUs run.
@pytest.mark.parametrize(
    "make", [lambda: guides.regex(r"[^\s\S]"), lambda: guides.grammar('start: start "a"')], ids=["regex", "rule"]
)
def test_a_contradiction_that_shows_only_with_tokens_is_refused_before_anything_is_drawn(make):
    with pytest.raises(ValueError, match=r"params\[1\]\.guide: expected .* nothing can be its first token"):
        generate(MODEL, ["a", "b"], [SamplingParams(), guided(make())])


def test_what_is_no_guide_is_refused():
    with pytest.raises(TypeError, match=r"guide: expected a guide of warpdraw\.guides, or None, got '\[ab\]'"):
        SamplingParams(guide="[ab]")
    with pytest.raises(TypeError, match="json_schema: expected a dictionary, True or JSON text of one, got 3"):
        guides.json_schema(3)
    with pytest.raises(TypeError, match="text: expected text, got None"):
        guides.regex(None)
    with pytest.raises(ValueError, match=r"params\.guide: expected None, because a draw follows no text"):
        warpdraw.Sampler(300, 1).add(guided(guides.regex("a")), prompt=[1])


def test_without_its_library_a_guide_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "llguidance", None)
    with pytest.raises(ValueError, match=r"pip install 'warpdraw\[guide\]'"):
        guides.regex("a")
