"""The harness for GPUs, tried on the CPU: verified before and after timing, floors, order of the grid, time limit."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import warpdraw
from warpdraw.bench import gpu, gpu_measure, gpu_methods, gpu_run, gpu_work
from warpdraw.bench.gpu_clock import WALL, HostClock, clock_of
from warpdraw.bench.gpu_grid import FLOOR, PLAIN, QUICK, Place, Sizes, goals_of, grid, methods_of
from warpdraw.bench.gpu_jobs import (
    COMBINED,
    EVERYTHING,
    GREEDY,
    HISTORY,
    JOINT,
    MIXED,
    ROWS_OF,
    SOFTMAX,
    TEMPERED,
    Point,
    Pool,
    arguments,
    parameters,
)
from warpdraw.bench.gpu_methods import OURS, of_peer, ours
from warpdraw.bench.harness import Timing
from warpdraw.bench.peers import EAGER, FLASHINFER, GPU_LOADERS, IDIOM, SONIC, TRANSFORMERS, Absent, load_peers
from warpdraw.bench.verify import NotVerified

CPU = torch.device("cpu")
SCRIPT = Path(__file__).parent.parent / "benchmarks" / "gpu.sh"


@pytest.fixture(scope="module")
def pool():
    return Pool(700, "bfloat16", "peaked", 12, CPU)


def bound(job, pool, path=None, batch=3):
    point = Point(job, pool.rows.shape[1], batch)
    return ours(point, pool, pool.inputs(batch, 4), path)


# --------------------------------------------------------------------------------------------------------------------
# The grid.


def test_the_grid_holds_every_combination_once_and_what_has_targets_first():
    places = grid(Sizes())
    points = [place.point for place in places]
    assert len(set(points)) == len(points)
    for vocab in (32000, 128256, 151936, 262144):
        for batch in (1, 8, 32, 64, 128, 256, 512):
            for dtype in ("bfloat16", "float32"):
                for logits in ("peaked", "normal"):
                    for job in (COMBINED, GREEDY, TEMPERED, MIXED, EVERYTHING, SOFTMAX):
                        assert Point(job, vocab, batch, dtype, logits) in points
    with_target = [
        number
        for number, place in enumerate(places)
        if any(goal.target and goal.against in (FLOOR, "the plain call", "microseconds") for goal in goals_of(place))
    ]
    targets = [places[number].point for number in with_target if places[number].point.logits == "peaked"]
    assert len(targets) > 20
    assert all(points.index(point) < 120 for point in targets if point.vocab == 128256 and point.dtype == "bfloat16")
    assert points[0] == Point(COMBINED, 128256, 1)


def test_the_targets_are_those_of_the_issue():
    def target(point, against):
        found = [goal for goal in goals_of(Place(point, (IDIOM, FLASHINFER, SONIC))) if goal.against == against]
        return found[0].target if found else None

    assert target(Point(COMBINED, 128256, 1), "microseconds") == 10
    assert target(Point(COMBINED, 128256, 32), "microseconds") == 12
    assert [target(Point(COMBINED, 128256, batch), FLOOR) for batch in (64, 128, 512)] == [None, 1.5, 1.5]
    assert [target(Point(COMBINED, 128256, batch, "float32"), FLOOR) for batch in (32, 64, 512)] == [None, 1.4, 1.4]
    assert target(Point(TEMPERED, 128256, 128), FLOOR) == 1.6
    assert target(Point(GREEDY, 128256, 256), FLOOR) == 1.25
    copied = "one read and one write at copy bandwidth"
    assert target(Point(SOFTMAX, 128256, 128, "float32"), copied) == pytest.approx(1 / 0.85)
    assert target(Point(EVERYTHING, 128256, 8), "the plain call") == 1.5
    assert target(Point(COMBINED, 128256, 8), IDIOM) == 20
    assert target(Point(JOINT, 128256, 8), FLASHINFER) == 4
    assert target(Point(COMBINED, 128256, 8), SONIC) == 1.5
    assert target(Point(COMBINED, 128256, 128, cache="warm"), FLOOR) is None


def test_peers_are_measured_on_what_they_can_do():
    peers = tuple(GPU_LOADERS)
    assert SONIC not in methods_of(Place(Point(COMBINED, 100, 1, "float32"), peers))
    assert FLASHINFER not in methods_of(Place(Point(COMBINED, 100, 1), peers))
    assert methods_of(Place(Point(MIXED, 100, 1), peers)) == ()
    assert methods_of(Place(Point(GREEDY, 100, 1), peers)) == ("torch.argmax",)


def test_a_point_counts_what_must_be_moved():
    assert Point(COMBINED, 1000, 4).bytes == 8000
    assert Point(COMBINED, 1000, 4, "float32").bytes == 16000
    assert Point(SOFTMAX, 1000, 4, "float32").bytes == 32000
    assert Point(SOFTMAX, 1000, 4).bytes == 24000


# --------------------------------------------------------------------------------------------------------------------
# Inputs.


def test_rows_are_those_of_their_distribution_and_inputs_do_not_overlap(pool):
    assert pool.rows.dtype == torch.bfloat16
    assert all(13 < largest <= 16 for largest in pool.rows.float().amax(-1).tolist())
    inputs = pool.inputs(5, 9)
    assert [(rows.start, rows.stop) for rows in inputs] == [(0, 5), (5, 10)]
    assert pool.first(3) is pool.first(3)
    normal = Pool(700, "float32", "normal", 70, CPU).rows
    assert normal.std().item() == pytest.approx(3, rel=0.05)


def test_parameters_are_tensors_and_a_mix_has_every_kind_of_row():
    made = parameters(MIXED, 7, CPU)
    assert all(value.shape == (7,) for value in made.values())
    assert {round(value, 2) for value in made["temperature"].tolist()} == {0.0, 0.7, 1.0}
    assert set(made["top_k"].tolist()) == {0, 50}
    assert len(ROWS_OF[MIXED]) == 5


def test_everything_is_on_and_changes_what_is_drawn(pool):
    given = arguments(Point(EVERYTHING, 700, 3), pool, slice(0, 3))
    assert given["history"].shape == (3, HISTORY)
    assert {"bias", "bitmask", "repetition_penalty", "logprob", "top_n"} <= given.keys()
    result = warpdraw.sample(pool.rows[:3], **given)
    assert result.valid.all()
    assert result.top_ids.shape == (3, 20)
    for name, neutral in (("bitmask", -1), ("bias", 0.0)):
        without = {**given, name: torch.full_like(given[name], neutral)}
        assert not torch.equal(
            warpdraw.filter_probs(pool.rows[:3], **filters(without)),
            warpdraw.filter_probs(pool.rows[:3], **filters(given)),
        )


def filters(given):
    names = {spec.name for spec in warpdraw.filter_probs.contract.inputs}
    # Without filters, so that every token shows what was done to it.
    return {name: value for name, value in given.items() if name in names} | {"top_k": 0, "top_p": 1.0, "min_p": 0.0}


# --------------------------------------------------------------------------------------------------------------------
# Methods.


@pytest.mark.parametrize("job", [COMBINED, GREEDY, MIXED, EVERYTHING, SOFTMAX])
@pytest.mark.parametrize("path", [None, "scalar"])
def test_ours_is_verified_by_what_it_wrote(job, path, pool):
    method = bound(job, pool, path)
    method.check()
    method.poison()
    with pytest.raises(NotVerified, match="does not give"):
        method.compare()
    for number in range(4):
        method.call(number)
    method.compare()


def test_a_wrong_token_is_found(pool, monkeypatch):
    right = gpu_work.ops.sample

    def wrong(logits, *args, **kwargs):
        result = right(logits, *args, **kwargs)
        if "tokens" in kwargs:
            result.tokens[-1] += 1
        return result

    monkeypatch.setattr(gpu_work.ops, "sample", wrong)
    method = bound(COMBINED, pool)
    with pytest.raises(NotVerified, match="warpdraw does not give the tokens of the CPU backend"):
        method.check()


def test_another_path_than_the_forced_one_is_found(pool, monkeypatch):
    monkeypatch.setattr(gpu_methods, "use", lambda name: warpdraw.use("scalar"))
    with pytest.raises(NotVerified, match=r"warpdraw, portable ran scalar\.sample"):
        bound(COMBINED, pool, "portable").check()


@pytest.mark.parametrize("name", [IDIOM, EAGER, TRANSFORMERS])
def test_a_peer_is_verified_where_it_runs(name, pool):
    try:
        peer = GPU_LOADERS[name]()
    except Absent as error:
        pytest.skip(str(error))
    point = Point(COMBINED, 700, 3)
    of_peer(name, peer, point, pool, pool.inputs(3, 2)).check()
    wrong = replace(peer, draw=lambda logits, job: logits.argmin(-1))
    with pytest.raises(NotVerified):
        of_peer(name, wrong, point, pool, pool.inputs(3, 2)).check()
    draws_only = replace(peer, probs=None)
    of_peer(name, draws_only, point, pool, pool.inputs(3, 2)).check()


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
def test_peers_that_need_a_gpu_say_so():
    _, absent = load_peers({}, {name: GPU_LOADERS[name] for name in (FLASHINFER, SONIC)})
    assert "needs a CUDA device" in absent[FLASHINFER]
    assert "needs a CUDA device" in absent[SONIC]


# --------------------------------------------------------------------------------------------------------------------
# Clocks.


def test_each_input_has_its_turn_equally_often():
    clock, seen = clock_of(CPU), []
    assert isinstance(clock, HostClock)
    run = clock.bind(seen.append, 3)
    assert run.way == WALL
    seen.clear()
    assert 0 < run.seconds() < 1
    assert run.calls == len(seen) == 21
    assert seen == [0, 1, 2] * 7


def test_methods_take_turns():
    order = []
    clock = clock_of(CPU)
    runs = {name: clock.bind(lambda number, name=name: order.append(name), 1) for name in "ab"}
    order.clear()
    timings = clock.time_in_turn(runs, 0.0)
    changes = [first for first, second in zip(order, [*order[1:], None], strict=True) if first != second]
    assert changes == ["a", "b"] * (len(changes) // 2)
    assert timings["a"].calls == timings["b"].calls == len(changes) // 2 >= 5


# --------------------------------------------------------------------------------------------------------------------
# A run.


def options(**changes):
    return gpu_run.Options(device="cpu", quick=True, **changes)


@pytest.fixture(scope="module")
def document():
    return gpu.run(options(only=COMBINED))


def test_a_run_measures_every_place_with_its_floor(document):
    assert not [failed for failed in document["failed"] if failed["method"].startswith(OURS)]
    assert not document["dropped"]
    places = {(r["vocab"], r["batch"], r["dtype"], r["logits"], r["cache"]) for r in document["results"]}
    assert len(places) == len([place for place in grid(QUICK) if place.point.job == COMBINED])
    for record in document["results"]:
        assert record["p10_us"] <= record["median_us"] <= record["p90_us"]
        assert record["bytes"] == Point(COMBINED, record["vocab"], record["batch"], record["dtype"]).bytes
        assert record["gigabytes_per_second"] == pytest.approx(record["bytes"] / record["median_us"] / 1000)
        assert (record["ran"] != []) == record["method"].startswith(OURS)
        if record["method"] == f"{OURS}, portable":
            assert record["ran"] == ["portable.sample"]
    methods = {record["method"] for record in document["results"]}
    assert {OURS, f"{OURS}, portable", IDIOM, EAGER, "one read (amax)"} <= methods
    assert all(goal["met"] is None for goal in document["goals"])
    medians = {(r["vocab"], r["batch"], r["dtype"], r["logits"], r["cache"], r["method"]): r["median_us"]
               for r in document["results"]}  # fmt: skip
    checked = 0
    for goal in document["goals"]:
        if goal["against"] == IDIOM and goal["figure"] is not None:
            where = tuple(goal[key] for key in ("vocab", "batch", "dtype", "logits", "cache"))
            assert goal["figure"] == pytest.approx(medians[(*where, IDIOM)] / medians[(*where, OURS)])
            checked += 1
    assert checked
    assert document["host"][0]["median_us"] > 0
    assert document["copy_bandwidth"]["median"] > 0
    assert document["device"]["type"] == "cpu"
    json.dumps(document)


def test_what_the_time_does_not_suffice_for_is_listed():
    saved = []
    document = gpu.run(options(only=GREEDY, seconds=0.0), save=lambda each: saved.append(len(each["results"])))
    assert len(document["dropped"]) == len([place for place in grid(QUICK) if place.point.job == GREEDY])
    assert "the time of the run was up" in document["dropped"][0]["reason"]
    assert saved


def test_what_fails_is_recorded_and_the_rest_is_measured(monkeypatch):
    def broken(name, *rest):
        raise RuntimeError(f"{name} broke\nsecond line")

    monkeypatch.setattr(gpu_measure, "of_peer", broken)
    document = gpu.run(options(only=GREEDY))
    assert {failed["reason"] for failed in document["failed"]} == {"torch.argmax broke"}
    assert all(record["method"].startswith(OURS) for record in document["results"])
    monkeypatch.undo()
    monkeypatch.setattr(HostClock, "synchronize", broken)
    document = gpu.run(options(only=GREEDY))
    assert document["dropped"][0]["reason"].startswith("the device failed: ")
    assert not document["host"]


def test_outputs_that_timing_left_wrong_are_not_reported(monkeypatch):
    real = HostClock.time_in_turn
    monkeypatch.setattr(HostClock, "time_in_turn", lambda self, runs, seconds: real(self, untouched(runs), seconds))
    document = gpu.run(options(only=GREEDY))
    assert {failed["kind"] for failed in document["failed"]} == {"not verified"}
    assert {record["method"] for record in document["results"]} == {"torch.argmax"}


def untouched(runs):
    """The same runs, of which none runs anything."""
    return {name: replace(run, seconds=lambda: 1e-6) for name, run in runs.items()}


def test_everything_is_compared_with_the_plain_call():
    place = Place(Point(EVERYTHING, 300, 2))
    bench = gpu_measure.Bench(clock_of(CPU), {}, 3, 2**20, 0.0, True)
    bench.measure(place)
    assert not bench.failed
    goal = next(goal for goal in bench.goals if goal["against"] == "the plain call")
    assert goal["figure"] == pytest.approx(goal["ours_us"] / goal["other_us"])
    assert {record["method"] for record in bench.results} == {OURS, PLAIN}


def test_the_floor_is_the_time_of_a_copy_of_the_bytes(monkeypatch):
    fixed = {OURS: Timing(4e-6, 4e-6, 4e-6, 5), FLOOR: Timing(1e-3, 1e-3, 1e-3, 5)}
    monkeypatch.setattr(HostClock, "time_in_turn", lambda self, runs, seconds: dict(fixed))
    monkeypatch.setattr(gpu_measure, "ours", lambda *rest: replace(real(*rest), compare=lambda: None))
    bench = gpu_measure.Bench(clock_of(CPU), {}, 3, 2**20, 0.0, True)
    bench.measure(Place(Point(GREEDY, 1000, 2)))
    bandwidth = 2 * 2**20 / 1e-3
    goal = next(goal for goal in bench.goals if goal["against"] == FLOOR)
    assert goal["other_us"] == pytest.approx(2 * 1000 * 2 / bandwidth * 1e6)
    assert goal["figure"] == pytest.approx(4 / goal["other_us"])
    assert bench.results[0]["of_copy_bandwidth"] == pytest.approx(goal["other_us"] / 4)


real = gpu_measure.ours


# --------------------------------------------------------------------------------------------------------------------
# The command and the script.


def test_bench_gpu_prints_and_writes(run, tmp_path):
    path = tmp_path / "gpu.json"
    code, out, err = run("bench", "gpu", "--device", "cpu", "--quick", "--only", EVERYTHING, "--json", str(path))
    assert (code, err) == (0, f"wrote {path}\n")
    document = json.loads(path.read_text())
    assert document["benchmark"] == "gpu"
    assert document["method"]["timing"].startswith("events around replays")
    assert "the plain call" in out
    assert "so the figures mean nothing" in out
    assert "a copy moves" in out


def test_bench_gpu_fails_where_ours_fails(run, monkeypatch):
    for module in (gpu_methods, gpu_work):
        monkeypatch.setattr(module, "check_close", lambda name, *rest: (_ for _ in ()).throw(NotVerified("is off")))
    code, out, err = run("bench", "gpu", "--device", "cpu", "--quick", "--only", SOFTMAX)
    assert code == 1
    assert "warpdraw: error: warpdraw, softmax, 1, 2000, float32, peaked, cold: is off" in err
    assert "failed: torch.softmax" in " ".join(out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "cpu"], "device: expected a GPU, or cpu with --quick"),
        (["--device", "tpu"], "device: expected cpu, cuda or cuda:N, got 'tpu'"),
        (["--device", "cpu", "--quick", "--only", "nothing"], "only: expected part of the name of a job (top-k 50, "),
        (["--device", "cpu", "--quick", "--seconds", "-1"], "seconds: expected at least 0, got -1"),
        (["--device", "cpu", "--quick", "--json", "no/such/place.json"], "json: expected a file in an existing folder"),
    ],
)
def test_bad_input_of_bench_gpu_is_one_line_and_exit_code_2(run, arguments, message):
    code, out, err = run("bench", "gpu", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"warpdraw: error: {message}")
    assert err.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
@pytest.mark.parametrize("command", ["gpu", "tune", "decode"])
def test_without_a_gpu_there_is_one_line(run, command):
    code, out, err = run("bench", command)
    assert (code, out) == (2, "")
    assert err.startswith("warpdraw: error: device cuda: ")


def test_the_script_knows_its_stages():
    done = subprocess.run(["bash", "-n", SCRIPT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run(["bash", SCRIPT, "bogus"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "expected build, test, sanitize, bench, triton, profile, tune or decode, got 'bogus'" in done.stderr
