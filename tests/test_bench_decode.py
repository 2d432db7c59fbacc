"""`warpdraw bench decode`, tried on the CPU at tiny shapes: verified, shares of a step, wrong samplers reported."""

import json

from warpdraw.bench.decode_steps import MODEL, Steps
from warpdraw.bench.gpu_methods import OURS
from warpdraw.bench.peers import EAGER, IDIOM
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


def test_a_wrong_sampler_is_reported(monkeypatch, capsys):
    right = Steps.draw

    def wrong(self, logits):
        right(self, logits)
        self.drawn.add_(1)

    monkeypatch.setattr(Steps, "draw", wrong)
    assert main([*QUICK, "--only", "8B"]) == 1
    assert "does not draw the tokens of the CPU backend" in capsys.readouterr().err


def test_what_there_is_no_time_for_is_listed(tmp_path):
    path = tmp_path / "decode.json"
    assert main([*QUICK, "--seconds", "0", "--json", str(path)]) == 0
    assert len(json.loads(path.read_text())["dropped"]) == 6


def test_bad_input_is_refused():
    for bad in (["--only", "nothing"], ["--seconds", "-1"], ["--json", "no/such/place.json"]):
        assert main([*QUICK, *bad]) == 2
    assert main(["bench", "decode", "--device", "cpu"]) == 2
