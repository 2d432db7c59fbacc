"""benchmarks/gpu.sh as far as it can be tried without a GPU: stages, what a bare machine collects, profiles."""

import csv
import importlib.util
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

import warpdraw
from warpdraw.bench.gpu import title
from warpdraw.bench.gpu_targets import tables
from warpdraw.op import OPS

ROOT = Path(__file__).parent.parent
SCRIPT, PLACES = ROOT / "benchmarks" / "gpu.sh", ROOT / "benchmarks" / "profile_kernels.py"
# Where Python finds the package that is tested, installed or not.
SEARCH = os.pathsep.join(filter(None, (str(Path(warpdraw.__file__).parent.parent), os.environ.get("PYTHONPATH"))))
# What extras install, and peers: a machine with a GPU need not have them.
OPTIONAL = ("llguidance", "matplotlib", "xdist", "llama_cpp", "flashinfer", "sonic_sampler")


@pytest.fixture(scope="module")
def profile():
    """The module of benchmarks/profile_kernels.py."""
    spec = importlib.util.spec_from_file_location("profile_kernels", PLACES)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def gpu_sh(tmp_path, *stages, **variables):
    out = tmp_path / "out"
    variables = os.environ | {"OUT": str(out), "PYTHON": sys.executable, "PYTHONPATH": SEARCH} | variables
    done = subprocess.run(["bash", SCRIPT, *stages], capture_output=True, text=True, check=False, env=variables)
    return done, sorted(path.name for path in out.iterdir())


def test_the_tests_for_a_gpu_are_collected_where_no_extra_is_installed(tmp_path):
    """And those of the kernels themselves come first, in case the time does not suffice."""
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys\nfor name in {OPTIONAL}:\n    sys.modules[name] = None  # importing it fails\n"
    )
    search = os.pathsep.join((str(tmp_path), SEARCH))
    more = {"GPU_TEST_ARGS": "--collect-only", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done, files = gpu_sh(tmp_path, "test", PYTHONPATH=search, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    collected = [line for line in done.stdout.splitlines() if "::" in line]
    assert len(collected) > 500
    assert collected[0].startswith("tests/test_gpu.py::")
    assert {name.split("::")[0] for name in collected} >= {"tests/test_sampler.py", "tests/test_every_backend.py"}
    assert "ERROR" not in done.stdout
    assert "triton" not in done.stdout
    assert files == ["test.log"]


def test_the_sanitizers_watch_the_cuda_kernels_alone(tmp_path):
    """Triton compiles for longer than a sanitizer has."""
    program = tmp_path / "bin" / "compute-sanitizer"
    program.parent.mkdir()
    # It runs the tests that it is to watch, but for those of a GPU: collecting them is enough.
    body = 'while [ $# -gt 0 ] && [ "$1" != "$PYTHON" ]; do shift; done\n[ $# -gt 0 ] && "$@" --collect-only\n'
    program.write_text(f"#!/bin/bash\n{body}")
    program.chmod(0o755)
    done, files = gpu_sh(tmp_path, "sanitize", PATH=f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    assert done.returncode == 0, done.stdout + done.stderr
    watched = [line for line in done.stdout.splitlines() if "::" in line]
    assert len(watched) == 3 * len(OPS) * 3  # three tools, three paths
    assert all("test_for_a_sanitizer[cuda" in line for line in watched)
    assert files == ["sanitize.log"]


def test_a_stage_that_is_out_of_time_says_so(tmp_path):
    done, files = gpu_sh(tmp_path, "profile", GPU_SECONDS="5")
    assert done.returncode == 1
    assert "== profile: no time left" in done.stdout
    assert "failed: profile" in done.stdout
    assert files == ["profile.log"]


def test_the_calls_that_a_profiler_watches_run_on_the_cpu():
    done = subprocess.run(
        [sys.executable, PLACES, "run", "--device", "cpu"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": SEARCH},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"place {number}" for number in range(8)]
    for number, op in enumerate(["sample"] * 6 + ["softmax", "verify"]):
        assert lines[number].endswith(f".{op}")


def test_the_places_of_a_profile_are_those_of_targets(profile):
    of_targets = {target.point for lines in tables().values() for line in lines for target in line.targets}
    assert len(set(profile.PLACES)) == len(profile.PLACES) == 8
    assert set(profile.PLACES) <= of_targets
    assert max(point.batch for point in profile.PLACES) == 256


def exported(profile, kernels):
    """A file as ncu writes it: what it says, a header, a row of units, and a row for each kernel."""
    nvtx = "thread Domain:Push/Pop_Range:PL_Type:PL_Value:CLR_Type:Color:Msg_Type:Msg"
    metrics = [name for _, names in profile.METRICS.values() for name in names]
    reasons = ("barrier", "long_scoreboard", "wait", "no_instruction")
    stalls = [f"smsp__average_warps_issue_stalled_{reason}_per_issue_active.ratio" for reason in reasons]
    header = ["ID", "Process ID", nvtx, "Kernel Name", "Block Size", "Grid Size", *metrics, *stalls]
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(header)
    writer.writerow(["", "", "", "", "", "", *("byte" for _ in metrics), *("inst" for _ in stalls)])
    for number, (place, name, values) in enumerate(kernels):
        label = "" if place is None else f'7  "<default domain>:place {place}:none:none:none:none:none:none"'
        cells = [values.get(metric, "") for metric in metrics]
        writer.writerow([number, 7, label, name, "(256, 1, 1)", "(4, 128, 1)", *cells, "0.50", "3.25", "1.10", "2.00"])
    return "==PROF== Connected to process 7\n==PROF== Profiling 1/1: 10 passes\n" + text.getvalue()


def test_a_profile_becomes_a_table(profile, tmp_path):
    values = {
        "gpu__time_duration.sum": "12,345",
        "dram__bytes_read.sum": "32,900,000",
        "dram__bytes_write.sum": "1,500",
        "dram__throughput.avg.pct_of_peak_sustained_elapsed": "81.25",
        "lts__t_sector_hit_rate.pct": "10.5",
        "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_ld.sum": "1,000",
        "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_st.sum": "24",
        "launch__registers_per_thread": "114",
        "l1tex__t_bytes_pipe_lsu_mem_local_op_ld.sum": "2,000,000",
        "l1tex__t_bytes_pipe_lsu_mem_local_op_st.sum": "1,000,000",
    }
    names = (
        "void warpdraw::cuda::<unnamed>::cluster<warpdraw::cuda::Half<1>, 0>(warpdraw::cuda::Task)",
        "void warpdraw::cuda::(anonymous namespace)::walk<3>(int)",
    )
    path = tmp_path / "profile.csv"
    path.write_text(exported(profile, [(2, names[0], values), (None, names[1], {})]))
    lines = profile.table(path)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len({len(row) for row in cells}) == 1
    first = dict(zip(cells[0], cells[2], strict=True))
    assert first["call"] == title(profile.PLACES[2])
    assert first["kernel"] == "cluster"
    assert (first["us"], first["MB read"], first["memory %"], first["L2 hits %"]) == ("12.35", "32.9", "81.25", "10.5")
    assert (first["bank conflicts"], first["registers"], first["local MB"]) == ("1,024", "114", "3")
    assert first["occupancy %"] == ""
    assert first["MB needed"] == f"{profile.PLACES[2].bytes * 1e-6:,.4g}" == "32.83"
    assert first["warps that wait for"] == "long_scoreboard 3.25, no_instruction 2.00, wait 1.10"
    second = dict(zip(cells[0], cells[3], strict=True))
    assert (second["call"], second["kernel"], second["us"], second["MB needed"]) == ("", "walk", "", "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "an empty file"),
        ("==ERROR== ERR_NVGPUCTRPERM - no permission\n", "ERR_NVGPUCTRPERM - no permission"),
        ("==WARNING== No kernels were profiled.\n", "No kernels were profiled."),
        ('"ID","Kernel Name"\n"",""\n', "got none"),
    ],
)
def test_a_profile_without_kernels_is_refused_with_what_ncu_said(profile, tmp_path, capsys, content, message):
    path = tmp_path / "profile.csv"
    path.write_text(content)
    assert profile.main(["table", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("profile_kernels.py: error: file: expected kernels that ncu measured")
    assert message in captured.err
    assert profile.main(["table", str(tmp_path / "none.csv")]) == 2


FAKE = """#!/bin/bash
[ "$1" = --version ] && echo "Version 1" && exit
while [ "$1" != --log-file ]; do
  [ "$1" = --metrics ] && metrics=$2
  shift
done
{body}
"""


def with_ncu(tmp_path, body):
    """A search path with a program in place of ncu, which needs a GPU."""
    program = tmp_path / "bin" / "ncu"
    program.parent.mkdir()
    program.write_text(FAKE.replace("{body}", body))
    program.chmod(0o755)
    return f"{program.parent}{os.pathsep}{os.environ['PATH']}"


def test_the_stage_writes_what_ncu_measured(tmp_path, profile):
    measured = tmp_path / "measured.csv"
    kernel = [(5, "void warpdraw::cuda::cluster(int)", {"gpu__time_duration.sum": "9,000"})]
    measured.write_text(exported(profile, kernel))
    # It watches the calls of the script, here on the CPU.
    body = f'cp {measured} "$2"; [ "$metrics" = "$("$PYTHON" {PLACES} metrics)" ] && shift 2 && "$@" --device cpu'
    done, files = gpu_sh(tmp_path, "profile", PATH=with_ncu(tmp_path, body))
    assert done.returncode == 0, done.stdout + done.stderr
    assert files == ["profile.csv", "profile.log", "profile.md"]
    assert "place 7: verify, rejection" in done.stdout
    table = (tmp_path / "out" / "profile.md").read_text()
    assert f"| {title(profile.PLACES[5])} | cluster |" in table
    assert table in (tmp_path / "out" / "profile.log").read_text()


@pytest.mark.parametrize("status", [0, 1])
def test_the_stage_fails_where_ncu_refuses(tmp_path, status):
    body = f'echo "==ERROR== ERR_NVGPUCTRPERM - no permission" >"$2"; exit {status}'
    done, _ = gpu_sh(tmp_path, "profile", PATH=with_ncu(tmp_path, body))
    assert done.returncode == 1
    assert "ERR_NVGPUCTRPERM - no permission" in done.stdout
    assert "failed: profile" in done.stdout
