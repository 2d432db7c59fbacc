"""Two measurements compared: verdicts from medians and spreads, on documents of real runs on the CPU."""

import json

import pytest

from warpdraw.bench.comparison import FASTER, NEAR, SAME, SLOWER, UNCLEAR, change, compare
from warpdraw.bench.gpu_jobs import GREEDY
from warpdraw.cli.main import main


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("compare") / "gpu.json"
    assert main(["bench", "gpu", "--device", "cpu", "--quick", "--only", GREEDY, "--json", str(path)]) == 0
    return path


@pytest.fixture
def document(path):
    return json.loads(path.read_text())


def times(median, p10, p90):
    return {"median_us": median, "p10_us": p10, "p90_us": p90}


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        (times(100, 99, 101), times(100, 99, 101), SAME),
        (times(100, 99.9, 100.1), times(102.9, 102.8, 103), SAME),
        (times(100, 50, 150), times(101, 50, 150), SAME),
        (times(100, 99, 101), times(90, 89, 98.9), FASTER),
        (times(100, 99, 101), times(90, 89, 99), UNCLEAR),
        (times(100, 99, 101), times(110, 101.1, 111), SLOWER),
        (times(100, 99, 101), times(110, 101, 111), UNCLEAR),
        (times(100, 80, 130), times(120, 85, 125), UNCLEAR),
        (times(100, 80, 120), times(90, 60, 200), UNCLEAR),
    ],
)
def test_verdicts(old, new, verdict):
    found = change(old, new)
    assert found["verdict"] == verdict
    assert found["ratio"] == pytest.approx(new["median_us"] / old["median_us"])
    opposite = {FASTER: SLOWER, SLOWER: FASTER}
    assert change(new, old)["verdict"] == opposite.get(verdict, verdict)


def test_each_record_is_compared_with_itself(document):
    changed = json.loads(json.dumps(document))
    for number, record in enumerate(changed["results"]):
        factor = (1.0, 0.01, 100.0)[number % 3]
        for name in ("median_us", "p10_us", "p90_us"):
            record[name] *= factor
    changed["results"].reverse()
    result = compare(document, changed)
    count = len(document["results"])
    assert count == len(result["results"]) > 10
    for number, record in enumerate(result["results"]):
        assert record["ratio"] == pytest.approx((1.0, 0.01, 100.0)[number % 3])
        assert record["verdict"] == (SAME, FASTER, SLOWER)[number % 3] or record["verdict"] == UNCLEAR
        assert record["method"] == document["results"][number]["method"]
        assert record["batch"] == document["results"][number]["batch"]
    assert sum(result["counts"].values()) == count
    assert result["counts"][SAME] == len(range(0, count, 3))
    assert (result["only_old"], result["only_new"]) == (0, 0)


def test_what_one_alone_has_is_counted(document):
    fewer = document | {"results": document["results"][2:]}
    assert {name: compare(document, fewer)[name] for name in ("only_old", "only_new")} == {
        "only_old": 2,
        "only_new": 0,
    }
    assert compare(fewer, document)["only_new"] == 2


def test_bench_compare_prints_and_writes(run, path, tmp_path, document):
    slower = json.loads(json.dumps(document))
    record = slower["results"][0]
    for name in ("median_us", "p10_us", "p90_us"):
        record[name] *= 1000
    slower["device"]["name"] = "another"
    new, changes = tmp_path / "new.json", tmp_path / "changes.json"
    new.write_text(json.dumps(slower))
    code, out, err = run("bench", "compare", str(path), str(new))
    assert code == 0
    assert err == f"warpdraw: warning: measured on different machines: {document['environment']['cpu']} and another\n"
    assert out.count("slower") == 2
    assert f"0 faster, 1 slower, {len(document['results']) - 1} same, 0 unclear" in out
    assert "1000.00x" in out
    code, whole, _ = run("bench", "compare", str(path), str(new), "--all")
    assert whole.count("same") == len(document["results"])
    code, _, err = run("bench", "compare", str(path), str(path), "--json", str(changes))
    assert (code, err) == (0, f"wrote {changes}\n")
    assert json.loads(changes.read_text())["counts"][SAME] == len(document["results"])


def test_bad_input_of_bench_compare_is_one_line_and_exit_code_2(run, path, tmp_path, document):
    def refused(message, content):
        other = tmp_path / "other.json"
        other.write_text(json.dumps(content))
        code, out, err = run("bench", "compare", str(path), str(other))
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert message in err

    refused("new: expected a measurement of bench gpu, got one of 'cpu'", document | {"benchmark": "cpu"})
    refused("new: expected a measurement with times", document | {"results": []})
    refused("which is of something else", [])
    nowhere = [record | {"vocab": 1} for record in document["results"]]
    refused("new: expected a measurement at a place and by a method of the old one", document | {"results": nowhere})
    undated = {name: value for name, value in document.items() if name != "date"}
    refused("lacks 'date'", undated)
    refused("new: expected a measurement of the job None, got one of {'top_k': 3}", document | {"job": {"top_k": 3}})


def test_help_of_bench_compare_states_the_rule(run):
    code, out, _ = run("bench", "compare", "--help")
    assert code == 0
    assert f"{100 * NEAR:g} %" in out
    assert "warpdraw bench compare old.json new.json" in out
