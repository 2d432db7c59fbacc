"""Strategies on the command line: what Python gives, as text and JSON; bad combinations name both options."""

import json

import pytest

import warpdraw
from warpdraw import SamplingParams, beam_search, best_of, contrastive_search, generate

PROMPT = "The sky is"
SHORT = ("--max-tokens", "9")


@pytest.mark.parametrize(
    ("options", "function", "fields"),
    [
        (["--beams", "3", "--n", "2"], lambda *call: beam_search(*call, beams=3), {"n": 2}),
        (
            ["--beams", "2", "--length-penalty", "0.5", "--early-stopping", "never"],
            lambda *call: beam_search(*call, beams=2, length_penalty=0.5, early_stopping="never"),
            {},
        ),
        (
            ["--contrastive-alpha", "0.8", "--contrastive-k", "5"],
            lambda *call: contrastive_search(*call, alpha=0.8, k=5),
            {},
        ),
        (
            ["--best-of", "4", "--n", "2", "--seed", "7"],
            lambda *call: best_of(*call, samples=4),
            {"seed": 7, "n": 2},
        ),
        (
            ["--guidance", "2", "--negative-prompt", "The grass", "--seed", "7"],
            generate,
            {"guidance": 2.0, "negative_prompt": "The grass", "seed": 7},
        ),
        (
            ["--mirostat", "1", "--mirostat-tau", "0.7", "--mirostat-eta", "0.5", "--seed", "7"],
            generate,
            {"mirostat": 1, "mirostat_tau": 0.7, "mirostat_eta": 0.5, "seed": 7},
        ),
    ],
)
def test_the_program_gives_what_python_gives(run, options, function, fields):
    expected = function(warpdraw.load("tiny-target"), PROMPT, SamplingParams(max_tokens=9, **fields))
    code, out, _ = run("generate", PROMPT, *SHORT, *options, "--json")
    document = json.loads(out)
    assert code == 0
    for one, other in zip(document["completions"], expected, strict=True):
        assert (one["text"], one["sample"], one["score"]) == (other.text, other.sample, other.score)

    code, out, _ = run("generate", PROMPT, *SHORT, *options)
    assert code == 0
    assert all(PROMPT + completion.text in out for completion in expected)
    assert out.count("score ") == (len(expected) if len(expected) > 1 else 0)


def test_json_names_the_strategy(run):
    document = json.loads(run("generate", PROMPT, *SHORT, "--beams", "3", "--json")[1])
    assert document["strategy"] == {
        "name": "beam search",
        "beams": 3,
        "length_penalty": 1.0,
        "early_stopping": False,
    }


def test_a_seed_that_was_made_up_is_named(run):
    assert "repeat with --seed" in run("generate", PROMPT, *SHORT, "--best-of", "2")[2]
    assert run("generate", PROMPT, *SHORT, "--beams", "2")[2] == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--beams 4 --top-p 0.9", "--top-p: expected without --beams, which does not read it, got 0.9"),
        ("--beams 4 --seed 3", "--seed: expected without --beams, which does not read it, got 3"),
        ("--beams 4 --mirostat 2", "--mirostat: expected without --beams, which does not read it, got 2"),
        ("--beams 4 --draft ngram", "--draft: expected without --beams, got both"),
        ("--beams 4 --explain", "--explain: expected without --beams, got both"),
        ("--beams 4 --stream", "--stream: expected without --beams, got both"),
        ("--beams 4 --regex a+", "--json-schema, --regex, --grammar: expected without --beams, which does not read it"),
        ("--beams 4 --ban-phrase a", "--ban-phrase: expected without --beams, which does not read it, got ('a',)"),
        ("--best-of 2 --forbid a", "--forbid, --require, --refuse-personal-data: expected without --best-of, got both"),
        ("--beams 2 --n 3", "--n: expected at most beams = 2, got 3"),
        ("--beams 0", "--beams: expected an integer of at least 1, got 0"),
        ("--beams 2 --length-penalty nan", "--length-penalty: expected a number in [-1000, 1000], got nan"),
        ("--beams 2 --early-stopping maybe", "--early-stopping: expected one of no, yes, never, got 'maybe'"),
        ("--length-penalty 2", "--length-penalty: expected together with --beams, got no --beams"),
        ("--beams 3 --best-of 3", "--best-of: expected without --beams, got both"),
        ("--best-of 2 --n 3", "--n: expected at most samples = 2, got 3"),
        ("--best-of 2 --compare --draft ngram", "--compare: expected without --best-of, got both"),
        ("--contrastive-alpha 2", "--contrastive-alpha: expected a number in [0, 1], got 2.0"),
        ("--contrastive-alpha 0.5 --contrastive-k 0", "--contrastive-k: expected an integer of at least 1, got 0"),
        ("--contrastive-alpha 0.5 --temperature 2", "--temperature: expected without --contrastive-alpha"),
        ("--contrastive-k 4", "--contrastive-k: expected together with --contrastive-alpha"),
        ("--mirostat 2 --top-k 4", "top_k: expected 0 together with mirostat, which is the filter, got 4"),
        ("--mirostat 2 --draft ngram", "--mirostat: expected without --draft, got both"),
        ("--guidance 2 --draft ngram", "--guidance: expected without --draft, got both"),
        ("--negative-prompt x", "negative_prompt: expected together with a guidance other than 1, got guidance 1"),
        ("--guidance 2 --max-rows 1", "params[0].guidance: expected 1 where there is one slot"),
    ],
)
def test_bad_combinations_name_both(run, options, message):
    code, out, err = run("generate", PROMPT, *options.split())
    assert (code, out) == (2, "")
    assert err.startswith(f"warpdraw: error: {message}")


def test_help_has_a_panel(run):
    out = run("generate", "--help")[1]
    assert "Strategies" in out
    for option in ("--beams", "--best-of", "--contrastive-alpha", "--guidance", "--mirostat"):
        assert option in out
