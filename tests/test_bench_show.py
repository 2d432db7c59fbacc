"""Saved measurements shown again: tables, pictures and Markdown, from real runs on the CPU."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from warpdraw.bench import gpu, gpu_picture, gpu_run
from warpdraw.bench.drawing import LEFT, TALL, TOP, Line, Panel, decades, linear, logarithmic, page
from warpdraw.bench.gpu_clock import clock_of
from warpdraw.bench.gpu_grid import BATCHES, COPY, FLOOR, VOCABULARIES, Place
from warpdraw.bench.gpu_jobs import COMBINED, COUPLED, GREEDY, SOFTMAX, SPECULATIVE, Point
from warpdraw.bench.gpu_measure import HOST, Bench
from warpdraw.bench.gpu_methods import OURS, TORCH_SOFTMAX
from warpdraw.bench.gpu_targets import SHOWN, tables
from warpdraw.bench.peers import EAGER, GPU_LOADERS, IDIOM, load_peers
from warpdraw.bench.records import command
from warpdraw.cli.bench_markdown import NOT_MEASURED, markdown
from warpdraw.cli.bench_output import write_json
from warpdraw.cli.main import main

VOCAB = VOCABULARIES[0]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """What a quick run on the CPU writes."""
    path = tmp_path_factory.mktemp("show") / "gpu.json"
    assert main(["bench", "gpu", "--device", "cpu", "--quick", "--json", str(path)]) == 0
    return path


@pytest.fixture
def document(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def sized(path):
    """The same with some places of the sizes that targets are for."""
    peers, _ = load_peers({}, {name: GPU_LOADERS[name] for name in (IDIOM, EAGER)})
    bench = Bench(clock_of(torch.device("cpu")), peers, 128, 2**20, 0.0, True)
    for place in (
        Place(Point(COMBINED, VOCAB, 1), (IDIOM, EAGER)),
        Place(Point(GREEDY, VOCAB, 128)),
        Place(Point(SOFTMAX, VOCAB, 128, "float32"), (TORCH_SOFTMAX,)),
        Place(Point(COUPLED, 151936, 32)),
    ):
        bench.measure(place)
    bench.measure_host(Point(COMBINED, VOCAB, 1))
    assert not bench.failed
    measured = {name: getattr(bench, name) for name in ("results", "goals", "failed", "host")}
    return json.loads(json.dumps(json.loads(path.read_text()) | measured))


def flat(text):
    return " ".join(text.split())


def saved(tmp_path, document):
    path = tmp_path / "saved.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return str(path)


# --------------------------------------------------------------------------------------------------------------------
# Tables.


def test_what_is_shown_is_what_was_printed_when_it_was_measured(run, tmp_path):
    path = str(tmp_path / "gpu.json")
    _, printed, _ = run("bench", "gpu", "--device", "cpu", "--quick", "--only", GREEDY, "--json", path)
    code, out, err = run("bench", "show", path)
    assert (code, out, err) == (0, printed, "")
    assert "a copy moves" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ("cpu", "--quick", "--no-compile", "--only", "greedy"),
        ("verify", "--quick", "--only", "greedy"),
        ("generate", "--quick", "--only", "share"),
        ("sample", "--vocab", "300", "--batch", "2", "--seconds", "0"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_every_benchmark_can_be_shown(run, tmp_path, arguments):
    path = str(tmp_path / "any.json")
    code, printed, _ = run("bench", *arguments, "--json", path)
    assert code == 0
    code, out, err = run("bench", "show", path)
    assert (code, out, err) == (0, printed, "")
    code, _, err = run("bench", "show", path, "--markdown")
    assert (code, err.count("\n")) == (2, 1)
    assert f"markdown: expected a measurement of bench gpu, got one of '{arguments[0]}'" in err


def test_a_run_that_was_cut_off_is_shown(run, tmp_path):
    """A document as it is after the first place: no host times, no count of kernels, perhaps no bandwidth."""
    first = []

    def save(document):
        if not first:
            first.append(json.loads(json.dumps(document)))

    gpu.run(gpu_run.Options(device="cpu", quick=True, only=COMBINED), save=save)
    early = first[0]
    assert not early["host"]
    assert early["results"]
    del early["copy_bandwidth"]
    for more in ((), ("--markdown",), ("--picture", str(tmp_path / "early.svg"))):
        code, out, _ = run("bench", "show", saved(tmp_path, early), *more)
        assert code == 0
        assert "a copy moves" not in out
    ElementTree.parse(tmp_path / "early.svg")


def test_bad_input_of_bench_show_is_one_line_and_exit_code_2(run, tmp_path, document):
    def refused(message, content, *arguments):
        code, out, err = run("bench", "show", saved(tmp_path, content), *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert message in err

    refused("file: expected JSON of warpdraw bench, got ", "{")
    refused("which is of something else", "[1]")
    refused("which is of something else", {"results": []})
    refused(
        "file: expected a measurement of bench cpu, gpu, verify, generate, sample, tune, decode", {"benchmark": "chess"}
    )
    refused("which lacks 'device'", {"benchmark": "gpu"})
    refused("picture: expected a name that ends in .svg", document, "--picture", "gpu.png")
    refused("picture: expected a file in an existing folder", document, "--picture", "no/such/gpu.svg")
    other = [record for record in document["results"] if record["job"] == GREEDY]
    target = tmp_path / "none.svg"
    refused(f"picture: expected a measurement of {COMBINED!r}", document | {"results": other}, "--picture", str(target))
    assert not target.exists()
    code, _, err = run("bench", "show", str(tmp_path / "nothing.json"))
    assert (code, err.count("\n")) == (2, 1)


def test_help_of_bench_show_has_examples(run):
    code, out, _ = run("bench", "show", "--help")
    assert code == 0
    assert "warpdraw bench show gpu.json --markdown > tables.md" in out


# --------------------------------------------------------------------------------------------------------------------
# Pictures.


def lines_of(text):
    """The lines of a picture, by their style and in the order of the panels, and the texts."""
    tree, lines = ElementTree.fromstring(text), []
    for element in tree.iter():
        if "data-line" in element.attrib:
            points = [tuple(map(float, point.split())) for point in element.attrib["d"][1:].split("L")]
            lines.append((element.attrib["class"], int(element.attrib["data-line"]), points))
    return tree, lines, [element.text for element in tree.iter() if element.tag.endswith("text")]


def test_the_floor_is_drawn_at_the_time_that_a_copy_takes(document):
    of_combined = [
        record
        for record in document["results"]
        if (record["job"], record["vocab"], record["dtype"], record["logits"], record["cache"])
        == (COMBINED, 2000, "bfloat16", "peaked", "cold")
    ]
    _, lines, texts = lines_of(gpu_picture.gpu_picture(document))
    ours, floor = lines[0], next(line for line in lines if "floor" in line[0])
    assert "ours" in ours[0]
    assert len(floor[2]) == len(ours[2]) == 2
    for number, batch in enumerate((1, 3)):
        record = next(r for r in of_combined if (r["batch"], r["method"]) == (batch, OURS))
        bandwidth = record["gigabytes_per_second"] / record["of_copy_bandwidth"]
        least = batch * 2000 * 2 / bandwidth / 1000
        other = next(r for r in of_combined if (r["batch"], r["method"]) == (batch, IDIOM)) if batch == 3 else record
        assert gpu_picture.floor_us(other) == pytest.approx(least)
        shown = [r["median_us"] for r in of_combined if not r["method"].startswith(f"{OURS},")]
        floors = [gpu_picture.floor_us(r) for r in of_combined]
        upwards = decades([*shown, *floors])
        assert floor[2][number][1] == pytest.approx(TOP + TALL - upwards.position(least), abs=0.06)
        assert ours[2][number][1] == pytest.approx(TOP + TALL - upwards.position(record["median_us"]), abs=0.06)
        assert floor[2][number][0] == ours[2][number][0] > LEFT
    assert gpu_picture.FLOOR in texts


def test_the_picture_has_peers_at_the_left_and_every_job_at_the_right(document):
    document["device"]["name"] = "a & <b>"
    tree, lines, texts = lines_of(gpu_picture.gpu_picture(document))
    assert {OURS, IDIOM, EAGER, COMBINED, GREEDY, SOFTMAX} <= set(texts)
    assert not [text for text in texts if text.startswith(f"{OURS},")]
    assert any(text.startswith("a & <b>, vocabulary 2000, bfloat16") for text in texts)
    parts = {
        (record["job"], record["batch"]): 100 * record["of_copy_bandwidth"]
        for record in document["results"]
        if (record["method"], record["vocab"], record["logits"], record["cache"]) == (OURS, 2000, "peaked", "cold")
        and record["dtype"] == ("float32" if record["job"] == SOFTMAX else "bfloat16")
    }
    jobs = list(dict.fromkeys(job for job, _ in parts))
    right = [line for line in lines if line[2][0][0] > 530 and line[2][0][1] < TOP + TALL]
    assert len(right) == len(jobs) == 9
    assert not set(jobs) & set(SPECULATIVE)
    for style, job in enumerate(jobs):
        heights = [TOP + TALL - y for _, y in right[style][2]]
        scale = max(100, *(20 * -(-part // 20) for part in parts.values()))
        assert heights == pytest.approx([parts[job, batch] / scale * TALL for batch in (1, 3)], abs=0.06)
    # Two jobs of one colour have different marks.
    marks = [element.attrib["d"] for element in tree.iter() if element.attrib.get("class") == "mark f0"]
    assert len({re.sub(r"[-\d. ]+", "", mark.split("Z")[0]) for mark in marks}) == 2
    width, height = map(float, tree.attrib["viewBox"].split()[2:])
    for element in tree:
        if element.tag.endswith("text"):
            assert 0 <= float(element.attrib["x"]) <= width
            assert 0 <= float(element.attrib["y"]) <= height


def test_bench_gpu_and_bench_show_draw_the_same(run, tmp_path):
    drawn, again, path = (str(tmp_path / name) for name in ("drawn.svg", "again.svg", "gpu.json"))
    arguments = ("--device", "cpu", "--quick", "--only", COMBINED, "--json", path, "--picture", drawn)
    code, _, err = run("bench", "gpu", *arguments)
    assert (code, err) == (0, f"wrote {path}\nwrote {drawn}\n")
    code, _, err = run("bench", "show", path, "--picture", again)
    assert (code, err) == (0, f"wrote {again}\n")
    with open(drawn) as one, open(again) as other:
        assert one.read() == other.read()
    code, out, err = run("bench", "gpu", "--device", "cpu", "--quick", "--only", GREEDY, "--picture", drawn)
    assert (code, out) == (2, "")
    assert f"picture: expected no --only, or a part of {COMBINED!r}, got --only {GREEDY!r}" in err


def test_a_saved_sweep_is_drawn_as_it_was(run, tmp_path):
    drawn, again, path = (str(tmp_path / name) for name in ("drawn.svg", "again.svg", "cpu.json"))
    for benchmark in ("cpu", "verify"):
        assert run("bench", benchmark, "--quick", "--json", path, "--picture", drawn)[0] == 0
        assert run("bench", "show", path, "--picture", again)[0] == 0
        with open(drawn) as one, open(again) as other:
            assert one.read() == other.read()
    assert run("bench", "verify", "--quick", "--only", "greedy", "--json", path)[0] == 0
    code, _, err = run("bench", "show", path, "--picture", again)
    assert (code, err.count("\n")) == (2, 1)
    assert "picture: expected a measurement by number of drafts, got a document without one" in err


def test_axes():
    scale = logarithmic([1, 10, 100], 224)
    assert [scale.position(value) for value in (1, 10, 100)] == pytest.approx([12, 112, 212])
    assert logarithmic([7], 100).position(7) == 12
    assert decades([0.3, 40]).places == [0.1, 1.0, 10.0, 100.0]
    assert linear([0, 50, 100]).position(25) == TALL / 4
    lines = [Line(str(style), "peer", style, [(1, 1.0)]) for style in range(9)]
    panel = Panel("one", logarithmic([1], 400), decades([1.0, 2.0]), lines)
    texts = lines_of(page("title", "heading", "about", [panel], [lines]))[2]
    assert set("012345678") <= set(texts)


# --------------------------------------------------------------------------------------------------------------------
# Markdown.


def cells(text, heading, start):
    """The cells of the line of a table that starts so."""
    table = text.split(heading)[1]
    found = [line for line in table.splitlines() if line.startswith(f"| {start}")]
    return [cell.strip() for cell in found[0].strip("|").split("|")]


def test_markdown_has_every_line_and_says_what_was_not_measured(document):
    text = markdown(document)
    assert "the figures mean nothing" in text
    assert f"`{document['command']}`" in text
    assert document["date"][:10] in text
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["## CUDA", "## Verification", "## Triton"]
    for name, lines in tables().items():
        table = text.split(f"## {name}\n\n")[1].split("\n\n")[0].splitlines()[2:]
        assert len(table) == len(lines)
        assert all(line.endswith(f"| {NOT_MEASURED} |") for line in table)
    assert text.split("## CUDA")[0].count("\n| ") == len(SHOWN) + 2
    assert "- not measured: FlashInfer (" in text
    widths = {(line.count(" | ")) for line in text.split("## CUDA")[0].splitlines() if line.startswith("| ")}
    assert len(widths) == 1


def test_the_command_is_what_was_typed_without_the_folders_of_the_machine(tmp_path):
    typed = ["bench", "gpu", "--only", "top-p 0.9", "--json", str(tmp_path / "a b.json"), "--picture", "sub/gpu.svg"]
    assert command(typed) == "warpdraw bench gpu --only 'top-p 0.9' --json 'a b.json' --picture sub/gpu.svg"


def test_targets_are_those_of_the_grid(document):
    text = markdown(document)
    combined = "k = 50, p = 0.9, min-p = 0.05, bf16, B = 1, 32"
    assert cells(text, "## CUDA", "k = 50, p")[:2] == [combined, "<= 10 us, <= 12 us"]
    assert cells(text, "## CUDA", "the same, B")[:2] == ["the same, B = 128, 256, 512", "<= 1.5x the floor"]
    wide = "the same, fp32, B = 64, 128, 256, 512"
    assert cells(text, "## CUDA", "the same, fp32")[:2] == [wide, "<= 1.4x the floor"]
    assert cells(text, "## CUDA", "temperature")[1] == "<= 1.6x the floor"
    assert cells(text, "## CUDA", "greedy")[1] == "<= 1.25x the floor"
    assert cells(text, "## CUDA", "softmax")[1] == ">= 85 % of copy bandwidth"
    assert [cells(text, "## CUDA", f"against {name}")[1] for name in ("the eager", "FlashInfer", "sonic")] == [
        ">= 20x",
        ">= 4x",
        ">= 1.5x",
    ]
    assert cells(text, "## CUDA", "against FlashInfer")[0].endswith(f"B = {', '.join(map(str, BATCHES))}")
    assert cells(text, "## CUDA", "everything")[1] == "<= 1.5x the plain call"
    assert cells(text, "## CUDA", "host")[1] == "<= 6 us"
    assert cells(text, "## Verification", "`verify`, five drafts, coupled")[1] == "<= 1.5x the floor"
    assert cells(text, "## Verification", "`verify`, five drafts, rejection")[1] == "<= 1.6x the floor"
    assert cells(text, "## Verification", "the same against")[1] == ">= 4x"


def test_figures_are_those_of_the_goals_of_the_run(sized):
    text = markdown(sized)

    def goal(job, against):
        return next(goal for goal in sized["goals"] if (goal["job"], goal["against"]) == (job, against))

    def verdict(goal):
        return "met" if goal["met"] else "**missed**"

    def number(cell):
        return float(re.search(r"[\d,.]+(?=x| us| %)", cell)[0].replace(",", ""))

    measured = cells(text, "## CUDA", "greedy, bf16")[2]
    found = goal(GREEDY, FLOOR)
    assert number(measured) == pytest.approx(found["figure"], rel=0.01)
    assert measured.startswith("B = 128: ")
    assert f"{verdict(found)}; B = 256: {NOT_MEASURED}; B = 512: {NOT_MEASURED}" in measured
    found = goal(SOFTMAX, COPY)
    measured = cells(text, "## CUDA", "softmax")[2]
    assert int(re.search(r"(\d+) %", measured)[1]) == pytest.approx(100 / found["figure"], abs=0.51)
    assert verdict(found) in measured
    found = goal(COMBINED, IDIOM)
    measured = cells(text, "## CUDA", "against the eager")[2]
    assert number(measured) == pytest.approx(found["figure"], rel=0.01)
    assert verdict(found) in measured
    found = goal(COMBINED, "microseconds")
    assert number(cells(text, "## CUDA", "k = 50")[2]) == pytest.approx(found["ours_us"], rel=0.05)
    found = goal(COMBINED, HOST)
    measured = cells(text, "## CUDA", "host")[2]
    assert number(measured) == pytest.approx(found["ours_us"], rel=0.05)
    assert f"{verdict(found)}; B = 128: {NOT_MEASURED}" in measured
    found = goal(COUPLED, FLOOR)
    measured = cells(text, "## Verification", "`verify`, five drafts, coupled")[2]
    assert measured.startswith(f"{COUPLED}: ")
    assert number(measured) == pytest.approx(found["figure"], rel=0.01)
    row = cells(text, f"`{sized['command']}`", f"{COMBINED}, bf16")
    record = next(r for r in sized["results"] if (r["job"], r["method"]) == (COMBINED, OURS))
    assert row[1] == "1"
    assert number(row[2]) == pytest.approx(record["median_us"], rel=0.05)
    idiom = goal(COMBINED, IDIOM)
    assert f"({idiom['figure']:,.0f}x)" in row[4] or f"({idiom['figure']:.1f}x)" in row[4]
    assert f"transformers warpers: {NOT_MEASURED}" in row[4]


def test_a_target_at_its_very_figure_is_met_and_beyond_it_is_missed(sized):
    """Nothing of the tables is kept elsewhere: a change of a time changes its line."""

    def with_time(factor):
        changed = json.loads(json.dumps(sized))
        record = next(r for r in changed["results"] if (r["job"], r["method"]) == (GREEDY, OURS))
        floor = record["median_us"] * record["of_copy_bandwidth"]
        record |= {"median_us": factor * floor, "of_copy_bandwidth": 1 / factor}
        return cells(markdown(changed), "## CUDA", "greedy")[2]

    assert with_time(1.2).startswith("B = 128: 1.20x (")
    assert ", met;" in with_time(1.2)
    assert ", **missed**;" in with_time(1.3)


def test_markdown_lists_what_failed_and_what_was_dropped(run, tmp_path, document):
    place = {"job": GREEDY, "vocab": 1, "batch": 2, "dtype": "d", "logits": "l", "cache": "c"}
    document["failed"] = [place | {"method": "m", "kind": "k", "reason": "r | s"}]
    document["dropped"] = [place | {"reason": "late"}]
    code, out, err = run("bench", "show", saved(tmp_path, document), "--markdown")
    assert (code, err) == (0, "")
    assert f"- failed: m, {GREEDY}, 2, 1, d, l, c: r | s" in out
    assert "- 1 places were dropped: late" in out


# --------------------------------------------------------------------------------------------------------------------
# Files.


def test_a_file_is_replaced_by_a_whole_one_or_not_at_all(tmp_path, monkeypatch):
    path, link = tmp_path / "real" / "gpu.json", tmp_path / "link.json"
    path.parent.mkdir()
    link.symlink_to(path)
    write_json(str(link), {"first": 1})
    assert json.loads(path.read_text()) == {"first": 1}
    assert link.is_symlink()

    def stopped(self, text, **more):
        whole(self, text[:5], **more)
        raise KeyboardInterrupt

    whole = Path.write_text
    monkeypatch.setattr(Path, "write_text", stopped)
    with pytest.raises(KeyboardInterrupt):
        write_json(str(path), {"second": 2})
    monkeypatch.undo()
    assert json.loads(path.read_text()) == {"first": 1}
    write_json(str(path), {"third": 3})
    assert [each.name for each in path.parent.iterdir()] == ["gpu.json"]
    write_json("/dev/null", {"fourth": 4})
    assert Path("/dev/null").is_char_device()
