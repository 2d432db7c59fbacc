"""What Nsight Compute says of our kernels where targets are: the calls that it watches, and a table of what it wrote.

python benchmarks/profile_kernels.py run                 the calls; benchmarks/gpu.sh profile has ncu watch them
python benchmarks/profile_kernels.py run --device cpu    the same on small rows, to try it
python benchmarks/profile_kernels.py metrics             what ncu is to measure
python benchmarks/profile_kernels.py table profile.csv   a line for each kernel, from `ncu --page raw --csv`
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

import warpdraw
from warpdraw.bench.gpu import title
from warpdraw.bench.gpu_grid import QUICK, SPECULATIVE_BATCHES, SPECULATIVE_VOCABULARY, VOCABULARIES
from warpdraw.bench.gpu_jobs import COMBINED, GREEDY, REJECTION, SOFTMAX, SPECULATIVE, TEMPERED, Point, pool_of
from warpdraw.bench.gpu_methods import ours
from warpdraw.bench.gpu_speculation import our_verification

PLACES = (
    *(Point(COMBINED, VOCABULARIES[0], batch) for batch in (1, 32, 128, 256)),
    Point(TEMPERED, VOCABULARIES[0], 256),
    Point(GREEDY, VOCABULARIES[0], 256),
    Point(SOFTMAX, VOCABULARIES[0], 128, "float32"),
    Point(REJECTION, SPECULATIVE_VOCABULARY, SPECULATIVE_BATCHES[0]),
)

# Columns of the table, and what they are of ncu's metrics in its base units; several are added.
METRICS: dict[str, tuple[float, tuple[str, ...]]] = {
    "us": (1e-3, ("gpu__time_duration.sum",)),
    "MB read": (1e-6, ("dram__bytes_read.sum",)),
    "MB written": (1e-6, ("dram__bytes_write.sum",)),
    "memory %": (1, ("dram__throughput.avg.pct_of_peak_sustained_elapsed",)),
    "L2 hits %": (1, ("lts__t_sector_hit_rate.pct",)),
    "occupancy %": (1, ("sm__warps_active.avg.pct_of_peak_sustained_active",)),
    "issue slots %": (1, ("smsp__issue_active.avg.pct_of_peak_sustained_active",)),
    "bank conflicts": (
        1,
        tuple(f"l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_{way}.sum" for way in ("ld", "st")),
    ),
    "registers": (1, ("launch__registers_per_thread",)),
    "local MB": (1e-6, tuple(f"l1tex__t_bytes_pipe_lsu_mem_local_op_{way}.sum" for way in ("ld", "st"))),
}
# Warps that wait for a reason, for each instruction that is issued: ncu's section WarpStateStats has them all.
STALL = re.compile(r"smsp__average_warps_issue_stalled_(\w+)_per_issue_active\.ratio")
STALLS_SHOWN = 3
LABEL = "place"


def run(device: torch.device) -> None:
    """Each call once unseen, so that it is loaded, and once in the sight of a profiler."""
    for number, full in enumerate(PLACES):
        point = full if device.type == "cuda" else replace(full, vocab=QUICK.vocabularies[0], batch=min(full.batch, 3))
        pool = pool_of(point.vocab, point.dtype, point.logits, point.rows, 1, device)
        prepare = our_verification if point.job in SPECULATIVE else ours
        bound = prepare(point, pool, pool.inputs(point.rows, 1))
        bound.check()
        before = warpdraw.launches()
        with watched(device, f"{LABEL} {number}"):
            bound.call(0)
        ran = [name for name, count in warpdraw.launches().items() if count != before.get(name, 0)]
        print(f"{LABEL} {number}: {title(point)}: {', '.join(ran)}", flush=True)


@contextmanager
def watched(device: torch.device, name: str) -> Iterator[None]:
    """What a profiler sees, under a name; `ncu --profile-from-start off` sees nothing else."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.synchronize(device)
    torch.cuda.profiler.start()
    torch.cuda.nvtx.range_push(name)
    try:
        yield
        torch.cuda.synchronize(device)
    finally:
        torch.cuda.nvtx.range_pop()
        torch.cuda.profiler.stop()


def table(path: Path) -> list[str]:
    """Lines of Markdown; raises ValueError with what ncu said where it measured nothing."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    # The row after the header has the units.
    rows = list(csv.DictReader(lines[start:]))[1:]
    if not rows:
        said = [line for line in lines if line.startswith(("==ERROR==", "==WARNING=="))] or lines[:3]
        raise ValueError(f"file: expected kernels that ncu measured, got none: {' '.join(said) or 'an empty file'}")
    headings = ["call", "kernel", "grid", "block", *METRICS, "MB needed", "warps that wait for"]
    return ["| " + " | ".join(cells) + " |" for cells in (headings, ["---"] * len(headings), *map(_cells, rows))]


def _cells(row: dict[str, str]) -> list[str]:
    found = re.search(rf"{LABEL} (\d+)", " ".join(value for value in row.values() if value))
    point = PLACES[int(found[1])] if found and int(found[1]) < len(PLACES) else None
    cells = ["" if point is None else title(point), _name(row["Kernel Name"]), row["Grid Size"], row["Block Size"]]
    for scale, metrics in METRICS.values():
        values = [_number(row.get(metric)) for metric in metrics]
        cells.append("" if None in values else f"{scale * sum(v for v in values if v is not None):,.4g}")
    cells.append("" if point is None else f"{point.bytes * 1e-6:,.4g}")
    waits = {found[1]: _number(value) or 0.0 for name, value in row.items() if (found := STALL.fullmatch(name))}
    most = sorted(waits.items(), key=lambda each: -each[1])[:STALLS_SHOWN]
    return [*cells, ", ".join(f"{reason} {warps:.2f}" for reason, warps in most)]


def _name(demangled: str) -> str:
    """The name of a kernel without its namespaces, template arguments and parameters."""
    bare = re.sub(r"<unnamed>::|\(anonymous namespace\)::", "", demangled)
    return re.split(r"[<(]", bare)[0].split("::")[-1].split()[-1]


def _number(text: str | None) -> float | None:
    try:
        return float((text or "").replace(",", ""))
    except ValueError:
        return None


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run").add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    commands.add_parser("metrics")
    commands.add_parser("table").add_argument("file", type=Path)
    given = parser.parse_args(arguments)
    todo: dict[str, Callable[[], object]] = {
        "run": lambda: run(torch.device(given.device)),
        "metrics": lambda: print(",".join(name for _, names in METRICS.values() for name in names)),
        "table": lambda: print("\n".join(table(given.file))),
    }
    try:
        todo[given.command]()
    except (ValueError, OSError) as error:
        print(f"profile_kernels.py: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
