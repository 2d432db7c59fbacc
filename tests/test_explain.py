"""`--explain`: every candidate of every step, with its fate, as JSON and as bars."""

import json

import pytest
from small_model import small_model

from warpdraw.cli.explain import step_lines
from warpdraw.cli.main import main
from warpdraw.generation.results import Candidate, Step
from warpdraw.model import weights

STEP = Step(
    position=3,
    kept=2,
    candidates=(
        Candidate(" blue", 5, 0.5, 0.625, True, False),
        Candidate("天", 6, 0.3, 0.375, True, True),
        Candidate("\n", 7, 0.1, 0.0, False, False),
    ),
    rest=0.1,
)


def test_bars_show_before_after_and_fate():
    lines = [line.plain.rstrip() for line in step_lines(STEP)]
    assert lines == [
        "token 3     model                       drawn from (2 kept)",
        '  " blue"   ██████████            50.0% ████████████▌         62.5% kept',
        '  "天"      ██████                30.0% ███████▌              37.5% drawn',
        '  "\\n"      ██                    10.0%                             dropped',
        "  others    ██                    10.0%",
        "",
    ]


def test_bars_without_unicode_are_ascii():
    lines = [line.plain for line in step_lines(STEP, unicode=False)]
    assert all(line.isascii() for line in lines)
    assert "##########" in lines[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    small = small_model()
    path = tmp_path_factory.mktemp("checkpoint")
    weights.save(path, small.model, small.tokenizer, eos_ids=small.eos_ids)
    return str(path)


def test_json_lists_the_candidates_of_each_step(folder, capsys):
    options = ["--top-k", "3", "--max-tokens", "4", "--ignore-eos", "--seed", "1", "--candidates", "5"]
    assert main(["generate", "The sky is", "--explain", "--json", "--model", folder, *options]) == 0
    completion = json.loads(capsys.readouterr().out)["completions"][0]
    assert len(completion["steps"]) == 4
    for step, token in zip(completion["steps"], completion["token_ids"], strict=True):
        candidates = step["candidates"]
        assert set(candidates[0]) == {"token", "id", "probability", "filtered_probability", "kept", "drawn"}
        assert [each["kept"] for each in candidates] == [True] * 3 + [False] * 2
        assert sum(each["filtered_probability"] for each in candidates) == pytest.approx(1, abs=1e-6)
        assert [each["id"] for each in candidates if each["drawn"]] == [token]


def test_the_drawn_token_is_shown_even_if_it_does_not_lead(folder, capsys):
    arguments = ["generate", "a", "--explain", "--json", "--model", folder, "--candidates", "1", "--seed", "3"]
    assert main(arguments) == 0
    steps = json.loads(capsys.readouterr().out)["completions"][0]["steps"]
    assert {len(step["candidates"]) for step in steps} == {1, 2}
    assert all(sum(each["drawn"] for each in step["candidates"]) == 1 for step in steps)


def test_the_shipped_model_knows_the_colours_of_the_sky(capsys):
    arguments = ["generate", "The sky is", "--explain", "--top-k", "3", "--max-tokens", "1", "--json", "--seed", "7"]
    assert main(arguments) == 0
    (step,) = json.loads(capsys.readouterr().out)["completions"][0]["steps"]
    kept = {each["token"]: each for each in step["candidates"] if each["kept"]}
    known = {" blue": 0.35, " clear": 0.25, " cloudy": 0.17}
    assert set(kept) == set(known)
    for token, probability in known.items():
        assert kept[token]["probability"] == pytest.approx(probability, abs=0.03)
    assert sum(each["filtered_probability"] for each in kept.values()) == pytest.approx(1)
