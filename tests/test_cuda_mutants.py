"""Mutants of the CUDA kernels: planted bugs, missing barriers before all, that parity on simulated threads must reject.

`python tests/test_cuda_mutants.py [WORD...]` prints which checks reject which bug.
"""

from __future__ import annotations

import concurrent.futures
import sys
import tempfile
import time
from pathlib import Path

import pytest
from cuda_mutants import BARRIERS, MUTANTS
from planting import COMPILER, CSRC, SIMULATED, Workshop, first_rejection, verdict_on

pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="no C++ compiler"),
    pytest.mark.skipif(not CSRC.exists(), reason="no C++ sources beside the tests"),
]


def control(workshop):
    """The checks that reject the same build without a bug."""
    return verdict_on(workshop.library("control", SIMULATED, {}), SIMULATED)


@pytest.fixture(scope="module")
def verdicts(request, tmp_path_factory):
    """Futures of the verdicts on the build without a bug and on the mutants that this run asks for, two at a time."""
    workshop = Workshop(tmp_path_factory.mktemp("mutants"), (SIMULATED,))
    items = [item for item in request.session.items if item.originalname == "test_cuda_mutant"]
    wanted = [item.callspec.params["mutant"] for item in items]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        found = {mutant: pool.submit(first_rejection, workshop, mutant) for mutant in wanted}
        yield {"control": pool.submit(control, workshop)} | found


def test_cuda_control(verdicts):
    """The same build without a bug passes every check."""
    assert verdicts["control"].result() == {}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_cuda_mutant(verdicts, mutant):
    assert verdicts[mutant].result(), "no check rejects it"


def test_there_are_enough_mutants_and_names_are_unique():
    assert len(BARRIERS) >= 20
    assert len(MUTANTS) >= 40
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def main() -> None:
    chosen = [mutant for mutant in MUTANTS if not sys.argv[1:] or any(word in mutant.name for word in sys.argv[1:])]
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(2) as pool:
        workshop = Workshop(Path(folder), (SIMULATED,))
        print(f"| no bug | {control(workshop) or 'no check'} |", flush=True)

        def line(mutant):
            start = time.perf_counter()
            try:
                found = first_rejection(workshop, mutant)
            except AssertionError as error:
                return f"| {mutant.name} | ERROR {error} |"
            texts = [f"{name} ({text[:80]})" for name, text in found.items()]
            return f"| {mutant.name} | {', '.join(texts) or 'NONE'} | {time.perf_counter() - start:.1f} s |"

        for text in pool.map(line, chosen):
            print(text, flush=True)


if __name__ == "__main__":
    main()
