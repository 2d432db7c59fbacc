"""The command line: what it prints where, in which form, and one line with exit code 2 for bad input."""

import dataclasses
import inspect
import io
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from small_model import small_model

import warpdraw
from warpdraw.cli.generate import generate as command
from warpdraw.cli.main import main
from warpdraw.generation.loop import generate
from warpdraw.generation.params import SamplingParams
from warpdraw.model import weights

EXAMPLE = ["generate", "The sky is", "--seed", "7", "--max-tokens", "12", "--ignore-eos"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    small = small_model()
    folder = tmp_path_factory.mktemp("checkpoint")
    weights.save(folder, small.model, small.tokenizer, eos_ids=small.eos_ids)
    return str(folder)


@pytest.fixture
def run(capsys, checkpoint):
    """Runs the program in this process; returns exit code, standard output and standard error."""

    def call(*arguments):
        with_model = ["--model", checkpoint] if arguments[0] == "generate" and "--model" not in arguments else []
        threads = torch.get_num_threads()
        try:
            code = main([*arguments, *with_model])
        finally:
            torch.set_num_threads(threads)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_generate_prints_prompt_and_text_and_nothing_else(run, checkpoint):
    code, out, err = run(*EXAMPLE)
    expected = generate(weights.load(checkpoint), "The sky is", SamplingParams(seed=7, max_tokens=12, ignore_eos=True))
    assert (code, out, err) == (0, f"The sky is{expected[0].text}\n", "")
    assert run(*EXAMPLE)[1] == out


def test_dtype_is_that_of_the_weights(run, checkpoint):
    params = SamplingParams(seed=7, max_tokens=12, ignore_eos=True)
    halves = generate(weights.load(checkpoint, torch.bfloat16), "The sky is", params)
    code, out, _ = run(*EXAMPLE, "--dtype", "bfloat16")
    assert (code, out) == (0, f"The sky is{halves[0].text}\n")
    assert run(*EXAMPLE, "--dtype", "auto") == run(*EXAMPLE, "--dtype", "float32") == run(*EXAMPLE)
    assert run(*EXAMPLE, "--dtype", "float16", "--draft", checkpoint, "--draft-tokens", "2")[0] == 0


def test_streaming_prints_the_same_bytes(run):
    for more in ([], ["Two", "--n", "3"], ["--explain"]):
        assert run(*EXAMPLE, *more, "--stream") == run(*EXAMPLE, *more)


def test_without_a_seed_one_is_printed_and_repeats_the_text(run):
    arguments = ["generate", "a", "--max-tokens", "8"]
    _, out, err = run(*arguments)
    assert err.startswith("seed ")
    code, again, err_again = run(*arguments, "--seed", err.split()[1])
    assert (code, again, err_again) == (0, out, "")


def test_several_samples_are_told_apart(run):
    code, out, _ = run("generate", "a", "b", "--n", "2", "--seed", "1", "--max-tokens", "3", "--ignore-eos")
    heads = [line for line in out.splitlines() if line.startswith("[prompt")]
    assert code == 0
    assert heads == [f"[prompt {i}, sample {j}]" for i in (1, 2) for j in (1, 2)]


def test_json_says_everything_and_repeats(run):
    arguments = ["generate", "a", "b", "--n", "2", "--max-tokens", "6", "--logprobs", "2", "--json"]
    _, out, _ = run(*arguments)
    document = json.loads(out)
    assert [(each["index"], each["sample"]) for each in document["completions"]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for each in document["completions"]:
        assert each["completion_tokens"] == len(each["token_ids"]) == len(each["logprobs"])
        assert {len(entry["top"]) for entry in each["logprobs"]} == {2}
    assert document["throughput"]["tokens_per_second"] > 0
    again = json.loads(run(*arguments, "--seed", str(document["params"]["seed"]))[1])
    assert again["completions"] == document["completions"]


def test_json_has_null_for_what_cannot_be_drawn(run):
    _, out, _ = run("generate", "a", "--bias", "256=-inf", "--ignore-eos", "--max-tokens", "2", "--json")
    document = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert document["params"]["logit_bias"] == [[256, None]]
    assert 256 not in document["completions"][0]["token_ids"]


def test_streamed_json_is_one_event_a_line(run):
    _, out, _ = run(*EXAMPLE, "--json", "--stream")
    events = [json.loads(line) for line in out.splitlines()]
    last = events[-1]["completion"]
    assert len(events) == 12
    assert [event["finish_reason"] for event in events] == [None] * 11 + ["length"]
    assert "".join(event["text"] for event in events) == last["text"]
    assert [token for event in events for token in event["token_ids"]] == last["token_ids"]


def test_prompts_come_from_standard_input(run, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\n\n  \ntwo words\n"))
    _, out, _ = run("generate", "zero", "-", "three", "--seed", "1", "--max-tokens", "2", "--json")
    prompts = [each["prompt"] for each in json.loads(out)["completions"]]
    assert prompts == ["zero", "one", "two words", "three"]


def test_every_sampling_option_reaches_the_parameters(run):
    options = {
        "temperature": 0.5,
        "top_k": 9,
        "top_p": 0.75,
        "min_p": 0.125,
        "order": "hf",
        "seed": -5,
        "n": 2,
        "dynatemp_range": 0.25,
        "dynatemp_exponent": 1.5,
        "top_n_sigma": 3.0,
        "typical_p": 0.875,
        "epsilon": 0.0009765625,
        "eta": 0.001953125,
        "xtc_probability": 0.5,
        "xtc_threshold": 0.25,
        "repetition_penalty": 1.25,
        "frequency_penalty": -0.5,
        "presence_penalty": 0.75,
        "dry_multiplier": 0.875,
        "dry_base": 2.0,
        "dry_allowed_length": 3,
        "no_repeat_ngram": 4,
        "guidance": 1.5,
        "negative_prompt": "b",
        "mirostat_tau": 3.0,
        "mirostat_eta": 0.25,
        "max_tokens": 5,
        "min_tokens": 2,
        "logprobs": 1,
        "logprobs_of": "filtered",
        "kept": 7,
    }
    words = [word for name, value in options.items() for word in ("--" + name.replace("_", "-"), str(value))]
    words += ["--stop", "x", "--stop", "yz", "--stop-id", "3", "--stop-id", "4", "--ignore-eos", "--threads", "1"]
    words += ["--bias", "7=1.5", "--bias", "e=-inf", "--bias", "==-2", "--ban", "9", "--ban", '"5"', "--ban", '"\\""']
    words += [
        "--dry-breaker",
        "q",
        "--dry-breaker",
        "u",
        *(word for letter in "aeiou7" for word in ("--allow", letter)),
    ]
    words += ["--ban-phrase", "in all", "--ban-phrase", "of", "--ban-case", "--prefix", "a", "--prefix", "e"]
    words += ["--stop-on-repeat", "3", "--regex", "[aeiou]+"]
    _, out, _ = run("generate", "a", *words, "--max-rows", "2", "--json")
    document = json.loads(out)
    expected = options | {"stop": ["x", "yz"], "stop_ids": [3, 4], "ignore_eos": True, "bitmask": None, "mirostat": 0}
    expected |= {"logit_bias": [[7, 1.5], ["e", None], ["=", -2.0]], "banned_ids": [9, "5", '"']}
    expected |= {"allowed_ids": ["a", "e", "i", "o", "u", 7], "dry_breakers": ["q", "u"]}
    expected |= {"ban_phrases": ["in all", "of"], "ban_case": True, "prefix": ["a", "e"]}
    expected["stop_on_repeat"] = {"count": 3, "shortest": 1, "longest": 64}
    expected["guide"] = {"kind": "regex", "text": "[aeiou]+", "whitespace": " ?"}
    assert document["params"] == expected
    assert {field.name for field in dataclasses.fields(SamplingParams)} == set(document["params"])
    default = dataclasses.asdict(SamplingParams())
    # Mirostat is the only filter where it is one.
    assert [name for name, value in document["params"].items() if value == default[name]] == ["bitmask", "mirostat"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", ""], "prompts[0]: expected at least one token, got none"),
        (["generate"], "Missing argument 'PROMPT'."),
        (["generate", "a", "--top-p", "1.5"], "top_p: expected a number in [0, 1], got 1.5"),
        (["generate", "a", "--top-p", "nan"], "top_p: expected a number in [0, 1], got nan"),
        (["generate", "a", "--temperature", "-1"], "temperature: expected a number in [0, inf), got -1.0"),
        (["generate", "a", "--top-k", "-1"], "top_k: expected an integer in [0, 2147483647], got -1"),
        (["generate", "a", "--top-k", "two"], "Invalid value for '--top-k': expected an integer, got 'two'"),
        (
            ["generate", "a", "--seed", "9223372036854775808"],
            "seed: expected an integer in [-9223372036854775808, 9223372036854775807], got",
        ),
        (["generate", "a", "--seed", "x"], "Invalid value for '--seed': expected an integer, got 'x'"),
        (["generate", "a", "--n", "0"], "n: expected an integer >= 1, got 0"),
        (["generate", "a", "--max-tokens", "0"], "max_tokens: expected an integer >= 1, got 0"),
        (["generate", "a", "--stop", ""], "stop: expected strings of at least one character"),
        (["generate", "a", "--stop-id", "257"], "params[0].stop_ids: expected ids below 257, got 257"),
        (["generate", "a", "--typical-p", "1.5"], "typical_p: expected a number in [0, 1], got 1.5"),
        (["generate", "a", "--xtc-probability", "-1"], "xtc_probability: expected a number in [0, 1], got -1.0"),
        (["generate", "a", "--repetition-penalty", "0"], "repetition_penalty: expected a number in (0, inf), got 0.0"),
        (
            ["generate", "a", "--frequency-penalty", "nan"],
            "frequency_penalty: expected a number in (-inf, inf), got nan",
        ),
        (["generate", "a", "--dry-base", "0.5"], "dry_base: expected a number in [1, inf), got 0.5"),
        (["generate", "a", "--dry-breaker", ""], "dry_breakers: expected strings of at least one character"),
        (
            ["generate", "a", "--dry-multiplier", "1", "--dry-breaker", "zz"],
            "params[0].dry_breakers: expected strings that some token's text contains, got 'zz'",
        ),
        (["generate", "a", "--no-repeat-ngram", "-1"], "no_repeat_ngram: expected an integer in [0, 2147483647]"),
        (["generate", "a", "--bias", "7"], "Invalid value for '--bias': expected ID=NUMBER or TEXT=NUMBER, got '7'"),
        (["generate", "a", "--bias", "=2"], "Invalid value for '--bias': expected ID=NUMBER or TEXT=NUMBER, got '=2'"),
        (["generate", "a", "--bias", "7=x"], "Invalid value for '--bias': expected a number, got 'x'"),
        (["generate", "a", "--bias", "7=nan"], "logit_bias: expected a number that float32 holds for 7, got nan"),
        (["generate", "a", "--bias", "257=1"], "params[0].logit_bias: expected ids below 257, got 257"),
        (["generate", "a", "--ban", "-1"], "banned_ids: expected token ids >= 0, got -1"),
        (["generate", "a", "--ban", '"a'], "Invalid value for '--ban': expected a JSON string in double quotes"),
        (
            ["generate", "a", "--ban", "no"],
            "params[0].banned_ids: expected the text of one token, got 'no', which is 'n', 'o'",
        ),
        (["generate", "a", "--allow", ""], "allowed_ids: expected texts of at least one character, got '' among them"),
        (["generate", "a", "--allow", "999"], "params[0].allowed_ids: expected ids below 257, got 999"),
        (["generate", "a", "--logprobs", "258"], "params[0].logprobs: expected at most 257, got 258"),
        (["generate", "a", "--logprobs-of", "x"], "logprobs_of: expected one of raw, filtered, got 'x'"),
        (["generate", "a", "--kept", "-1"], "kept: expected None or an integer >= 0, got -1"),
        (["generate", "a", "--order", "x"], "order: expected one of vllm, hf, flashinfer-joint, llama.cpp, got 'x'"),
        (["generate", "a" * 256], "prompts[0]: expected fewer tokens than the context of 256, got 256"),
        (["generate", "a", "--model", "no/such/place"], "no/such/place: "),
        (
            ["generate", "a", "--threads", "0"],
            "Invalid value for '--threads': expected an integer of at least 1, got 0",
        ),
        (["generate", "a", "--dtype", "int8"], "dtype: expected one of float32, bfloat16, float16, auto, got 'int8'"),
        (["generate", "a", "--candidates", "0"], "Invalid value for '--candidates': expected an integer of at least 1"),
        (["generate", "a", "--min-p", "x"], "Invalid value for '--min-p': expected a number, got 'x'"),
        (["generate", "a", "--unknown"], "No such option: --unknown"),
        (["generat"], "No such command 'generat'."),
        (["bench", "sample", "--dtype", "int8"], "dtype: expected one of float32, bfloat16, float16, got 'int8'"),
        (["bench", "sample", "--logits", "x"], "logits: expected one of peaked, normal, got 'x'"),
        (["bench", "sample", "--vocab", "0"], "Invalid value for '--vocab': expected an integer of at least 1, got 0"),
        (["bench", "sample", "--top-p", "2"], "top_p: expected a number in [0, 1], got 2.0"),
        (["bench", "sample", "--temperature", "0"], "temperature: expected more than 0"),
        (["bench", "sample", "--json", "no/such/place.json"], "json: expected a file in an existing folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, arguments, message):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"warpdraw: error: {message}")
    assert err.count("\n") == 1


def test_no_prompts_on_standard_input_is_bad_input(run, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n\n"))
    code, out, err = run("generate", "-")
    assert (code, out) == (2, "")
    assert err == "warpdraw: error: standard input: expected at least one prompt, one a line, got none\n"


def test_bytes_that_are_not_text_are_bad_input(run, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe"), encoding="utf-8"))
    code, _, err = run("generate", "-")
    assert code == 2
    assert err.startswith("warpdraw: error: standard input: expected UTF-8 text: ")


def test_a_sample_that_fails_is_reported_with_exit_code_1(run, monkeypatch):
    forward = weights.Transformer.forward
    monkeypatch.setattr(
        weights.Transformer, "forward", lambda self, *given, **options: forward(self, *given, **options) * torch.nan
    )
    code, out, err = run(*EXAMPLE)
    assert (code, out) == (1, "The sky is\n")
    assert err.startswith("warpdraw: error: prompt 1, sample 1: no token can be drawn at position 10")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["generate", "--help"], ["info", "--help"], ["bench", "sample", "--help"]]
)
def test_help_has_an_example(run, arguments):
    code, out, _ = run(*arguments)
    assert code == 0
    assert "\n warpdraw " in out or "Begin with: warpdraw " in out


def test_help_groups_the_options(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    _, out, _ = run("generate", "--help")
    panels = re.findall(r"─ (.+?) ─+╮\n(.*?)╰", out, flags=re.DOTALL)
    titles = [
        "Arguments",
        "Options",
        "How to draw",
        "More filters",
        "Penalties and bans",
        "When to stop",
        "Guard rails",
        "Drafts",
        "Strategies",
        "What to print",
    ]
    assert [title for title, _ in panels] == titles
    shown = {option for _, panel in panels for option in re.findall(r"^│ (--[a-z-]+)", panel, flags=re.MULTILINE)}
    parameters = set(inspect.signature(command).parameters) - {"prompts", "as_json"}
    assert shown == {"--" + name.replace("_", "-") for name in parameters} | {"--json", "--help"}


def test_info_says_what_runs_here(run):
    code, out, _ = run("info")
    assert code == 0
    record = json.loads(run("info", "--json")[1])
    assert record["torch"] == torch.__version__
    assert record["threads"] == torch.get_num_threads()
    assert record["gpu"]["available"] is torch.cuda.is_available()
    assert [each["name"] for each in record["backends"]] == [each.name for each in warpdraw.backends()]
    assert all(each["available"] or each["reason"] for each in record["backends"])
    assert all(each["name"] in out for each in record["backends"])


def program(*arguments, **options):
    """The program as a user runs it, in a process of its own."""
    place = os.path.dirname(os.path.dirname(find_spec("warpdraw").origin))
    environment = os.environ | {"PYTHONPATH": place, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "warpdraw", *arguments], capture_output=True, env=environment, timeout=60, **options
    )


def test_the_program_runs_as_a_module_without_colour_in_a_pipe(checkpoint):
    assert program("--version").stdout.decode() == f"warpdraw {warpdraw.__version__}\n"
    # A seed, because a random model of bytes may well draw the escape character itself.
    arguments = ["generate", "-", "--explain", "--model", checkpoint, "--seed", "7"]
    result = program(*arguments, input="né 🙂\n".encode())
    assert result.returncode == 0
    assert "né 🙂" in result.stdout.decode()
    assert b"\x1b" not in result.stdout + result.stderr


def test_bad_input_shows_no_traceback(checkpoint):
    result = program("generate", "a", "--model", checkpoint, "--min-p", "7")
    assert result.returncode == 2
    assert result.stderr == b"warpdraw: error: min_p: expected a number in [0, 1], got 7.0\n"


def test_an_unknown_instruction_set_is_one_line_and_exit_code_2():
    program = [sys.executable, "-m", "warpdraw", "generate", "The sky is", "--seed", "7"]
    done = subprocess.run(program, capture_output=True, text=True, env=os.environ | {"WARPDRAW_ISA": "mmx"})
    assert done.returncode == 2
    assert done.stdout == ""
    assert "WARPDRAW_ISA: expected one of" in done.stderr
    assert len(done.stderr.splitlines()) == 1
