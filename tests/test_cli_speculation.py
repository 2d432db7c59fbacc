"""`warpdraw generate --draft`: the same text, what is said of the drafts, one line and exit code 2 for bad input."""

import json
import re

import pytest
import torch
from small_model import small_model

from warpdraw import load
from warpdraw.cli import speculation as module
from warpdraw.cli.main import main
from warpdraw.model import weights

EXAMPLE = ["generate", "The sky is", "--seed", "7"]


@pytest.fixture
def run(capsys):
    """Runs the program in this process; returns exit code, standard output and standard error."""

    def call(*arguments):
        threads = torch.get_num_threads()
        try:
            code = main([*arguments, "--threads", "1"] if "--threads" not in arguments else [*arguments])
        finally:
            torch.set_num_threads(threads)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.mark.parametrize("draft", ["tiny-draft", "tiny-target", "ngram", "suffix"])
def test_the_text_is_the_one_without_a_draft(run, draft):
    usual = run(*EXAMPLE)
    assert usual == (0, "The sky is blue and the air is warm.\n", "")
    assert run(*EXAMPLE, "--draft", draft) == usual
    assert run(*EXAMPLE, "--draft", draft, "--stream") == usual
    more = ["--draft-tokens", "7", "--draft-ngram", "2", "--fixed-draft-tokens", "--draft-method", "point_mass"]
    assert run(*EXAMPLE, "--draft", draft, *more) == usual
    several = ["generate", "The sky is", "My cat", "--n", "2", "--seed", "3", "--temperature", "0.8", "--max-rows", "3"]
    assert run(*several, "--draft", draft) == run(*several)


def test_a_folder_can_draft(run, tmp_path):
    draft = load("tiny-draft")
    weights.save(tmp_path, draft.model, draft.tokenizer, eos_ids=draft.eos_ids)
    assert run(*EXAMPLE, "--draft", str(tmp_path)) == run(*EXAMPLE)


@pytest.mark.parametrize("method", ["rejection", "block"])
def test_other_methods_repeat_themselves(run, method):
    arguments = [*EXAMPLE, "--draft", "tiny-draft", "--draft-method", method, "--max-tokens", "12"]
    code, out, _ = run(*arguments)
    assert code == 0
    assert run(*arguments)[1] == out


def test_stats_say_what_became_of_the_drafts(run):
    arguments = [*EXAMPLE, "--draft", "tiny-draft", "--draft-tokens", "3", "--fixed-draft-tokens", "--max-tokens", "40"]
    _, out, err = run(*arguments, "--ignore-eos", "--stats")
    first, second = err.splitlines()
    assert re.fullmatch(r"drafts: \d+ of \d+ accepted \(\d+ %, by place \d+ \d+ \d+ %\)", first)
    assert re.fullmatch(r"steps: \d+, \d\.\d\d tokens each; draft .* ms, model .* ms, verify .* ms", second)
    assert run(*arguments, "--ignore-eos") == (0, out, "")


def test_json_has_the_speculation(run):
    arguments = [*EXAMPLE, "--draft", "suffix", "--draft-tokens", "5", "--max-tokens", "40", "--ignore-eos", "--json"]
    document = json.loads(run(*arguments)[1])
    found = document["speculation"]
    assert (found["draft"], found["method"], found["adaptive"], found["draft_tokens"]) == ("suffix", "coupled", True, 5)
    assert found["steps"] + sum(found["accepted"]) >= found["tokens"] == 39
    assert len(found["acceptance_by_place"]) == len(found["drafted"]) == len(found["accepted"]) <= 5
    assert found["tokens_per_step"] == found["tokens"] / found["steps"]
    [completion] = document["completions"]
    assert completion["speculation"]["accepted"] == found["accepted"]
    assert "compared" not in found
    assert "speculation" not in json.loads(run(*EXAMPLE, "--json")[1])


def test_compare_runs_both_and_says_how_they_differ(run, monkeypatch):
    monkeypatch.setattr(module, "REPETITIONS", 1)
    arguments = [*EXAMPLE, "--draft", "tiny-draft", "--compare"]
    code, out, err = run(*arguments)
    assert (code, out) == run(*EXAMPLE)[:2]
    assert re.search(r"compared: the same text; .* ms, without drafts .* ms: \d+\.\d\d times as fast", err)
    found = json.loads(run(*arguments, "--json")[1])["speculation"]["compared"]
    assert found["same_text"]
    assert found["seconds"] > 0
    # Other methods follow the distribution, not the text.
    code, _, err = run(*arguments, "--draft-method", "rejection", "--max-tokens", "30", "--ignore-eos")
    assert code == 0
    assert "compared: another text" in err


def test_compare_fails_where_the_text_is_another(run, monkeypatch):
    monkeypatch.setattr(module, "REPETITIONS", 1)
    generate = module.generate
    monkeypatch.setattr(
        module,
        "generate",
        lambda model, prompts, *given, draft, **options: generate(
            model, prompts if draft else ["My cat"], *given, draft=draft, **options
        ),
    )
    code, _, err = run(*EXAMPLE, "--draft", "ngram", "--compare")
    assert code == 1
    last = "warpdraw: error: --compare: the text of prompt 1, sample 1 is not the one without drafts"
    assert err.splitlines()[-1] == last


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--draft", "nothing"], "--draft: nothing: no such checkpoint"),
        (["--draft", "ngram", "--draft-tokens", "0"], "--draft-tokens: expected an integer in [1, 64], got 0"),
        (["--draft", "ngram", "--draft-tokens", "x"], "'--draft-tokens': expected an integer, got 'x'"),
        (["--draft", "ngram", "--draft-ngram", "65"], "--draft-ngram: expected an integer in [1, 64], got 65"),
        (["--draft", "tiny-draft", "--draft-method", "tree"], "--draft-method: expected one of coupled, point_mass"),
        (["--draft", "suffix", "--draft-method", "block"], "without a draft model, got 'block'"),
        (["--draft", "tiny-draft", "--draft-method", "greedy"], "temperature: expected 0 with drafts of method"),
        (["--compare"], "--compare: expected together with --draft, got no --draft"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, arguments, message):
    code, out, err = run(*EXAMPLE, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("warpdraw: error: ")
    assert err.count("\n") == 1


def test_a_model_of_other_tokens_is_refused(run, tmp_path):
    small = small_model()
    weights.save(tmp_path, small.model, small.tokenizer, eos_ids=small.eos_ids)
    code, _, err = run(*EXAMPLE, "--draft", str(tmp_path))
    assert code == 2
    assert err == "warpdraw: error: draft: expected a model with the vocabulary of 1264 tokens, got 257\n"


def test_help_shows_the_options_and_examples(capsys):
    assert main(["generate", "--help"]) == 0
    out = capsys.readouterr().out
    for name in ("--draft", "--draft-tokens", "--draft-method", "--fixed-draft-tokens", "--compare", "--stats"):
        assert name in out
    assert "--draft tiny-draft" in " ".join(out.split())
