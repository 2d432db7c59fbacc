"""Mutants: planted bugs in the real C++ sources, each of which the checks of this suite must reject.

Every bug goes into a copy of csrc/. What includes the changed file is compiled again, and the checks judge the result
in a process of its own (planting.py). `python tests/test_mutants.py [WORD...]` prints which checks reject which bug.
"""

from __future__ import annotations

import concurrent.futures
import sys
import tempfile
import time
from pathlib import Path

import pytest
from mutants import MUTANTS
from planting import COMPILER, CSRC, ISAS, VECTOR, Workshop, all_rejections, first_rejection, verdict_on

pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="no C++ compiler"),
    pytest.mark.skipif(not CSRC.exists(), reason="no C++ sources beside the tests"),
]

HERE = [mutant for mutant in MUTANTS if VECTOR == "avx512" or not mutant.only_avx512]


def control(workshop, isa):
    """The checks that reject the same build without a bug."""
    return verdict_on(workshop.library(f"control_{isa}", isa, {}), isa)


@pytest.fixture(scope="module")
def verdicts(request, tmp_path_factory):
    """Futures of the verdicts on the builds without a bug and on the mutants that this run asks for, two at a time."""
    workshop = Workshop(tmp_path_factory.mktemp("mutants"))
    wanted = [item.callspec.params["mutant"] for item in request.session.items if item.originalname == "test_mutant"]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        controls = {isa: pool.submit(control, workshop, isa) for isa in ISAS}
        yield controls | {mutant: pool.submit(first_rejection, workshop, mutant) for mutant in wanted}


@pytest.mark.parametrize("isa", ISAS)
def test_control(verdicts, isa):
    """The same build without a bug passes every check."""
    assert verdicts[isa].result() == {}


@pytest.mark.parametrize("mutant", HERE, ids=lambda mutant: mutant.name)
def test_mutant(verdicts, mutant):
    """A check of meaning rejects it; a known answer alone is enough only where the table says why."""
    found = verdicts[mutant].result()
    assert found, "no check rejects it"
    assert (set(found) == {"known answers"}) == bool(mutant.only_known_answers), f"rejected by {', '.join(found)}"


def test_there_are_enough_mutants_and_names_are_unique():
    assert len(MUTANTS) >= 120
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert sum(bool(mutant.only_known_answers) for mutant in MUTANTS) <= 2


def main() -> None:
    chosen = [mutant for mutant in HERE if not sys.argv[1:] or any(word in mutant.name for word in sys.argv[1:])]
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(2) as pool:
        workshop = Workshop(Path(folder))
        for isa in ISAS:
            print(f"| no bug, {isa} | {control(workshop, isa) or 'no check'} |", flush=True)

        def line(mutant):
            start = time.perf_counter()
            try:
                found = all_rejections(workshop, mutant)
            except AssertionError as error:
                return f"| {mutant.name} | ERROR {error} |"
            ends = {"crashes", "hangs"}
            names = [f"{name} ({text})" if text.split()[0] in ends else name for name, text in found.items()]
            return f"| {mutant.name} | {', '.join(names) or 'NONE'} | {time.perf_counter() - start:.1f} s |"

        for text in pool.map(line, chosen):
            print(text, flush=True)


if __name__ == "__main__":
    main()
