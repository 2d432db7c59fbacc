"""Predictions for the GPU kernels: bounds that no model may pass, counts that the sources give, and the page."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from warpdraw.bench import gpu_chains, gpu_measure
from warpdraw.bench.gpu_call import (
    COMPLETE,
    LEAN,
    ONLY_SUMS,
    TILE,
    Call,
    blocks_at_once,
    cluster_for,
    shared_of,
    tiles_of,
)
from warpdraw.bench.gpu_devices import DEVICES, LAUNCH_US, START_US, device_named
from warpdraw.bench.gpu_jobs import COMBINED, EVERYTHING, GREEDY, MIXED, SOFTMAX, SPECULATIVE, TEMPERED, Point, Pool
from warpdraw.bench.gpu_methods import OURS
from warpdraw.bench.gpu_paths import CLUSTER, SPLIT, TRITON
from warpdraw.bench.gpu_prediction import floor_us, points, predict, predicted_us, predictions, taken
from warpdraw.cli.bench_output import SURPRISE, print_surprises
from warpdraw.cli.main import main
from warpdraw.cli.terminal import stdout

PAGE = Path(__file__).parent.parent / "docs" / "predictions.md"
H200, H100 = DEVICES["h200"], DEVICES["h100"]
BATCHES = (1, 8, 32, 64, 128, 256, 512, 1024)
JOBS = (COMBINED, GREEDY, TEMPERED, SOFTMAX, EVERYTHING)


def every_path(point):
    return [predict(point, path, H200) for path in (CLUSTER, SPLIT)]


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES)
def test_nothing_is_faster_than_its_bytes_and_its_launch(device):
    for point, paths in points():
        for path in paths:
            found = predict(point, path, device)
            assert found.microseconds > floor_us(point, device) + LAUNCH_US + START_US
            assert found.bytes_read + found.bytes_written >= point.bytes
            parts = found.launch_us + found.reading_us + found.selection_us + found.tail_us
            assert found.microseconds == pytest.approx(parts)
            assert min(found.launch_us, found.reading_us, found.selection_us) > 0


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_more_rows_and_more_tokens_take_no_less(job, dtype):
    for path in (CLUSTER, SPLIT):
        for vocab in (32000, 128256, 151936):
            times = [predict(Point(job, vocab, batch, dtype), path, H200).microseconds for batch in BATCHES]
            assert times == sorted(times)
            assert times[-1] > 3 * times[0]
        for batch in BATCHES:
            times = [
                predict(Point(job, vocab, batch, dtype), path, H200).microseconds for vocab in (32000, 128256, 262144)
            ]
            assert times == sorted(times)


@pytest.mark.parametrize("job", JOBS)
def test_float32_and_the_slower_memory_take_more(job):
    for batch in (128, 256, 512):
        half, single = Point(job, 128256, batch), Point(job, 128256, batch, "float32")
        for path in (CLUSTER, SPLIT):
            assert predict(single, path, H200).microseconds > predict(half, path, H200).microseconds
            assert predict(half, path, H100).microseconds >= predict(half, path, H200).microseconds
    point = Point(GREEDY, 128256, 512)
    assert predict(point, SPLIT, H100).microseconds > 1.3 * predict(point, SPLIT, H200).microseconds


def test_filters_take_more_than_temperature_and_that_more_than_greedy():
    for batch in (128, 512):
        for path in (CLUSTER, SPLIT):
            greedy, tempered, filtered = (
                predict(Point(job, 128256, batch), path, H200) for job in (GREEDY, TEMPERED, COMBINED)
            )
            assert greedy.selection_us < tempered.selection_us < filtered.selection_us
            assert greedy.block_barriers < tempered.block_barriers < filtered.block_barriers


def test_the_plan_is_that_of_the_sources():
    """By hand from rows.cuh: V = 128256 has 2004 tiles, and 132 multiprocessors of 228 KB."""
    assert tiles_of(128256) == 2004
    assert shared_of(2004, 4, 1, 2) == 8640 + 8016 + 504 * TILE * 2
    assert [cluster_for(H200, rows, 2004, 1, 2) for rows in (1, 16, 17, 32, 512)] == [8, 8, 4, 4, 4]
    assert [cluster_for(H200, rows, 2004, 1, 4) for rows in (1, 512)] == [8, 8]
    assert cluster_for(H200, 1, tiles_of(4_000_000), 1, 4) == 0
    # Registers are given out in eights: 114 count as 120, of which two blocks of 256 threads have room.
    assert [blocks_at_once(registers, 10_000) for registers in (114, 128, 54, 55, 32)] == [2, 2, 4, 4, 8]
    assert blocks_at_once(32, 120_000) == 1
    paths = {batch: taken(Point(COMBINED, 128256, batch), H200).path for batch in (1, 32, 64, 128, 512)}
    assert paths == {1: CLUSTER, 32: CLUSTER, 64: CLUSTER, 128: SPLIT, 512: SPLIT}
    assert taken(Point(COMBINED, 128256, 64, "float32"), H200).path == SPLIT
    assert taken(Point(SOFTMAX, 128256, 512, "float32"), H200).path == CLUSTER
    assert taken(Point("verify, rejection", 151936, 32), H200).path == CLUSTER
    assert taken(Point("verify, coupled", 151936, 32), H200).path == SPLIT
    assert [found.launches for found in every_path(Point("verify, coupled", 151936, 32))] == [2, 3]


def test_registers_are_those_that_the_compiler_said():
    page = (PAGE.parent / "measured.md").read_text(encoding="utf-8")
    cells = [[cell.strip() for cell in line.split("|")] for line in page.splitlines() if line.count("|") == 5]
    said = {name: sm_90.split(",")[0] for _, name, _, sm_90, *_ in cells}
    paths = ("cluster", "split, the maxima", "split, the rest")
    for name, registers in (("sample, lean", LEAN), ("sample, every feature", COMPLETE)):
        assert [int(said[f"{name}: {path}"]) for path in paths] == list(registers)
    assert int(said["softmax: cluster"]) == ONLY_SUMS[0]


def test_a_row_that_does_not_fit_on_chip_has_the_other_path():
    point = Point(COMBINED, 4_000_000, 4, "float32")
    with pytest.raises(ValueError, match="vocab: expected a row that fits on chip, got 4000000"):
        predict(point, CLUSTER, H200)
    assert taken(point, H200).path == SPLIT


def test_the_counts_are_those_of_the_rows_of_the_benchmark():
    """The pivot (select.cuh) of peaked rows: the histogram suffices, and so many tokens reach it."""
    rows = Pool(128256, "bfloat16", "peaked", 16, torch.device("cpu")).rows.float()
    gathered = [int((row >= pivot(row.view(-1, TILE).amax(-1), 50)).sum()) for row in rows]
    assert sum(gathered) / len(gathered) == pytest.approx(gpu_chains.GATHERED, abs=4)


def pivot(maxima, k):
    """The lowest maximum of the bin where k of them are reached, of 512 from the highest down."""
    low, high = maxima.min(), maxima.max()
    bins = ((high - maxima) * (511 / (high - low))).int()
    reached = torch.bincount(bins, minlength=512).cumsum(0)
    bin = int((reached >= k).nonzero()[0])
    assert reached[bin] <= k + k // 4 + 4, "more steps than expected"
    return maxima[bins <= bin].min()


def test_fewer_cluster_barriers_take_less(monkeypatch):
    call = Point(COMBINED, 128256, 1)
    before = predict(call, CLUSTER, H200).microseconds
    monkeypatch.setitem(gpu_chains.CLUSTER_BARRIERS, gpu_chains.FILTERS, 1)
    predict.cache_clear()
    try:
        assert predict(call, CLUSTER, H200).microseconds == pytest.approx(before - 2 * gpu_chains.d.CLUSTER_BARRIER_US)
    finally:
        predict.cache_clear()


def test_a_device_is_found_by_its_name_and_others_are_unknown():
    assert device_named("NVIDIA H100 80GB HBM3") is H100
    assert device_named("NVIDIA H200") is H200
    assert device_named("NVIDIA A100-SXM4-80GB") is None
    point = Point(COMBINED, 128256, 128)
    assert predicted_us(point, OURS, None) is None
    assert predicted_us(point, "torch.softmax", H200) is None
    assert predicted_us(point, OURS, H200) == predict(point, SPLIT, H200).microseconds
    assert predicted_us(point, f"{OURS}, cuda_cluster", H200) == predict(point, CLUSTER, H200).microseconds
    assert predicted_us(point, f"{OURS}, triton", H200) == predict(point, TRITON, H200).microseconds
    assert predicted_us(replace(point, logits="normal"), OURS, H200) is None
    assert predicted_us(replace(point, cache="warm"), OURS, H200) is None
    assert predicted_us(Point(MIXED, 128256, 128), OURS, H200) is None
    assert predicted_us(Point(GREEDY, 128256, 128), f"{OURS}, triton", H200) is None


def test_what_was_predicted_wrong_is_printed_worst_first(capsys):
    def record(batch, ratio):
        known = None if ratio is None else 10.0
        return vars(Point(COMBINED, 128256, batch)) | {
            "method": OURS,
            "median_us": 10.0 * (ratio or 1),
            "predicted_us": known,
            "measured_over_predicted": ratio,
        }

    print_surprises(stdout(), [record(1, 1.2), record(8, 0.4), record(32, 1.5), record(64, None), record(128, 0.8)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"2 of 4 predictions are off by more than {SURPRISE}x (docs/predictions.md)"
    assert lines[1].startswith("0.40x the prediction: warpdraw, ")
    assert lines[1].endswith("4.00 us, predicted 10.0 us")
    assert lines[2].startswith("1.50x the prediction")
    assert len(lines) == 3
    print_surprises(stdout(), [record(1, None)])
    assert capsys.readouterr().out == ""


def test_records_of_a_known_device_hold_their_prediction(monkeypatch):
    """The harness on the CPU, told that it is on a device that is known."""
    from warpdraw.bench.gpu_clock import clock_of
    from warpdraw.bench.gpu_grid import Place

    bench = gpu_measure.Bench(clock_of(torch.device("cpu")), {}, 2, 2**10, 0.0, False)
    point = Point(COMBINED, 700, 2)
    bench.measure(Place(point))
    assert bench.results[0]["predicted_us"] is None
    assert bench.results[0]["measured_over_predicted"] is None
    monkeypatch.setattr(bench, "_known", H200)
    bench.measure(Place(point))
    last = bench.results[-1]
    assert last["predicted_us"] == taken(point, H200).microseconds
    assert last["measured_over_predicted"] == pytest.approx(last["median_us"] / last["predicted_us"])


def test_every_job_with_a_target_is_predicted():
    made = predictions(H200)
    jobs = {record["job"] for record in made}
    assert {COMBINED, GREEDY, TEMPERED, SOFTMAX, EVERYTHING, *SPECULATIVE} == jobs
    assert all(record["target_us"] for record in made)
    for record in made:
        assert record["holds"] == (record["microseconds"] <= record["target_us"])
    one = next(record for record in made if (record["job"], record["batch"]) == (COMBINED, 1))
    assert one["target_us"] == 10
    with pytest.raises(ValueError, match="job: expected one of"):
        Call.of(Point(MIXED, 100, 1))
    with pytest.raises(ValueError, match="path: expected cluster, split or triton"):
        predict(Point(GREEDY, 100, 1), "other", H200)


# --------------------------------------------------------------------------------------------------------------------
# The command and the page.


@pytest.mark.parametrize("gpu", DEVICES)
def test_the_page_shows_what_the_command_prints(gpu, capsys):
    assert main(["bench", "predict", "--gpu", gpu]) == 0
    printed = "\n".join(line.rstrip() for line in capsys.readouterr().out.strip().splitlines())
    assert f"```text\n{printed}\n```" in PAGE.read_text(encoding="utf-8"), "write the output into docs/predictions.md"


def test_the_command_writes_json_and_refuses_other_devices(capsys):
    assert main(["bench", "predict", "--json", "-"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["measured"] is False
    assert len(document["predictions"]) == sum(len(paths) for _, paths in points())
    assert main(["bench", "predict", "--gpu", "b200"]) == 2
    assert "gpu: expected one of h200, h100, got 'b200'" in capsys.readouterr().err
