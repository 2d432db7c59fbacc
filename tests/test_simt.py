"""The primitives of the CUDA kernels, as fibers run them on the host, against their definitions (csrc/cuda/simt.h).

Faults of kernels (a barrier left out, diverging barriers, memory overrun) must be seen where no GPU is.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import random
import re
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from planting import COMPILER, CSRC, command

pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="no C++ compiler"),
    pytest.mark.skipif(not CSRC.exists(), reason="no C++ sources beside the tests"),
]

KERNELS = Path(__file__).parent / "simt" / "kernels.cpp"
ORDERS = ("forward", "reverse", "random:1", "random:2", "random:3", "random:4")
THREADS, WARP = 64, 32
FLAGS = ["-std=gnu++20", "-O1", "-fPIC", "-Wall", "-Wextra", "-I", CSRC]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-g"]
FIBERS = [CSRC / "cuda_host" / name for name in ("fiber.cpp", "scheduler.cpp")]


@pytest.fixture(scope="module")
def builds(tmp_path_factory):
    """A future for each build, two at a time: the library as it is, with ucontext, and a program under sanitizers."""
    folder = tmp_path_factory.mktemp("simt")

    def build(name, *flags):
        command(*FLAGS, *flags, KERNELS, *FIBERS, "-o", folder / name)
        return folder / name

    with ThreadPoolExecutor(2) as pool:
        yield {
            "by hand": pool.submit(build, "hand.so", "-shared"),
            "sanitized": pool.submit(build, "sanitized", *SANITIZERS),
            "ucontext": pool.submit(build, "ucontext.so", "-shared", "-DWARPDRAW_UCONTEXT"),
        }


@pytest.fixture(params=["by hand", "ucontext"])
def run(request, builds):
    """Launches a kernel of kernels.cpp: what it put out, or its complaint."""
    native = ctypes.CDLL(str(builds[request.param].result())).run
    native.restype = ctypes.c_char_p

    def launch(kernel, given=(), blocks=(1, 1), cluster=1, shared=1024, fault=0, outputs=64):
        given, out = (ctypes.c_int64 * max(len(given), 1))(*given), (ctypes.c_int64 * outputs)()
        grid = *map(ctypes.c_longlong, blocks), ctypes.c_int(cluster), ctypes.c_size_t(shared)
        complaint = native(kernel.encode(), *grid, ctypes.c_int(fault), given, out).decode()
        return complaint or list(out)

    return launch


@pytest.fixture(params=ORDERS)
def order(request, monkeypatch):
    monkeypatch.setenv("WARPDRAW_FIBERS", request.param)
    return request.param


def rows(flat, width):
    return [flat[i : i + width] for i in range(0, len(flat), width)]


@pytest.mark.parametrize(("blocks", "cluster"), [((1, 1), 1), ((6, 3), 1), ((6, 2), 3), ((16, 1), 16)])
def test_every_thread_knows_its_place(run, order, blocks, cluster):
    found = run("places", [blocks[0]], blocks, cluster, outputs=7 * THREADS * blocks[0] * blocks[1])
    grid = itertools.product(range(blocks[1]), range(blocks[0]), range(THREADS))
    assert rows(found, 7) == [[t, t % WARP, t // WARP, x, y, x % cluster, cluster] for y, x, t in grid]


@pytest.mark.parametrize(("first", "mask", "by"), [(0, 1, 1), (5, 16, 4), (31, 31, 31), (7, 0, 0)])
def test_shuffles_move_values_of_every_type_between_lanes(run, order, first, mask, by):
    values = [random.Random(t).getrandbits(24) for t in range(THREADS)]
    found = rows(run("shuffles", [*values, first, mask, by], outputs=18 * THREADS), THREADS)
    lanes = [(t - t % WARP, t % WARP) for t in range(THREADS)]
    sources = (
        [warp + (first + warp + lane) % WARP for warp, lane in lanes],
        [warp + (lane ^ mask) for warp, lane in lanes],
        [warp + (lane if lane < by else lane - by) for warp, lane in lanes],
    )
    for kind in range(6):
        exact = kind in (2, 5)  # floats keep the eighths
        wanted = [[values[t] if exact else values[t] // 8 * 8 for t in source] for source in sources]
        assert found[3 * kind : 3 * kind + 3] == wanted


def test_votes_count_the_threads_that_are_for_it(run, order):
    some = [random.Random(t).getrandbits(1) for t in range(THREADS)]
    votes = [some, [1] * THREADS, [0] * THREADS, [int(t == 50) for t in range(THREADS)]]
    found = rows(rows(run("votes", [*itertools.chain(*votes)], outputs=16 * THREADS), 4), THREADS)
    for vote, answers in zip(votes, found, strict=True):
        ballots = [sum(bit << lane for lane, bit in enumerate(vote[w : w + WARP])) for w in range(0, THREADS, WARP)]
        assert answers == [[ballots[t // WARP], sum(vote), all(vote), any(vote)] for t in range(THREADS)]


def test_atomics_return_what_was_there(run, order):
    values = [random.Random(t).randrange(1000) for t in range(THREADS)]
    values[3] = -5
    found = rows(run("atomics", values, outputs=11 * THREADS), THREADS)
    left = found.pop()
    unsigned = [value % 2**32 for value in values]
    wrapped = [(2**31 - 1 + i + 2**31) % 2**32 - 2**31 for i in range(THREADS + 1)]
    assert sorted(found[0]) == sorted(wrapped[:-1])
    assert sorted(found[3]) == sorted((2**32 - 1 + i) % 2**32 for i in range(THREADS))
    assert sorted(found[8]) == [2**40 + i * 2**33 for i in range(THREADS)]
    assert sorted([*found[7], left[7]]) == sorted([99, *range(THREADS)])
    assert left[:3] == [wrapped[-1], -5, max(values)]
    assert left[3:7] == [THREADS - 1, min(unsigned), max(unsigned), 2**32 - 1]
    assert left[8:10] == [2**40 + THREADS * 2**33, 2**40 + THREADS - 1]
    for row, start, change in ((1, 0, min), (2, 0, max), (4, 2**32 - 1, min), (5, 0, max)):
        assert start in found[row]
        assert set(found[row]) <= {start, *values, *unsigned}
        assert change(left[row], *found[row]) == left[row]
    first = [t % WARP for t, before in enumerate(found[6]) if not before >> t % WARP & 1]
    assert sorted(first) == list(range(WARP))  # of the two threads with the same bit, one finds it unset


def test_bits_are_found(run):
    values = [0, 1, 2**31, 2**32 - 1, *(random.Random(t).getrandbits(32) >> t % 32 for t in range(THREADS - 4))]
    found = rows(run("bits", values, outputs=3 * THREADS), 3)
    assert found == [[v.bit_count(), (v & -v).bit_length() - 1, v.bit_length() - 1] for v in values]


def test_streaming_loads_are_plain_and_aligned(run):
    values = [random.Random(t).getrandbits(63) for t in range(2 * THREADS + 2)]
    aligned = run("load", values, outputs=2 * THREADS)
    if isinstance(aligned, str):  # ctypes gives 8 bytes of alignment
        assert run("load", values, outputs=2 * THREADS, fault=8) == values[1 : 2 * THREADS + 1]
    else:
        assert aligned == values[:-2]
        assert run("load", values, outputs=2 * THREADS, fault=8) == "load_streaming: misaligned address"


# What the three kernels with barriers put out when they are right, and the faults that they know.
BLOCK = [sum(1000 ** (2 - r) * (100 * r + (t + 13) % THREADS) for r in range(3)) for t in range(THREADS)]
LANES = [sum(1000 ** (2 - r) * (100 * r + (t + 13) % WARP) for r in range(3)) for t in range(WARP)] * 2
BARRIERS = {
    "block": ({}, BLOCK, 2),
    "warp": ({}, LANES, 2),
    "cluster": (
        {"blocks": (8, 1), "cluster": 4, "outputs": 8 * THREADS},
        [100 * ((b - 2) % 4) + t for b in range(8) for t in range(THREADS)],
        3,
    ),
}


@pytest.mark.parametrize("kernel", BARRIERS)
def test_barriers_order_what_threads_write_and_read(run, order, kernel):
    arguments, wanted, _ = BARRIERS[kernel]
    assert run(kernel, **arguments) == wanted


@pytest.mark.parametrize(("kernel", "fault"), [(name, 1 + i) for name, (_, _, n) in BARRIERS.items() for i in range(n)])
def test_a_barrier_left_out_shows_in_some_order(run, monkeypatch, kernel, fault):
    arguments, wanted, _ = BARRIERS[kernel]
    wrong = []
    for order in ORDERS:
        monkeypatch.setenv("WARPDRAW_FIBERS", order)
        if run(kernel, fault=fault, **arguments) != wanted:
            wrong.append(order)
    assert {"forward", "reverse"} & set(wrong)
    assert len(wrong) >= 3


def test_a_cluster_of_one_meets_at_the_barrier_of_the_block(run, order):
    assert run("cluster") == list(range(THREADS))


HERE = r"at kernels\.cpp:\d+"
DIVERGING = {
    1: rf"deadlock, for a barrier is divergent: 32 wait in sync {HERE} \(the first is thread 0 of block \(0, 0\)\), "
    r"32 have ended",
    2: rf"divergent barrier: thread \d+ of block \(0, 0\) is in sync {HERE}, but others wait in sync {HERE}",
    3: rf"deadlock, .* 31 wait in shuffle {HERE} \(the first is thread 32 of block \(0, 0\)\), 33 have ended",
    4: rf"deadlock, .* 192 wait in cluster_sync {HERE} \(the first is thread 0 of block \(0, 0\)\), 64 have ended",
    5: rf"deadlock, .* 33 wait in sync {HERE} .*, 31 wait in warp_sync {HERE} .*, 0 have ended",
}


@pytest.mark.parametrize("fault", DIVERGING)
def test_threads_that_wait_for_nobody_are_named(run, order, fault):
    complaint = run("diverging", blocks=(4, 1), cluster=4 if fault == 4 else 1, fault=fault, outputs=4 * THREADS)
    expected = DIVERGING[fault]
    if order != "forward":
        expected = re.sub(r"\\\(0, 0\\\)", r"\\(\\d, 0\\)", expected)
    assert re.fullmatch(expected, complaint)
    assert run("diverging", blocks=(4, 1), cluster=4, outputs=4 * THREADS) == [1] * 4 * THREADS  # all is well again


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        (1, "thrown in a kernel"),
        (2, "launch: called in a kernel"),
        (3, "peer: no block of this rank in the cluster"),
        (4, "peer: not in shared memory"),
    ],
)
def test_what_a_thread_throws_reaches_the_caller(run, order, fault, complaint):
    assert run("failing", fault=fault) == complaint
    assert run("failing") == list(range(THREADS))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"blocks": (0, 1)}, "launch: blocks_x is 0; the limit is 2147483647"),
        ({"blocks": (1, 65536)}, "launch: blocks_y is 65536; the limit is 65535"),
        ({"blocks": (17, 1), "cluster": 17}, "launch: cluster is 17; the limit is 16"),
        ({"blocks": (3, 1), "cluster": 2}, "launch: blocks_x is no multiple of cluster"),
        ({"shared": 232449}, "launch: shared is 232449; the limit is 232448"),
    ],
)
def test_launches_that_a_device_would_refuse(run, arguments, complaint):
    assert run("places", **arguments) == complaint


@pytest.mark.parametrize("value", ["", "backward", "random", "random:", "random:x", "random:1x", "forward "])
def test_unknown_orders_are_refused(run, monkeypatch, value):
    monkeypatch.setenv("WARPDRAW_FIBERS", value)
    assert run("bits") == f"WARPDRAW_FIBERS is '{value}'; expected forward, reverse or random:SEED"


def test_clusters_run_in_the_order_of_the_threads(run, monkeypatch):
    found = {}
    for order in ORDERS:
        monkeypatch.setenv("WARPDRAW_FIBERS", order)
        turns = rows(run("order", blocks=(20, 1), outputs=41)[1:], 2)
        assert all(garbage == 0xA5 for _, garbage in turns)
        found[order] = [turn for turn, _ in turns]
    assert found["forward"] == list(range(20)) == found["reverse"][::-1]
    assert all(sorted(turns) == list(range(20)) for turns in found.values())
    assert len(set(map(tuple, found.values()))) == len(ORDERS)


def test_callers_do_not_share_threads(run):
    wrong = []

    def caller():
        for _ in range(50):
            if run("block") != BLOCK:
                wrong.append("differs")

    callers = [threading.Thread(target=caller) for _ in range(4)]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    assert not wrong


@pytest.fixture(scope="module")
def sanitized(builds, tmp_path_factory):
    """Runs the program under sanitizers: its exit status, what it printed and what they printed."""
    probe = tmp_path_factory.mktemp("probe") / "probe.cpp"
    probe.write_text("int main() {}")
    try:
        command(*SANITIZERS, probe, "-o", probe.with_suffix(""))
    except AssertionError:
        pytest.skip("no sanitizers")

    def program(*launches, order="forward"):
        words = [str(word) for launch in launches for word in launch]
        done = subprocess.run(
            [builds["sanitized"].result(), *words],
            env=os.environ | {"WARPDRAW_FIBERS": order},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout.splitlines(), done.stderr

    return program


def test_right_kernels_are_clean_under_sanitizers(sanitized, order):
    right = [
        (name, 4, 4, 1024, 0) for name in ("places", "shuffles", "votes", "atomics", "bits", "block", "warp", "cluster")
    ]
    wrong = [("diverging", 4, 4, 1024, 4), ("failing", 1, 1, 1024, 1)]  # leave fibers in the middle of a kernel
    launches = [*right, *wrong, *right, ("cluster", 8, 8, 1024, 0)]
    status, complaints, report = sanitized(*launches, order=order)
    assert (status, report) == (0, "")
    assert [bool(complaint) for complaint in complaints] == [launch in wrong for launch in launches]


@pytest.mark.parametrize(
    ("launch", "report"),
    [
        (("failing", 1, 1, 4 * THREADS, 5), "heap-buffer-overflow"),  # one cell past shared memory
        (("cluster", 8, 4, 4 * THREADS, 3), "use-after-poison"),  # a peer that has ended
    ],
)
def test_memory_faults_are_reported(sanitized, order, launch, report):
    status, _, found = sanitized(launch, order=order)
    assert status != 0
    assert report in found
    assert "kernels.cpp" in found
