"""Guards: required beginnings, texts that go round in circles, and checks of prompts and texts with what they do."""

import doctest
import json
import re
import shlex
from pathlib import Path

import pytest
from small_model import EOS, small_model
from test_guides import DRAFT, TARGET

from warpdraw import Repetition, SamplingParams, generate, guides, stream
from warpdraw.cli.main import main
from warpdraw.generation.params import sample_seed
from warpdraw.generation.prefix import token_bytes
from warpdraw.guards import Check, Finding, Guard, forbid, guarded, length, personal_data, require, scripts
from warpdraw.guards.personal import luhn, verhoeff

MODEL = small_model()


# Prefixes.


@pytest.mark.parametrize("draft", [None, DRAFT, "suffix"], ids=["", "model", "suffix"])
def test_texts_begin_with_one_of_their_prefixes(draft):
    prefixes = (" never quite été 😀", ", in my view", " blue")
    params = SamplingParams(prefix=prefixes, n=8, seed=2, temperature=2.0, max_tokens=40)
    samples = generate(TARGET, "The sky is", params, draft=draft)
    assert all(each.text.startswith(prefixes) for each in samples)
    assert samples == generate(TARGET, "The sky is", params, draft=draft)
    assert [each.text for each in samples] == [each.text for each in generate(TARGET, "The sky is", params)]


def test_a_prefix_is_written_in_any_tokens_and_binds_nothing_after_it():
    params = SamplingParams(prefix=" blue", n=60, seed=1, temperature=3.0, max_tokens=12)
    samples = generate(TARGET, "The sky is", params)
    assert len({tuple(each.token_ids[:2]) for each in samples}) > 5
    free = generate(TARGET, "The sky is", SamplingParams(seed=7))[0]
    assert generate(TARGET, "The sky is", SamplingParams(seed=7, prefix=" blue"))[0].text == free.text


def test_a_token_may_reach_over_the_end_of_a_prefix_and_no_text_ends_before_it():
    for seed in range(30):
        text = generate(MODEL, "a", SamplingParams(prefix="abc", seed=seed, max_tokens=6, temperature=5.0))[0].text
        assert text.startswith("abc")
    texts = [each.text for each in generate(TARGET, "The sky", SamplingParams(prefix=" i", n=10, seed=1))]
    assert any(text.startswith(" is") for text in texts)


def test_a_prefix_goes_with_a_guide_and_banned_phrases():
    guide = guides.regex("(yes|no|never)!")
    params = SamplingParams(guide=guide, prefix="n", ban_phrases=["NEV"], n=8, seed=1)
    assert {each.text for each in generate(MODEL, "a", params)} == {"no!"}
    ended = generate(MODEL, "a", SamplingParams(guide=guide, prefix="maybe", seed=1))[0]
    assert (ended.text, ended.finish_reason) == ("", "guard")
    assert [(each.guard, each.action) for each in ended.guarded] == [("prefix", "stop")]


def test_the_bytes_of_tokens():
    assert b"".join(token_bytes(MODEL.tokenizer, 257)[i] for i in MODEL.tokenizer.encode("é 😀\n")) == "é 😀\n".encode()
    assert token_bytes(MODEL.tokenizer, 257)[EOS] == b""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models

    from warpdraw.model.tokenizer import Tokenizer

    backend = Backend(models.BPE({"<0xC3>": 0, "▁a": 1, "b": 2}, [], byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.ByteFallback()])
    assert token_bytes(Tokenizer(backend), 4) == [b"\xc3", b" a", b"b", b""]


def test_a_prefix_that_no_tokens_spell_is_refused():
    from tokenizers import Tokenizer as Backend
    from tokenizers import models

    from warpdraw.model.tokenizer import Tokenizer
    from warpdraw.model.weights import Checkpoint

    backend = Backend(models.BPE({chr(97 + i): i for i in range(26)}, []))
    model = Checkpoint(MODEL.model, Tokenizer(backend), MODEL.config, (), MODEL.path)
    assert generate(model, [[1]], SamplingParams(prefix="abc", max_tokens=3, seed=1))[0].token_ids == [0, 1, 2]
    with pytest.raises(ValueError, match=r"params\[0\]\.prefix: expected texts that tokens .* can spell, got 'a1'"):
        generate(model, [[1]], SamplingParams(prefix=["abc", "a1"]))
    with pytest.raises(ValueError, match="prefix: expected strings of at least one character"):
        SamplingParams(prefix="")


# Repetition.


def test_a_text_that_goes_round_in_circles_ends():
    params = SamplingParams(temperature=0.0, max_tokens=400, ignore_eos=True)
    free = generate(TARGET, "The sky is", params)[0]
    for repetition in (Repetition(2, 20, 80), Repetition(3, 1, 60)):
        again = SamplingParams(temperature=0.0, max_tokens=400, ignore_eos=True, stop_on_repeat=repetition)
        for draft in (None, DRAFT):
            ended = generate(TARGET, "The sky is", again, draft=draft)[0]
            [action] = ended.guarded
            assert (ended.finish_reason, ended.error, action.guard) == ("guard", None, "stop_on_repeat")
            size = int(re.search(r"the last (\d+) tokens came", action.detail).group(1))
            assert repetition.shortest <= size <= repetition.longest
            ids = ended.token_ids
            assert ids == free.token_ids[: len(ids)]
            assert ids[-size:] * repetition.count == ids[-size * repetition.count :]
            assert repetition.found(ids[:-1]) is None
            assert free.text.startswith(ended.text)


def test_patterns_are_found_by_their_definition():
    def by_definition(repetition, tokens):
        for size in range(repetition.shortest, repetition.longest + 1):
            end = tokens[-size * repetition.count :]
            if len(end) == size * repetition.count and end == end[:size] * repetition.count:
                return size
        return None

    for count in (2, 3, 4):
        for shortest in (1, 2, 4):
            repetition = Repetition(count, shortest, 6)
            for number in range(0, 3**9, 5):
                tokens = [number // 3**place % 3 for place in range(9)]
                assert repetition.found(tokens) == by_definition(repetition, tokens)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"count": 1}, "count: expected an integer in [2, 2147483647], got 1"),
        ({"shortest": 0}, "shortest: expected an integer in [1, 512], got 0"),
        ({"shortest": 9, "longest": 8}, "longest: expected an integer in [9, 512], got 8"),
        ({"count": 2.5}, "count: expected an integer in [2, 2147483647], got 2.5"),
    ],
)
def test_repetitions_that_cannot_be_meant_are_refused(fields, problem):
    with pytest.raises((TypeError, ValueError), match=re.escape(problem)):
        Repetition(**fields)
    with pytest.raises(TypeError, match="stop_on_repeat: expected a Repetition, or None, got 3"):
        SamplingParams(stop_on_repeat=3)


# Checks.


@pytest.mark.parametrize(
    ("check", "text", "found"),
    [
        (length(most=3), "abcd", ["4 characters, more than 3"]),
        (length(least=3, unit="words"), "a b", ["2 words, fewer than 3"]),
        (length(most=2, unit="tokens", model=TARGET), "The sky is blue", ["4 tokens, more than 2"]),
        (length(most=2, unit="words"), "a b", []),
        (scripts("Latin"), "Çédille, 12 € !", []),
        (scripts("latin", "Devanagari"), "नमस्ते hello", []),
        (scripts("Latin"), "\u0928a\u092e\u044f\u044f", ["Devanagari", "Devanagari", "Cyrillic"]),
        (scripts("Han", "Hiragana"), "漢字とは", []),
        (forbid("(?i)BLUE"), "a blue, Blue sky", ["'(?i)BLUE'", "'(?i)BLUE'"]),
        (require(r"\d$"), "room 1", []),
        (require(r"\d$"), "room", ["nothing that '\\\\d$' matches"]),
    ],
)
def test_checks_find_what_they_name(check, text, found):
    assert [each.what for each in check.find(text)] == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("mail a.b+c@mail.example.org now", {"email": "a.b+c@mail.example.org"}),
        ("a@b, @home, x@y", {}),
        ("pay 4111 1111 1111 1111 now", {"card": "4111 1111 1111 1111"}),
        ("378282246310005", {"card": "378282246310005"}),
        ("GB82 WEST 1234 5698 7654 32 IS MINE", {"iban": "GB82 WEST 1234 5698 7654 32"}),
        ("DE89370400440532013000", {"iban": "DE89370400440532013000"}),
        ("uid 2341 2341 2346", {"aadhaar": "2341 2341 2346"}),
        ("call +91 98765 43210.", {"phone": "+91 98765 43210"}),
        ("(020) 7946 0958", {"phone": "(020) 7946 0958"}),
        ("on 2026-11-23 12:30, version 1.2.3.4, 3.14159265, 12 345", {}),
    ],
)
def test_personal_data_is_what_has_its_form_and_its_check_digits(text, found):
    assert {each.what: text[each.begin : each.end] for each in personal_data().find(text)} == found


def test_a_wrong_check_digit_is_none_of_these_numbers():
    for text in ("4111 1111 1111 1112", "GB82 WEST 1234 5698 7654 33", "2341 2341 2347"):
        assert personal_data("card", "iban", "aadhaar").find(text) == []
    # Each number has exactly one check digit, and both find every single wrong digit and Verhoeff every swap.
    for number in ("41111111111111", "9876543210"):
        assert sum(luhn(f"{number}{digit}") for digit in range(10)) == 1
        [right] = [f"{number}{digit}" for digit in range(10) if verhoeff(f"{number}{digit}")]
        wrong = [right[:at] + str(digit) + right[at + 1 :] for at in range(len(right)) for digit in range(10)]
        assert not any(verhoeff(each) for each in wrong if each != right)
        swapped = [right[:at] + right[at + 1] + right[at] + right[at + 2 :] for at in range(len(right) - 1)]
        assert not any(verhoeff(each) for each in swapped if each != right)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: length(unit="lines"), "unit: expected one of characters, words, tokens, got 'lines'"),
        (lambda: length(unit="tokens"), "model: expected one where the unit is tokens"),
        (lambda: length(most=1, least=2), "most: expected at least least = 2, got 1"),
        (lambda: scripts(), "scripts: expected at least one name"),
        (lambda: forbid("(a"), "forbid: expected a regular expression, got '(a'"),
        (lambda: require(3), "require: expected a regular expression, got 3"),
        (lambda: personal_data("name"), "personal_data: expected some of email, iban, card, aadhaar, phone"),
        (lambda: Guard("x"), "check: expected a Check of warpdraw.guards, got 'x'"),
        (lambda: Guard(length(9), on="all"), "on: expected one of output, prompt, both, got 'all'"),
        (lambda: Guard(length(9), action="hide"), "action: expected one of stop, replace, retry, got 'hide'"),
        (lambda: Guard(length(9), on="prompt", action="retry"), "action: expected stop or replace for a prompt"),
        (lambda: Guard(length(9), tries=0), "tries: expected an integer of at least 1, got 0"),
        (lambda: Check("own", lambda text: ["bad"]).find(""), "own: expected a function that returns findings"),
        (lambda: guarded(TARGET, "a", guards=[length(9)]), "guards: expected guards of warpdraw.guards"),
    ],
)
def test_checks_and_guards_that_cannot_be_meant_are_refused(make, problem):
    with pytest.raises((TypeError, ValueError), match=re.escape(problem)):
        make()


# What guards do.

PARAMS = SamplingParams(seed=7, max_tokens=30, logprobs=0)


def test_a_stopped_text_is_not_given_out():
    [completion] = guarded(TARGET, "The sky is", PARAMS, guards=[Guard(forbid("blue"))])
    assert (completion.text, completion.token_ids, completion.logprobs) == ("", [], [])
    assert (completion.finish_reason, completion.error) == ("guard", None)
    assert [(each.guard, each.action, each.detail) for each in completion.guarded] == [
        ("forbid", "stop", "output: 'blue' at 1")
    ]


def test_findings_are_replaced():
    guards = [Guard(forbid("blue|warm"), action="replace", replacement="*"), Guard(length(most=9, unit="words"))]
    [completion] = guarded(TARGET, "The sky is", PARAMS, guards=guards)
    assert (completion.text, completion.token_ids) == (" * and the air is *.", [])
    assert [each.action for each in completion.guarded] == ["replace", "replace"]
    # What has no place cannot be replaced.
    [completion] = guarded(TARGET, "The sky is", PARAMS, guards=[Guard(require("grey"), action="replace")])
    assert (completion.text, completion.finish_reason) == ("", "guard")


def test_a_text_is_drawn_again_with_a_seed_that_repeats():
    guards = [Guard(forbid("blue"), action="retry", tries=9)]
    params = SamplingParams(seed=7, n=4, max_tokens=30)
    several = guarded(TARGET, "The sky is", params, guards=guards)
    plain = generate(TARGET, "The sky is", params)
    assert [each.sample for each in several] == [0, 1, 2, 3]
    assert any("blue" in each.text for each in plain)
    for completion, before in zip(several, plain, strict=True):
        tries = len(completion.guarded)
        assert "blue" not in completion.text
        assert {each.action for each in completion.guarded} <= {"retry"}
        assert completion.seed == (sample_seed(before.seed, tries) if tries else before.seed)
        [again] = generate(TARGET, "The sky is", SamplingParams(seed=completion.seed, max_tokens=30))
        assert again.text == completion.text
    assert several.throughput.completion_tokens > sum(each.completion_tokens for each in plain)


def test_a_text_is_drawn_again_only_so_often():
    [completion] = guarded(TARGET, "The sky is", PARAMS, guards=[Guard(length(most=0), action="retry", tries=2)])
    assert [each.action for each in completion.guarded] == ["retry", "retry", "stop"]
    assert (completion.text, completion.finish_reason) == ("", "guard")


def test_prompts_are_refused_or_replaced_before_they_are_read():
    prompts = ["Write to a@b.org: the sky is", "The sky is"]
    guards = [Guard(personal_data(), on="prompt")]
    refused, read = guarded(TARGET, prompts, SamplingParams(seed=7, n=1), guards=guards)
    assert (refused.finish_reason, refused.text, refused.index, refused.prompt_tokens) == ("guard", "", 0, 0)
    assert refused.guarded[0].detail == "prompt: email at 9"
    assert (read.text, read.index) == (generate(TARGET, "The sky is", SamplingParams(seed=7))[0].text, 1)
    [replaced] = guarded(TARGET, prompts[0], PARAMS, guards=[Guard(personal_data(), on="both", action="replace")])
    assert replaced.prompt == "Write to [email]: the sky is"
    assert replaced.text == generate(TARGET, replaced.prompt, PARAMS)[0].text
    ids = TARGET.tokenizer.encode("The sky is")
    [as_ids] = guarded(TARGET, [ids], PARAMS, guards=[Guard(forbid("grass"), on="both")])
    assert as_ids.prompt == ids


def test_guards_of_ones_own_and_drafts():
    shouting = Check("calm", lambda text: [Finding("an exclamation mark", text.index("!"))] if "!" in text else [])
    [completion] = guarded(TARGET, "The sky is", PARAMS, guards=[Guard(shouting)], draft=DRAFT)
    assert completion.text == generate(TARGET, "The sky is", PARAMS)[0].text
    assert completion.guarded == ()


# On the command line.


def run(capsys, *words):
    code = main(["generate", "The sky is", "--seed", "7", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_line_says_what_guard_rails_did(capsys):
    code, out, err = run(capsys, "--ban-phrase", "BLUE", "--prefix", " clear", "--prefix", " grey")
    assert code == 0
    assert "blue" not in out.lower()
    assert out.startswith(("The sky is clear", "The sky is grey"))
    code, out, err = run(capsys, "--forbid", "blue", "--retry", "9")
    assert (code, "blue" in out) == (0, False)
    assert "prompt 1, sample 1: forbid: retry (output: 'blue' at 1" in err
    code, out, err = run(capsys, "--ban-phrase", "blue and", "--json")
    [completion] = json.loads(out)["completions"]
    assert completion["guarded"][0]["detail"] == "blue and"
    assert "ban_phrases: rewind (blue and)" in err
    code, out, err = run(capsys, "--temperature", "0", "--max-tokens", "200", "--stop-on-repeat", "2")
    assert (code, "stop_on_repeat: stop (the last" in err) == (0, True)
    code, out, err = run(capsys, "--require", "zebra", "--refuse-personal-data")
    assert (code, out) == (0, "The sky is\n")


def test_the_command_line_follows_guides(capsys, tmp_path):
    schema = {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 2, "maxItems": 3}
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(schema), encoding="utf-8")
    for given in (json.dumps({"type": "object", "maxProperties": 0}), str(path)):
        code, out, _ = run(capsys, "--json-schema", given, "--stream")
        value = json.loads(out.removeprefix("The sky is"))
        assert code == 0
        assert value == {} or set(value) <= {"a", "b"}
    path.write_text('start: "x" NUMBER\nNUMBER: /[0-9]{3}/', encoding="utf-8")
    assert re.fullmatch(r"The sky isx\d{3}\n", run(capsys, "--grammar", str(path))[1])
    assert re.fullmatch(r"The sky is (grey|red)\n", run(capsys, "--regex", " (grey|red)")[1])


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--json-schema", '{"type": "integer", "minimum": 2, "maximum": 1}'], 2, "minimum (2) is greater than"),
        (["--json-schema", "{"], 2, "json_schema: expected a JSON schema, got text that is no JSON"),
        (["--json-schema", "missing.json"], 2, "missing.json"),
        (["--regex", "(a"], 2, "regex: expected a regular expression that some text matches"),
        (["--regex", "a", "--grammar", "b"], 2, "--grammar: expected at most one of"),
        (["--ban-phrase", ""], 2, "ban_phrases: expected strings of at least one character"),
        (["--stop-on-repeat", "1"], 2, "count: expected an integer in [2, 2147483647], got 1"),
        (["--retry", "2"], 2, "--retry: expected together with"),
        (["--forbid", "(a"], 2, "forbid: expected a regular expression"),
        (["--forbid", "a", "--stream"], 2, "expected without --stream"),
        (["--regex", "(red|blue)", "--ban-phrase", "RED", "--ban-phrase", "blue"], 1, "banned phrases begin in all"),
    ],
)
def test_the_command_line_refuses_what_cannot_be(capsys, words, code, says):
    got, _, err = run(capsys, *words)
    assert got == code
    assert says in err.splitlines()[-1]


def test_a_stream_of_a_refused_request_is_that_of_no_request():
    with pytest.raises(ValueError, match="nothing can be its first token"):
        stream(TARGET, "a", SamplingParams(guide=guides.regex(r"[^\s\S]")))


def test_the_examples_of_the_guide_print_what_it_says(capsys):
    guide = (Path(__file__).parent.parent / "docs" / "guards.md").read_text(encoding="utf-8")
    session = "\n".join(re.findall(r"^```python\n(>>>.*?)^```$", guide, flags=re.MULTILINE | re.DOTALL))
    test, output = doctest.DocTestParser().get_doctest(session, {}, "guards.md", None, None), []
    assert doctest.DocTestRunner(verbose=False).run(test, out=output.append).failed == 0, "".join(output)
    [(command, printed)] = re.findall(
        r"^```console\n\$ warpdraw (.*?)\n(.*?)^```$", guide, flags=re.MULTILINE | re.DOTALL
    )
    capsys.readouterr()
    assert main(shlex.split(command)) == 0
    assert capsys.readouterr().out == printed
