"""`warpdraw bench decode`, tried on the CPU at tiny shapes: verified, shares of steps, what is wrong is reported."""

import json

import pytest

from warpdraw.bench.decode_rounds import MODELS, PLAIN_STEP, RATES, RULES, Rounds, lengths_of, tokens_of
from warpdraw.bench.decode_steps import MODEL, Steps
from warpdraw.bench.gpu_methods import OURS
from warpdraw.bench.peers import EAGER, IDIOM, USUAL
from warpdraw.cli.main import main

QUICK = ["bench", "decode", "--device", "cpu", "--quick"]


def test_every_sampler_is_verified_and_has_its_share(tmp_path):
    path = tmp_path / "decode.json"
    assert main([*QUICK, "--json", str(path)]) == 0
    document = json.loads(path.read_text())
    assert (document["failed"], document["dropped"]) == ([], [])
    assert len(document["steps"]) == 3 * 2 * 4
    assert {record["method"] for record in document["steps"]} == {MODEL, OURS, IDIOM, EAGER}
    assert all(0 <= record["share"] < 1 for record in document["steps"])
    rounds = document["rounds"]
    assert {(record["model"], record["drafter"]) for record in rounds} == {("8B", "1B"), ("1.5B", "0.5B")}
    assert len(rounds) == 2 * 2 * (2 + len(RATES) * (len(RULES) + 2))
    assert {record["method"] for record in rounds} == {PLAIN_STEP, MODELS, OURS, USUAL, EAGER}
    assert all(record["speedup"] > 0 for record in rounds if "rate" in record)


def test_a_wrong_sampler_is_reported(monkeypatch, capsys):
    right = Steps.draw

    def wrong(self, logits):
        right(self, logits)
        self.drawn.add_(1)

    monkeypatch.setattr(Steps, "draw", wrong)
    assert main([*QUICK, "--only", "8B"]) == 1
    assert "does not draw the tokens of the CPU backend" in capsys.readouterr().err


def test_as_many_drafts_are_accepted_as_the_rate_says():
    lengths = lengths_of(0.7, 10_000, 5)
    passed = [(lengths >= place).double().mean().item() for place in range(1, 6)]
    assert passed == pytest.approx([0.7**place for place in range(1, 6)], abs=1e-3)
    assert lengths.double().mean().item() + 1 == pytest.approx(tokens_of(0.7, 5), abs=1e-3)
    assert lengths_of(0.9, 1, 5).tolist() == [5]


@pytest.mark.parametrize("rule", RULES)
def test_a_wrong_verification_is_reported(monkeypatch, capsys, rule):
    right = Rounds._verify

    def wrong(self, method, given, tokens):
        right(self, method, given, tokens)
        if tokens is self.tokens and method.rule == rule and method.peer is None:
            tokens[0, 0] ^= 1

    monkeypatch.setattr(Rounds, "_verify", wrong)
    assert main([*QUICK, "--only", "8B"]) == 1
    err = capsys.readouterr().err
    assert f"warpdraw, {rule}, 0.5, 8B, 3 rows: warpdraw does not " in err
    assert err.count("error") == len(RATES) * 2


def test_drafts_that_others_are_accepted_of_are_reported(monkeypatch, capsys):
    right = Rounds.choose

    def wrong(self, rule, lengths):
        chosen = right(self, rule, lengths)
        chosen.lengths.add_(1)
        return chosen

    monkeypatch.setattr(Rounds, "choose", wrong)
    assert main([*QUICK, "--only", "8B"]) == 1
    assert "warpdraw does not accept the drafts that were chosen to be, and those alone" in capsys.readouterr().err


def test_what_there_is_no_time_for_is_listed(tmp_path):
    path = tmp_path / "decode.json"
    assert main([*QUICK, "--seconds", "0", "--json", str(path)]) == 0
    assert len(json.loads(path.read_text())["dropped"]) == 6


def test_bad_input_is_refused():
    for bad in (["--only", "nothing"], ["--seconds", "-1"], ["--json", "no/such/place.json"]):
        assert main([*QUICK, *bad]) == 2
    assert main(["bench", "decode", "--device", "cpu"]) == 2
