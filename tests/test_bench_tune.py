"""The tuner of the CUDA kernels, tried on the CPU: what is tried, that wrong candidates never win, rounds, verdicts."""

import json
import subprocess
import sys
from dataclasses import dataclass, replace

import pytest
import torch
from conftest import BACKENDS, runnable

import warpdraw
from warpdraw import _C, ops
from warpdraw.bench import tune, tune_candidates
from warpdraw.bench.gpu_clock import HostClock, clock_of
from warpdraw.bench.gpu_jobs import COMBINED, GREEDY, SOFTMAX, TEMPERED, TOP_P, Point
from warpdraw.bench.harness import Timing
from warpdraw.bench.tune import Options, wins
from warpdraw.bench.tune_candidates import USUAL, Candidate, Wish, candidates_of, stages_of_usual
from warpdraw.bench.tune_grid import QUICK, Sizes, grid, staged
from warpdraw.bench.tune_measure import COPIED, FEWEST, LAST, Tuner, verdict
from warpdraw.bench.tune_stages import of_stages, time_stages

CPU = torch.device("cpu")
RULE = Candidate(USUAL)
OTHER = Candidate("other", backend="portable")
SHAPE = {"threads": 256, "blocks": 2, "loads": 4, "stages": 0, "until": "all"}


def options(**changes):
    return Options(device="cpu", quick=True, **changes)


def tuner(*candidates, sizes=QUICK):
    return Tuner(clock_of(CPU), [RULE, *candidates], sizes, 2**20)


# --------------------------------------------------------------------------------------------------------------------
# What is tried, and where.


def test_the_grid_holds_every_combination_once_and_what_matters_most_first():
    points = grid(Sizes())
    assert len(set(points)) == len(points) == 5 * 7 * 4 * 2
    assert points[:7] == [Point(COMBINED, 128256, batch) for batch in (1, 8, 32, 64, 128, 256, 512)]
    assert all(point.vocab == 128256 for point in points[:70])
    assert {point.job for point in points[:70]} == {GREEDY, TEMPERED, COMBINED, TOP_P, SOFTMAX}
    assert {point.vocab for point in points} == {128256, 32000, 151936, 262144}
    assert {point.dtype for point in points[:70]} == {"bfloat16", "float32"}
    assert set(staged(Sizes())) <= set(points)


@pytest.fixture
def on_a_gpu(monkeypatch):
    """A build with several shapes, on a machine that can run all of them."""
    early = {f"usual_{stage}": SHAPE | {"until": stage} for stage in ("filters", "read", "maxima")}
    wide = {"wide": SHAPE | {"threads": 512}, "wide_read": SHAPE | {"threads": 512, "until": "read"}}
    monkeypatch.setattr(_C, "shapes", {USUAL: SHAPE} | early | wide, raising=False)
    names = ["cuda", "cuda_cluster", "cuda_split", *(f"cuda_{name}" for name in _C.shapes)]
    present = [replace(BACKENDS["cuda"], name=name, available=True) for name in names]
    monkeypatch.setattr(tune_candidates, "backends", lambda: present)


def test_every_shape_is_tried_by_every_plan_and_the_rule_is_the_first(on_a_gpu):
    candidates = candidates_of(torch.device("cuda"))
    assert candidates[0] == Candidate(USUAL)
    assert len({each.name for each in candidates}) == len(candidates) == 2 + 20 + 1 + 20 + 1
    assert {each.shape for each in candidates} == {USUAL, "wide"}
    for shape, backend in ((USUAL, "cuda_cluster"), ("wide", "cuda_wide")):
        wishes = {each.wish for each in candidates if each.shape == shape and each.wish}
        plans = {Wish(c, r, p) for c in (1, 2, 4, 8, 16) for r in (0, 1) for p in (0, 1)}
        assert wishes == plans | ({Wish(split=True)} if shape != USUAL else set())
        assert {each.backend for each in candidates if each.shape == shape and each.wish} == {backend}
    assert "usual, split" in {each.name for each in candidates}
    assert Candidate("wide", backend="cuda_wide") in candidates


def test_shapes_that_stop_early_are_those_like_the_usual_one_in_the_order_of_the_stages(on_a_gpu):
    found = [(stage, each.shape) for stage, each in stages_of_usual()]
    assert found == [("read", "usual_read"), ("maxima", "usual_maxima"), ("filters", "usual_filters"), ("all", USUAL)]


def test_on_the_cpu_what_can_run_here_stands_in():
    candidates = candidates_of(CPU)
    assert len({each.name for each in candidates}) == len(candidates) > 1
    if BACKENDS["cuda_host_cluster"].available:
        assert {each.backend for each in candidates} == {"cuda_host_cluster", "cuda_host_split"}
        assert len(candidates) == 1 + 20 + 1
    else:
        assert candidates[0] == RULE
        assert all(BACKENDS[each.backend].available for each in candidates[1:])


# --------------------------------------------------------------------------------------------------------------------
# Wrong candidates.


@dataclass(frozen=True)
class Shifted(Candidate):
    """Draws with another seed."""

    def run(self, work, number):
        given = work.given[number]
        return work.op(**given | {"seed": given["seed"] + 1} | work.results[number])


@dataclass(frozen=True)
class FirstRows(Candidate):
    """Leaves out a row that is not among those that are compared with the CPU backend."""

    def run(self, work, number):
        some = [0, 1, 2, 3, 5]
        given, results = work.given[number], work.results[number]
        made = work.op(**{name: pick(value, some) for name, value in given.items()})
        results["tokens"][some] = made.tokens
        results["valid"][some] = made.valid


def pick(value, some):
    return value[some] if isinstance(value, torch.Tensor) else value


@dataclass(frozen=True)
class Idle(Candidate):
    """Does nothing, which nothing beats."""

    def run(self, work, number):
        pass


@pytest.mark.parametrize(("job", "kind"), [(COMBINED, Shifted), (TEMPERED, Shifted), (COMBINED, Idle), (SOFTMAX, Idle)])
def test_a_candidate_that_gives_a_wrong_result_is_reported_and_never_wins(job, kind):
    made = tuner(kind("wrong"), OTHER)
    made.tune(Point(job, 300, 3))
    (failed,) = made.failed
    assert (failed["candidate"], failed["kind"], failed["job"]) == ("wrong, by the rule", "not verified", job)
    assert "of the rule in every row" in failed["reason"]
    (record,) = made.results
    assert "wrong, by the rule" not in json.dumps(record)
    assert record["screened_us"].keys() == {RULE.name, OTHER.name}


def test_every_row_is_compared():
    made = tuner(FirstRows("wrong"), sizes=replace(QUICK, batches=(6,)))
    made.tune(Point(COMBINED, 300, 6))
    assert [failed["candidate"] for failed in made.failed] == ["wrong, by the rule"]


def test_a_candidate_that_turns_wrong_while_it_is_timed_never_wins():
    calls = []

    @dataclass(frozen=True)
    class Tiring(Candidate):
        def run(self, work, number):
            calls.append(number)
            if len(calls) <= len(work):
                super().run(work, number)

    made = tuner(Tiring("wrong"), OTHER)
    made.tune(Point(COMBINED, 300, 3))
    assert [failed["candidate"] for failed in made.failed] == ["wrong, by the rule"]
    (record,) = made.results
    assert "wrong" not in record["fastest"]
    assert {each["candidate"] for each in record["timings"]} == {RULE.name, OTHER.name}


def test_a_rule_that_is_wrong_leaves_no_result():
    made = Tuner(clock_of(CPU), [Shifted(USUAL), OTHER], QUICK, 2**20)
    made.tune(Point(COMBINED, 2000, 3))
    assert not made.results
    (failed,) = made.failed
    assert "does not give the tokens of the CPU backend" in failed["reason"]


@dataclass(frozen=True)
class Refusing(Candidate):
    """Raises what it is told to."""

    error: type[Exception] = ValueError

    def run(self, work, number):
        raise self.error("cluster: expected at most 8, got 16")


def test_plans_that_cannot_be_served_are_listed_and_errors_are_failures():
    made = tuner(Refusing("small"), Refusing("broken", error=RuntimeError), OTHER)
    made.tune(Point(COMBINED, 300, 3))
    (record,) = made.results
    assert record["refused"] == [{"candidate": "small, by the rule", "reason": "cluster: expected at most 8, got 16"}]
    assert [(f["candidate"], f["kind"]) for f in made.failed] == [("broken, by the rule", "RuntimeError")]


def test_a_device_that_fails_ends_the_run(monkeypatch):
    def broken(self):
        raise RuntimeError("an illegal memory access\nsecond line")

    monkeypatch.setattr(HostClock, "synchronize", broken)
    document = tune.run(options(only=GREEDY))
    assert not document["results"]
    assert document["dropped"][0]["reason"] == "the device failed: an illegal memory access"


# A process of its own, because it has to end itself.
STUCK = """
import sys, time
from warpdraw.bench import tune
from warpdraw.bench.tune_candidates import Candidate
from warpdraw.cli.main import main

class Endless(Candidate):
    def run(self, work, number):
        time.sleep(1000)

tune.STUCK_SECONDS = 0.5
tune.candidates_of = lambda device: [Candidate("usual"), Endless("endless")]
sys.exit(main(["bench", "tune", "--device", "cpu", "--quick", "--json", sys.argv[1]]))
"""


def test_a_candidate_that_never_ends_is_named(tmp_path):
    path = tmp_path / "tune.json"
    done = subprocess.run([sys.executable, "-c", STUCK, path], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 2)
    assert "error: endless, by the rule, top-k 50, top-p 0.9, min-p 0.05, 1, 2000, bfloat16" in done.stderr
    (failed,) = json.loads(path.read_text())["failed"]
    assert (failed["candidate"], failed["kind"]) == ("endless, by the rule", "TimeoutError")
    assert "candidate(s) failed: it was the last to begin" in done.stdout


# --------------------------------------------------------------------------------------------------------------------
# Rounds and verdicts.


def timing(median, spread=0.0):
    return Timing(median, median - spread, median + spread, 30, median - spread)


@pytest.mark.parametrize(
    ("fast", "rule", "clear"),
    [(timing(5.0, 0.4), timing(6.0, 0.4), True), (timing(5.0, 0.6), timing(6.0, 0.6), False)],
)
def test_a_winner_beats_the_rule_by_more_than_the_spread(fast, rule, clear):
    found = verdict({"fast": fast, "rule": rule}, "rule", 4.0)
    assert (found["clear"], found["fastest"]) == (clear, "fast")
    assert found["winner"] == ("fast" if clear else "rule")
    assert found["ratio"] == pytest.approx(6 / 5 if clear else 1)
    assert found["of_floor"] == pytest.approx(5 / 4 if clear else 6 / 4)
    assert found["rule_us"] == pytest.approx(6e6)


def test_the_rule_can_be_the_fastest():
    found = verdict({"slow": timing(7.0), "rule": timing(6.0)}, "rule", 4.0)
    assert (found["winner"], found["fastest"], found["clear"], found["ratio"]) == ("rule", "rule", False, 1.0)


def test_slow_candidates_are_dropped_in_rounds_and_the_rule_never_is(monkeypatch):
    rounds = []

    def fixed(self, runs, seconds, fewest):
        rounds.append((list(runs), fewest))
        # The names of the candidates are their times; the rule is the slowest, and the copy moves 4 bytes a nanosecond.
        known = {RULE.name: 100e-6, COPIED: 2 * 2**20 / 4e9}
        return {name: timing(known.get(name) or int(name.split(",")[0]) * 1e-6) for name in runs}

    monkeypatch.setattr(HostClock, "time_in_turn", fixed)
    made = tuner(*(Candidate(str(number)) for number in range(40, 0, -1)))
    point = Point(COMBINED, 300, 3)
    made.tune(point)
    first, second, last = rounds
    assert (len(first[0]), first[1]) == (41, QUICK.rounds[0])
    assert second == ([*(f"{n}, by the rule" for n in range(1, 11)), RULE.name], QUICK.rounds[1])
    assert last == ([*(f"{n}, by the rule" for n in range(1, LAST + 1)), RULE.name, COPIED], QUICK.rounds[2])
    (record,) = made.results
    assert (record["winner"], record["clear"]) == ("1, by the rule", True)
    assert record["ratio"] == pytest.approx(100)
    assert record["floor_us"] == pytest.approx(point.bytes / 4e9 * 1e6)
    assert record["of_floor"] == pytest.approx(1e-6 / (point.bytes / 4e9))
    assert {each["candidate"]: each["last"] for each in record["timings"]} == {
        name: name in last[0] for name in second[0]
    }
    assert record["screened_us"]["40, by the rule"] == pytest.approx(40)
    assert FEWEST < 10


def test_wins_are_counted_for_each_shape():
    candidates = [{"name": name, "shape": name[0]} for name in ("a, rule", "a, other", "b, rule", "c, rule")]
    results = [
        {"clear": True, "winner": "b, rule", "screened_us": {"a, rule": 8.0, "b, rule": 4.0, "c, rule": 8.0}},
        {"clear": True, "winner": "a, other", "screened_us": {"a, rule": 8.0, "a, other": 2.0, "b, rule": 4.0}},
        {"clear": False, "winner": "a, rule", "screened_us": {"a, rule": 8.0, "b, rule": 16.0, "c, rule": 4.0}},
    ]
    found = {each["shape"]: each for each in wins(candidates, results)}
    assert {shape: each["won"] for shape, each in found.items()} == {"a": 1, "b": 1, "c": 0}
    assert found["a"]["of_rule"] == pytest.approx((1 / 4) ** (1 / 3))
    assert found["b"]["of_rule"] == pytest.approx((1 / 2 * 1 / 2 * 2) ** (1 / 3))
    assert (found["c"]["of_rule"], found["c"]["places"]) == (None, 2)


# --------------------------------------------------------------------------------------------------------------------
# Where the time goes.


def test_stages_are_timed_in_turn_and_not_verified():
    made = tuner()
    point = Point(COMBINED, 300, 3)
    variants = [("read", Idle("early")), ("maxima", Refusing("broken", error=RuntimeError)), ("all", RULE)]
    records = time_stages(made, clock_of(CPU), variants, point)
    assert [record["until"] for record in records] == ["read", "all"]
    assert not any(record["verified"] for record in records)
    assert [failed["candidate"] for failed in made.failed] == ["broken, by the rule"]


def test_a_stage_costs_what_it_takes_more_than_the_stage_before():
    timings = {"read": timing(3e-6), "maxima": timing(4e-6), "all": timing(9e-6)}
    records = of_stages(Point(COMBINED, 300, 3), timings)
    assert [record["added_us"] for record in records] == [pytest.approx(us) for us in (3, 1, 5)]
    assert [record["median_us"] for record in records] == [pytest.approx(us) for us in (3, 4, 9)]


# --------------------------------------------------------------------------------------------------------------------
# A run.


@pytest.fixture(scope="module")
def document():
    return tune.run(options(only=COMBINED))


def test_a_run_tries_all_candidates_everywhere(document):
    assert not document["failed"]
    assert not document["dropped"]
    points = [point for point in grid(QUICK) if point.job == COMBINED]
    assert len(document["results"]) == len(points)
    names = {each["name"] for each in document["candidates"]}
    rule = document["candidates"][0]["name"]
    for record in document["results"]:
        assert record["screened_us"].keys() | {each["candidate"] for each in record["refused"]} == names
        last = {each["candidate"]: each for each in record["timings"] if each["last"]}
        assert rule in last
        assert record["fastest"] == min(last, key=lambda name: last[name]["median_us"])
        clear = record["fastest"] != rule and last[record["fastest"]]["p90_us"] < last[rule]["p10_us"]
        assert record["clear"] == clear
        assert record["winner"] == (record["fastest"] if clear else rule)
        assert record["us"] == pytest.approx(last[record["winner"]]["median_us"])
        assert record["ratio"] == pytest.approx(last[rule]["median_us"] / record["us"])
        for each in last.values():
            assert each["ran"]
    assert sum(each["won"] for each in document["wins"]) == sum(record["clear"] for record in document["results"])
    assert document["copy_bandwidth"]["median"] > 0
    json.dumps(document)


def test_what_the_time_does_not_suffice_for_is_listed():
    document = tune.run(options(only=GREEDY, seconds=0.0))
    assert len(document["results"]) + len(document["dropped"]) == len([p for p in grid(QUICK) if p.job == GREEDY])
    assert "the time of the run was up" in document["dropped"][-1]["reason"]


def test_what_there_is_can_be_saved_after_each_place():
    saved = []
    tune.run(options(only=GREEDY), save=lambda each: saved.append((len(each["results"]), each["wins"])))
    assert [count for count, _ in saved] == list(range(1, len(saved) + 1))


def test_wishes_are_taken_back():
    runnable("cuda_host_cluster")
    rows = torch.randn(2, 300)
    made = tuner()
    work, _ = made.work_at(Point(GREEDY, 300, 1))
    wished = next(each for each in candidates_of(CPU) if each.wish == Wish(2, 1, 0))
    wished.run(work, 0)
    with warpdraw.use("cuda_host_cluster"):
        before = ops.sample(rows, 0.0).tokens
    assert torch.equal(before, rows.argmax(-1))
    impossible = Candidate(USUAL, "too many", "cuda_host_cluster", Wish(3, 1, 0))
    with pytest.raises(ValueError, match="cluster"):
        impossible.run(work, 0)
    with warpdraw.use("cuda_host_cluster"):
        assert torch.equal(ops.sample(rows, 0.0).tokens, before)


# --------------------------------------------------------------------------------------------------------------------
# The command.


def test_bench_tune_prints_and_writes(run, tmp_path):
    path = tmp_path / "tune.json"
    code, out, err = run("bench", "tune", "--device", "cpu", "--quick", "--only", GREEDY, "--json", str(path))
    assert (code, err) == (0, f"wrote {path}\n")
    document = json.loads(path.read_text())
    assert document["benchmark"] == "tune"
    assert document["method"]["winner"].startswith("the fastest if")
    assert document["shapes"] == _C.shapes
    for text in ("so the figures mean nothing", "the rule", "1 x 2000 bfloat16", "of the floor", "a copy moves"):
        assert text in out
    for each in document["wins"]:
        assert f"{each['won']} of {len(document['results'])}" in out


def test_bench_tune_shows_what_won_and_where_the_time_goes(run, monkeypatch, document):
    first = document["results"][0]
    clear = first | {"clear": True, "winner": "wide, cluster 4", "ratio": 1.25}
    unclear = first | {"clear": False, "fastest": "wide, cluster 2"}
    stages = of_stages(Point(COMBINED, 300, 3), {"read": timing(3e-6), "all": timing(9e-6)})
    won = document | {"stages": stages, "results": [clear, unclear]}
    monkeypatch.setattr("warpdraw.cli.bench_tune.run", lambda *rest, stuck: won)
    code, out, _ = run("bench", "tune", "--device", "cpu", "--quick")
    assert code == 0
    assert "1.25x" in out
    assert "wide, cluster 4" in out
    assert "the rule (unclear)" in out
    assert "3.00   6.00       9.00" in out


def test_bench_tune_fails_where_a_candidate_fails(run, monkeypatch):
    monkeypatch.setattr(tune, "candidates_of", lambda device: [RULE, Shifted("wrong")])
    code, out, err = run("bench", "tune", "--device", "cpu", "--quick", "--only", COMBINED)
    assert code == 1
    assert "warpdraw: error: wrong, by the rule, top-k 50, top-p 0.9, min-p 0.05, 3, 2000, bfloat16" in err
    assert "candidate(s) failed: wrong, by the rule does not give the tokens of the rule in every row" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "cpu"], "device: expected a GPU, or cpu with --quick"),
        (["--device", "tpu"], "device: expected cpu, cuda or cuda:N, got 'tpu'"),
        (["--device", "cpu", "--quick", "--only", "nothing"], "only: expected part of the name of a job (top-k 50, "),
        (["--device", "cpu", "--quick", "--seconds", "-1"], "seconds: expected at least 0, got -1"),
        (["--device", "cpu", "--quick", "--json", "no/such/place.json"], "json: expected a file in an existing folder"),
        (
            ["--device", "cpu", "--quick", "--stages"],
            "stages: expected kernels for a GPU built with ",
        ),
    ],
)
def test_bad_input_of_bench_tune_is_one_line_and_exit_code_2(run, arguments, message):
    code, out, err = run("bench", "tune", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"warpdraw: error: {message}")
    assert err.count("\n") == 1
