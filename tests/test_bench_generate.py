"""The benchmark of generation: checked before it is timed, figures follow from times, every job has its targets."""

import json
from functools import partial

import pytest
import torch

import warpdraw
from warpdraw.bench import generation_batching, generation_guided
from warpdraw.bench.generation import JOBS, run
from warpdraw.bench.generation_batching import ONE_BY_ONE, OURS, STATIC, THEIRS, Transformers, continuous, one_by_one
from warpdraw.bench.generation_guided import SCHEMA, valid
from warpdraw.bench.generation_jobs import (
    LONGEST_PROMPT,
    MOST_TOKENS,
    Figure,
    Options,
    Unusable,
    in_turn,
    mixed,
    part_of,
    ratio,
    uniform,
)
from warpdraw.bench.generation_share import shares
from warpdraw.cli.main import main

MODEL = warpdraw.load("tiny-target")
QUICK = Options(requests=3, rounds=1, texts=3, quick=True)


@pytest.fixture(scope="module")
def result():
    told = []
    found = run(QUICK, lambda what, part: told.append((what, part)))
    parts = [part for _, part in told]
    assert parts == sorted(parts)
    assert parts[-1] == 1.0
    return found


def test_every_job_has_its_targets(result):
    targets = {(each["job"], each["what"]): each["target"] for each in result["figures"] if each["target"] is not None}
    assert sorted(targets.values()) == sorted([5.0, 5.0] + 2 * [4.0, 3.0, 1.2] + [100.0, 10.0, 10.0] + 2 * [60.0, 5.0])
    assert targets["3 requests, mixed", f"faster than {STATIC}"] == 1.2
    assert result["absent"] == {}
    assert set(result["details"]) == set(JOBS)
    for each in result["figures"]:
        figure = Figure(**{name: value for name, value in each.items() if name != "met"})
        assert figure.met is each["met"]
    json.dumps(result, allow_nan=False)


def test_seconds_are_kept_for_each_method_and_round(result):
    seconds = result["details"]["continuous batching"]["uniform"]["seconds"]
    assert set(seconds) == {OURS, ONE_BY_ONE, STATIC, THEIRS}
    assert {len(taken) for taken in seconds.values()} == {1}
    figures = {each["what"]: each["value"] for each in result["figures"] if each["job"] == "3 requests, uniform"}
    assert figures[f"faster than {STATIC}"] == pytest.approx(seconds[STATIC][0] / seconds[OURS][0], rel=0.05)


def test_a_figure_is_met_from_its_side():
    assert Figure("", "", 1.2, "x", 1.2).met
    assert not Figure("", "", 1.19, "x", 1.2).met
    assert Figure("", "", 5.0, "%", 5.0, at_least=False).met
    assert not Figure("", "", 5.1, "%", 5.0, at_least=False).met
    assert Figure("", "", 5.1, "%").met is None


def test_methods_are_called_in_turn_and_ratios_are_of_rounds():
    calls, told = [], []
    seconds = in_turn({name: partial(calls.append, name) for name in "ab"}, 3, part_of(told.append, 1, 2))
    assert calls == list("ababab")
    assert {name: len(taken) for name, taken in seconds.items()} == {"a": 3, "b": 3}
    assert told == [0.5 + part / 6 for part in (1, 2, 3)]
    assert ratio([2, 9, 1], [1, 3, 10]) == 2


def test_requests_are_as_they_are_declared():
    same, unlike = uniform(MODEL, 5, False), mixed(MODEL, 32, False)
    assert same.lengths == [100] * 5
    assert same.prompts == [MODEL.tokenizer.encode("The sky is")] * 5
    assert len(set(unlike.lengths)) > 20
    assert max(unlike.lengths) <= MOST_TOKENS
    assert len(set(map(len, unlike.prompts))) > 20
    assert max(map(len, unlike.prompts)) <= LONGEST_PROMPT
    assert unlike == mixed(MODEL, 32, False)
    assert [params.seed for params in same.params()] == list(range(5))
    assert all(params.ignore_eos for params in same.params())


def test_every_method_draws_what_is_asked_for():
    peer, requests = Transformers("tiny-target"), mixed(MODEL, 3, True)
    peer.check(MODEL, requests)
    assert continuous(MODEL, requests) == one_by_one(MODEL, requests)
    for method in (peer.static, peer.one_by_one):
        assert [len(tokens) for tokens in method(requests)] == requests.lengths


def test_a_peer_with_another_model_is_not_timed():
    peer, requests = Transformers("tiny-target"), uniform(MODEL, 2, True)
    with torch.no_grad():
        peer.model.lm_head.weight[:, 0] += 1
    with pytest.raises(Unusable, match="transformers has other logits"):
        peer.check(MODEL, requests)


def test_methods_that_draw_something_else_are_not_timed():
    requests = uniform(MODEL, 2, True)
    good = partial(continuous, MODEL, requests)
    tokens = good()
    generation_batching._verify({OURS: good, ONE_BY_ONE: good}, requests)
    with pytest.raises(Unusable, match="one by one does not draw as many tokens"):
        generation_batching._verify({OURS: good, ONE_BY_ONE: lambda: [tokens[0], tokens[1][:-1]]}, requests)
    with pytest.raises(Unusable, match="continuous batching draws other tokens than one by one"):
        generation_batching._verify({OURS: good, ONE_BY_ONE: lambda: tokens[::-1]}, requests)


def test_without_transformers_the_rest_is_measured(monkeypatch):
    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(generation_batching, "import_module", missing)
    found = run(Options(requests=2, rounds=1, quick=True, only="batching"))
    assert found["absent"] == {"transformers": "No module named 'transformers'"}
    assert {each["what"] for each in found["figures"]} == {f"faster than {ONE_BY_ONE}", "tokens a second"}


def test_without_the_library_of_guides_the_rest_is_measured(monkeypatch):
    monkeypatch.setattr(generation_guided, "find_spec", lambda name: None)
    found = run(Options(quick=True, only="JSON"))
    assert found["figures"] == []
    assert list(found["absent"]) == ["JSON of a schema"]


def test_shares_are_parts_of_a_step():
    found = shares(MODEL, 2, 5, quick=True)
    assert 0 < found["op"] < found["draw"] < 1


@pytest.mark.parametrize(
    ("change", "good"),
    [
        ({}, True),
        ({"sky": "green"}, False),
        ({"words": []}, False),
        ({"words": ["thirteen long"]}, False),
        ({"warm": 1}, False),
        ({"hours": 25}, False),
        ({"hours": True}, False),
        ({"more": 1}, False),
    ],
)
def test_the_check_of_texts_is_that_of_the_schema(change, good):
    value = {"sky": "blue", "words": ["a"], "warm": False, "hours": 24} | change
    assert valid(json.dumps(value)) is good
    assert set(value) - {"more"} == set(SCHEMA["properties"])


def test_texts_that_are_no_json_are_not_valid():
    assert not valid('{"sky": "blue"')
    assert not valid("[]")


def test_the_command_writes_json_and_shows_a_table(tmp_path, capsys):
    path = tmp_path / "generate.json"
    assert main(["bench", "generate", "--quick", "--only", "names", "--json", str(path)]) == 0
    assert "names by the mlp, of 5" in capsys.readouterr().out
    document = json.loads(path.read_text())
    assert (document["benchmark"], document["options"]["texts"]) == ("generate", 5)
    assert document["environment"]["packages"]["transformers"]


def test_bad_options_are_refused(capsys):
    for options in (["--only", "nothing"], ["--requests", "0"], ["--json", "/no/such/folder/x.json"]):
        assert main(["bench", "generate", "--quick", *options]) == 2
    assert "only: expected part of the name of a job (sampling's share; " in capsys.readouterr().err


def test_what_cannot_be_used_ends_the_command_with_its_reason(monkeypatch, capsys):
    def unusable(*_):
        raise Unusable("it draws something else")

    monkeypatch.setattr("warpdraw.cli.bench_generate.run", unusable)
    assert main(["bench", "generate", "--quick"]) == 1
    assert "it draws something else" in capsys.readouterr().err
