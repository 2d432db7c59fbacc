"""Benchmarks: every method is verified before it is timed, figures follow from the times, files are written."""

import json
import math
import re
import sys
from dataclasses import replace
from xml.etree import ElementTree

import pytest
import torch

import warpdraw
from warpdraw.bench import cpu, draws, features, overhead, verify
from warpdraw.bench import sample as bench_sample
from warpdraw.bench.cases import Case
from warpdraw.bench.draws import EXP, READ, Draw, candidates, floor
from warpdraw.bench.features import COUNTS, GATHERED, REPETITION, Fused, Sequences, bitmask_of, penalise
from warpdraw.bench.goals import FASTER, MORE, RATIO, TIME, Goal
from warpdraw.bench.grid import QUICK, SWEEP, Sizes, grid
from warpdraw.bench.harness import Timing, time_in_turn
from warpdraw.bench.method import Method, batches
from warpdraw.bench.peers import COMPILED, LLAMA, LOADERS, Absent, Job, eager, eager_weights, idiom, idiom_probs
from warpdraw.bench.peers.penalties import Penalties
from warpdraw.bench.picture import picture
from warpdraw.bench.softmaxes import softmax
from warpdraw.bench.verify import NotVerified

COMBINED, NUCLEUS, TEMPERED = Job(1.0, 50, 0.9, 0.05), Job(1.0, 0, 0.9, 0.0), Job(0.7, 0, 1.0, 0.0)
GREEDY = Job(0.0, 0, 1.0, 0.0)
PENALTIES = Penalties(1.3, 0.5, 0.4)
SEQUENCES = Sequences(64)
INF = math.inf


@pytest.fixture(scope="module")
def rows():
    return Case(700, 1).rows(4)


def loaded(name):
    """A peer, or a skipped test."""
    try:
        return LOADERS[name]()
    except Absent as error:
        pytest.skip(str(error))


def check(method, rows, batch):
    """Verify a method on inputs of `batch` rows."""
    method.verify(batches(rows, batch), rows)


# --------------------------------------------------------------------------------------------------------------------
# Peers.

# torch.compile takes 20 s, and is the idiom under another name.
DRAWING = [name for name in LOADERS if name not in (COMPILED, "torch.argmax")]


@pytest.mark.parametrize("name", DRAWING)
@pytest.mark.parametrize("job", [COMBINED, NUCLEUS, TEMPERED, Job(1.0, 7, 1.0, 0.0), Job(1.0, 0, 1.0, 0.1)])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_peer_does_the_job(name, job, batch, rows):
    check(Draw(job).by(name, {name: loaded(name)}), rows, batch)


def test_argmax_is_greedy(rows):
    check(Draw(GREEDY).by("torch.argmax", {"torch.argmax": loaded("torch.argmax")}), rows, 1)


def test_a_peer_takes_bfloat16(rows):
    for name in DRAWING:
        try:
            peers = {name: LOADERS[name]()}
        except Absent:
            continue
        check(Draw(COMBINED).by(name, peers), rows.bfloat16(), 1)


def one_token_more(logits, job):
    weights = idiom_probs(logits, job)
    return weights.scatter(1, logits.argmin(-1, keepdim=True), weights.amax(-1, keepdim=True))


def one_token_less(logits, job):
    weights = idiom_probs(logits, job)
    return weights.scatter(1, weights.masked_fill(weights == 0, 2).argmin(-1, keepdim=True), 0.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probs": one_token_more}, "x does not keep the tokens"),
        ({"probs": one_token_less}, "x does not keep the tokens"),
        ({"probs": lambda logits, job: idiom_probs(logits, job) ** 1.01}, "x does not give the probabilities"),
        ({"draw": lambda logits, job: logits.argmin(-1)}, "x drew a token that the reference drops"),
        ({"draw": lambda logits, job: torch.full_like(logits.argmin(-1), -1)}, "x drew a token that the reference"),
        ({"draw": lambda logits, job: logits.argmax(-1)}, "x does not draw by the probabilities"),
        ({"draw": lambda logits, job: idiom(logits * 0.8, job)}, "x does not draw by the probabilities|x drew a token"),
    ],
)
def test_a_peer_that_does_something_else_is_refused(changes, message, rows):
    good = LOADERS["mask and multinomial"]()
    check(Draw(COMBINED).by("x", {"x": good}), rows, 1)
    with pytest.raises(NotVerified, match=message):
        check(Draw(COMBINED).by("x", {"x": replace(good, **changes)}), rows, 1)


def test_the_distribution_of_draws_is_checked_where_every_token_is_possible():
    slightly_off = lambda logits, job: idiom(logits * 0.9, job)  # noqa: E731
    verify.check_distribution("idiom", idiom, TEMPERED)
    with pytest.raises(NotVerified, match="off does not draw by the probabilities"):
        verify.check_distribution("off", slightly_off, TEMPERED)


def test_llama_cpp_candidates_hold_the_logits(rows, monkeypatch):
    loaded(LLAMA)
    check(candidates(), rows, 1)
    from warpdraw.bench.peers.llama_cpp import Candidates, build

    build(rows[:1])
    monkeypatch.setattr(Candidates, "build", lambda self, row: None)
    with pytest.raises(NotVerified, match="does not hold the logits"):
        check(candidates(), rows, 1)


def test_the_eager_forms_draw_by_the_filtered_probabilities():
    torch.manual_seed(0)
    logits = torch.tensor([[3.0, 1.0, 2.0, 0.0, -9.0]]).repeat(20_000, 1)
    for job in (Job(0.8, 3, 0.9, 0.05), Job(1.3, 0, 0.95, 0.0), Job(1.0, 0, 1.0, 0.2), Job(1.0, 2, 1.0, 0.0)):
        bench_sample.verify(logits[:4], job)
        expected = warpdraw.filter_probs(logits[:1], job.temperature, job.top_k, job.top_p, job.min_p, order="hf")[0]
        for drawn in (idiom(logits, job), eager(logits, job)):
            # 6 standard deviations of the largest binomial are 0.021.
            assert (drawn.bincount(minlength=5) / 20_000 - expected).abs().max() < 0.021


def test_bench_sample_refuses_a_peer_that_does_another_job(monkeypatch):
    logits, job = torch.randn(4, 100), Job(1.0, 10, 0.9, 0.0)
    other = Job(1.0, 10, 0.8, 0.0)
    monkeypatch.setattr(bench_sample, "idiom_probs", lambda given, _: idiom_probs(given, other))
    with pytest.raises(NotVerified, match=r"mask and multinomial does not keep"):
        bench_sample.verify(logits, job)
    monkeypatch.undo()
    monkeypatch.setattr(bench_sample, "eager_weights", lambda given, _: eager_weights(given, Job(1.0, 11, 1.0, 0.0)))
    with pytest.raises(NotVerified, match=r"best eager does not keep"):
        bench_sample.verify(logits, job)


# --------------------------------------------------------------------------------------------------------------------
# Our own methods are not trusted either.


@pytest.mark.parametrize("job", [COMBINED, NUCLEUS, TEMPERED, GREEDY])
@pytest.mark.parametrize("batch", [1, 4])
def test_our_methods_do_the_job(job, batch, rows):
    check(Draw(job).ours(), rows, batch)
    check(Draw(job).kernel(), rows, batch)


def test_a_prepared_call_that_does_nothing_is_refused(rows, monkeypatch):
    monkeypatch.setattr(type(warpdraw.sample), "prepare", lambda *args, tokens, **named: lambda: tokens.fill_(-1))
    with pytest.raises(NotVerified, match="the kernel drew a token"):
        check(Draw(COMBINED).kernel(), rows, 1)


def test_a_call_that_draws_elsewhere_is_refused(rows, monkeypatch):
    real = warpdraw.ops.sample

    def with_another_seed(logits, *given, **named):
        return real(logits, *given[:4], given[4] + 1 if len(given) > 4 else 0, *given[5:], **named)

    monkeypatch.setattr(draws.ops, "sample", with_another_seed)
    monkeypatch.setattr(
        draws, "scalar_tokens", lambda x, job, seed, at: real(x, job.temperature, seed=seed, position=at).tokens
    )
    with pytest.raises(NotVerified, match="does not draw the tokens of the scalar oracle"):
        check(Draw(TEMPERED).ours(), rows, 1)


@pytest.mark.parametrize("name", [READ, EXP])
def test_a_floor_reads_the_row(name, rows, monkeypatch):
    check(floor(name), rows, 1)
    check(floor(name), rows, 4)

    real = draws.native_kernel({READ: "read_floor", EXP: "exp_floor"}[name])

    class Lazy:
        def __init__(self, part):
            self.part = part

        def prepare(self, logits, out):
            return (
                real.prepare(logits[:, : int(logits.shape[1] * self.part)], out) if self.part else lambda: out.fill_(3)
            )

    for part in (0, 0.02, 0.5, 0.9):
        monkeypatch.setattr(draws, "native_kernel", lambda name, part=part: Lazy(part))
        with pytest.raises(NotVerified, match=f"{re.escape(name)} does not read every token"):
            check(floor(name), rows, 1)
    monkeypatch.setattr(draws, "native_kernel", lambda name: None)
    with pytest.raises(NotVerified, match="the backend has no"):
        check(floor(name), rows, 1)


def test_softmax_methods_agree_and_another_temperature_is_refused(rows):
    for method in softmax(0.7):
        check(method, rows, 2)
    for method, other in zip(softmax(0.7), softmax(0.8), strict=True):
        with pytest.raises(NotVerified, match=r"does not give softmax\(x / T\)"):
            check(replace(method, bind=other.bind), rows, 2)


# --------------------------------------------------------------------------------------------------------------------
# Penalties, bitmask, log-probabilities.


@pytest.mark.parametrize("name", [COUNTS, GATHERED, REPETITION])
def test_penalisers_follow_the_definition(name, rows):
    peers = {}
    if name == REPETITION:
        peers = {"transformers warpers": loaded("transformers warpers")}
    method = penalise(name, PENALTIES, SEQUENCES, peers)
    assert not method.needs
    check(method, rows, 4)
    for other in (Penalties(1.31, 0.5, 0.4), Penalties(1.3, 0.51, 0.4), Penalties(1.3, 0.5, 0.41)):
        if name == REPETITION and other.repetition == PENALTIES.repetition:
            continue
        wrong = replace(method, bind=penalise(name, other, SEQUENCES, peers).bind)
        with pytest.raises(NotVerified, match="does not give the penalised logits"):
            check(wrong, rows, 4)


def test_penalties_by_hand():
    logits, history = torch.tensor([[2.0, -2.0, 1.0, 1.0]]), torch.tensor([[0, 1, 1, 1, 2]])
    made = features.counts_over_vocabulary(logits, history, 2, Penalties(2.0, 0.25, 0.5))
    expected = torch.tensor([[1.0, -4.0 - 0.5 - 0.5, 0.5 - 0.25 - 0.5, 1.0]])
    assert torch.equal(made, expected)
    assert torch.equal(features.at_the_history(logits, history, 2, Penalties(2.0, 0.25, 0.5)), expected)


def test_histories_repeat_ids_and_hold_the_best_ones(rows):
    history = SEQUENCES.of(rows)
    assert history.shape == (4, 64)
    assert ((history >= 0) & (history < 700)).all()
    assert all(20 < len(set(row)) < 55 for row in history.tolist())
    assert sum(best in row for row, best in zip(history.tolist(), rows.argmax(-1).tolist(), strict=True)) >= 2


def test_the_bitmask_is_least_significant_bit_first(rows):
    mask = bitmask_of(rows)
    assert (mask.dtype, mask.shape) == (torch.int32, (4, 22))
    bits = [[(word >> bit) & 1 for word in row for bit in range(32)][:700] for row in mask.tolist()]
    allowed = torch.tensor(bits, dtype=torch.bool)
    assert 0.5 < allowed.float().mean() < 0.8
    assert torch.equal(warpdraw.filter_logits(rows, bitmask=mask), rows.masked_fill(~allowed, -INF))
    assert torch.equal(features._allowed(rows), allowed)


@pytest.mark.parametrize("top_of", ["raw", "filtered"])
@pytest.mark.parametrize("batch", [1, 4])
def test_fused_calls_do_the_job(top_of, batch, rows):
    options = (("logprob", True), ("top_n", 5), ("top_of", top_of))
    method = Fused(COMBINED, PENALTIES, SEQUENCES, with_bitmask=True, options=options).method("fused")
    check(method, rows, batch)
    check(Fused(COMBINED, PENALTIES, SEQUENCES).method("fused"), rows, batch)
    check(Fused(COMBINED).method("fused"), rows, batch)
    other = (("logprob", True), ("top_n", 5), ("top_of", "raw" if top_of == "filtered" else "filtered"))
    wrong = Fused(COMBINED, PENALTIES, SEQUENCES, with_bitmask=True, options=other).method("fused")
    with pytest.raises(NotVerified, match="fused does not give the top_"):
        check(replace(method, bind=wrong.bind), rows, batch)


@pytest.mark.parametrize("forgotten", ["penalties", "bitmask"])
def test_a_fused_call_that_forgets_something_is_refused(forgotten, rows, monkeypatch):
    real = Fused.arguments
    names = {"penalties": ("repetition_penalty", "frequency_penalty", "presence_penalty"), "bitmask": ("bitmask",)}

    def without(self, logits):
        return {name: value for name, value in real(self, logits).items() if name not in names[forgotten]}

    monkeypatch.setattr(Fused, "arguments", without)
    with pytest.raises(NotVerified, match="fused does not keep the tokens"):
        check(Fused(COMBINED, PENALTIES, SEQUENCES, with_bitmask=True).method("fused"), rows, 1)


def test_the_overhead_calls_use_every_argument_and_output():
    for method in overhead.calls():
        check(method, Case(overhead.VOCAB, 1).rows(4), 1)
    contract = warpdraw.sample.contract
    left = {spec.name for spec in contract.inputs} - {*overhead.FEATURES, *overhead.REPORTS}
    assert left == {"logits", "order", "top_of"}
    made = {"tokens", "valid", "kept_ids", "top_ids", "top_logprobs"}
    assert {spec.name for spec in contract.outputs} - set(overhead.REPORTS) == made


def test_all_features_leave_something_to_draw():
    arguments = overhead._tensors(overhead.FEATURES)
    results = [warpdraw.sample(x, **arguments, kept_count=True) for x in Case(overhead.VOCAB, 1).make(64)]
    assert all(result.valid.item() for result in results)
    assert max(result.kept_count.item() for result in results) > 1


# --------------------------------------------------------------------------------------------------------------------
# The harness and the figures.


def test_methods_are_timed_in_turn():
    seen = []
    methods = {name: lambda given, name=name: seen.append((name, int(given))) for name in "abc"}
    timings = time_in_turn(methods, [torch.tensor(i) for i in range(4)], seconds=0.0)
    assert set(timings) == {"a", "b", "c"}
    assert all(0 < each.minimum <= each.p10 <= each.median <= each.p90 for each in timings.values())
    assert [number for _, number in seen] == [i % 4 for i in range(len(seen))]
    turns = "".join(name for i, (name, _) in enumerate(seen[6:]) if i == 0 or seen[6 + i - 1][0] != name)
    assert turns.startswith("abcabcabc")


def test_what_is_done_before_a_turn_is_done_before_each_turn():
    seen = []
    methods = {name: lambda given, name=name: seen.append(name) for name in "ab"}
    before = {"b": lambda: seen.append("before b")}
    time_in_turn(methods, range(4), seconds=0.0, before=before)
    turns = [name for i, name in enumerate(seen) if i == 0 or seen[i - 1] != name]
    assert turns == ["a", "before b", "b"] * (turns.count("a"))
    assert turns.count("a") >= 3


def test_a_turn_may_have_a_length():
    counted = {"a": 0}

    def method(given):
        counted["a"] += 1

    timings = time_in_turn({"a": method}, range(4), seconds=0.0, turn=0.001)
    assert timings["a"].calls > 100
    assert time_in_turn({"a": method}, range(4), seconds=0.0)["a"].calls < 10


def test_a_timing_is_the_median_and_its_spread():
    timing = Timing.of([5, 1, 2, 4, 3, 6, 7, 8, 9, 11, 10])
    assert (timing.median, timing.p10, timing.p90, timing.calls, timing.minimum) == (6, 2, 10, 11, 1)
    assert timing.record()["median_us"] == 6e6


TIMES = {
    name: Timing(median * 1e-6, 0.0, 0.0, 9, median * 0.5e-6) for name, median in {"a": 4, "b": 10, "c": 8}.items()
}


@pytest.mark.parametrize(
    ("goal", "figure", "met"),
    [
        (Goal(FASTER, "", ("a",), ("b",), 2.5), 2.5, True),
        (Goal(FASTER, "", ("a",), ("b",), 2.6), 2.5, False),
        (Goal(FASTER, "", ("a",), ("b",)), 2.5, None),
        (Goal(FASTER, "", ("b", "c"), ("a",), 1.9), 2.0, True),
        (Goal(FASTER, "", ("a",), ("b", "c"), 0.6), 0.5, False),
        (Goal(RATIO, "", ("b",), ("a",), 2.6), 2.5, True),
        (Goal(RATIO, "", ("b",), ("a",), 2.4), 2.5, False),
        (Goal(MORE, "", ("b",), ("a",), 5.9), 6.0, False),
        (Goal(MORE, "", ("b",), ("a",), 6.1), 6.0, True),
        (Goal(TIME, "", ("a",), target=4.1), 4.0, True),
        (Goal(TIME, "", ("a",), target=3.9), 4.0, False),
        (Goal(TIME, "", ("a",), target=3.9, of_minimum=True), 2.0, True),
    ],
)
def test_figures(goal, figure, met):
    record = goal.record(TIMES)
    assert record["figure"] == pytest.approx(figure)
    assert record["met"] is met
    assert record["missing"] == []


def test_a_figure_without_its_method_is_missing():
    record = Goal(FASTER, "", ("a",), ("z",), 2.0).record(TIMES)
    assert (record["figure"], record["met"], record["missing"]) == (None, None, ["z"])


# --------------------------------------------------------------------------------------------------------------------
# The grid.

# job, rows, cache state, against what, target: re-typed from the table of targets.
TARGETS = [
    ("top-k 50, top-p 0.9, min-p 0.05", 1, "hot", "transformers warpers", 400),
    ("top-k 50, top-p 0.9, min-p 0.05", 1, "hot", "best eager", 25),
    ("top-k 50, top-p 0.9, min-p 0.05", 64, "cold", "transformers warpers", 180),
    ("top-k 50, top-p 0.9, min-p 0.05", 64, "cold", "best eager", 7),
    ("the same, the kernel alone", 1, "hot", "read once", 5),
    ("the same, the kernel alone", 1, "cold", "read once", 1.3),
    ("the same, the kernel alone", 1, "hot", "llama.cpp chain", 20),
    ("the same, the kernel alone", 1, "cold", "llama.cpp chain", 4),
    ("top-p 0.9", 1, "hot", "sort idiom", 400),
    ("top-p 0.9", 1, "hot", "sort idiom", 200),
    ("top-p 0.9", 1, "hot", "read + exp", 1.4),
    ("top-p 0.9", 1, "hot", "read + exp", 3),
    ("temperature 0.7", 1, "hot", "softmax + multinomial", 120),
    ("temperature 0.7", 64, "cold", "softmax + multinomial", 50),
    ("temperature 0.7", 1, "hot", "read + exp", 1.5),
    ("temperature 0.7", 64, "cold", "read + exp", 1.5),
    ("greedy", 1, "hot", "torch.argmax", 10),
    ("greedy", 64, "cold", "torch.argmax", 4),
    ("softmax(x / 0.7), out=", 1, "hot", "torch.softmax (out=)", 2.5),
    ("three penalties, 1024 tokens", 64, "cold", "counts over V (added time only)", 120),
    ("three penalties, 1024 tokens", 64, "cold", "transformers' repetition penalty (added time only)", 15),
    ("bitmask, penalties, 20 log-probs", 1, "hot", "the plain call: all, top 20 raw", 2),
    ("bitmask, penalties, 20 log-probs", 1, "hot", "the plain call: all, top 20 filtered", 2),
    ("host overhead", 1, "hot", "per-row tensors, median", 5),
    ("host overhead", 1, "hot", "all features on, median", 8),
    ("second thread: top-k 50, top-p 0.9, min-p 0.05", 8, "cold", "one thread", 1.6),
    ("second thread: top-k 50, top-p 0.9, min-p 0.05", 1, "cold", "one thread", 1.4),
]


def test_the_grid_has_every_target():
    found = [
        (each.job, each.case.batch, cache, goal.against, goal.target)
        for each in grid(Sizes(), {})
        for cache, goals in each.goals.items()
        for goal in goals
    ]
    assert [target for target in TARGETS if target not in found] == []


@pytest.mark.parametrize("sizes", [Sizes(), QUICK])
def test_goals_name_methods_of_their_measurement(sizes):
    for each in grid(sizes, {}):
        names = [method.name for method in each.methods]
        assert len(names) == len(set(names))
        used = {name for goals in each.goals.values() for goal in goals for name in (*goal.ours, *goal.other)}
        assert used <= set(names)
        assert set(each.series) <= set(names)


def test_cases_of_one_distribution_share_their_rows():
    assert torch.equal(Case(500, 1).make(3)[2], Case(500, 3).make(1)[0][2:])
    assert not torch.equal(Case(500, 1).rows(1), Case(500, 1, logits="normal").rows(1))
    assert torch.equal(Case(500, 1, "bfloat16").rows(2), Case(500, 1).rows(2).bfloat16())
    assert torch.equal(Case(500, 1).rows(70), Case(500, 1).rows(200)[:70])
    assert not torch.equal(Case(500, 1).rows(65)[64], Case(500, 1).rows(1)[0])
    assert len(Case(500, 1).inputs("hot")) == 1
    assert len(Case(500, 3).inputs("cold", 10_000)) == 2
    assert len(Case(500, 3).inputs("cold", 100_000)) == 17


# --------------------------------------------------------------------------------------------------------------------
# The command.


def test_bench_cpu_runs_the_whole_grid(run, tmp_path):
    places = tmp_path / "cpu.json", tmp_path / "cpu.svg"
    code, out, err = run("bench", "cpu", "--quick", "--json", str(places[0]), "--picture", str(places[1]))
    assert (code, err) == (0, f"wrote {places[1]}\nwrote {places[0]}\n")
    document = json.loads(places[0].read_text())
    assert document["environment"]["threads"] == 1
    assert document["backend"].startswith(tuple(each.name for each in warpdraw.backends()))
    assert document["absent"]["torch.compile"] == "skipped: --quick"
    assert document["absent"]["onnxruntime-genai"] == "samples only inside a loaded model"
    wanted = grid(QUICK, {})
    assert {record["job"] for record in document["results"]} == {each.job for each in wanted}
    assert len(document["goals"]) == sum(len(goals) for each in wanted for goals in each.goals.values())

    where = ("job", "vocab", "batch", "dtype", "logits", "cache")
    medians = {(*(r[key] for key in where), r["method"]): r["median_us"] for r in document["results"]}
    assert len(medians) == len(document["results"])
    figures = [goal for goal in document["goals"] if goal["figure"] is not None]
    assert len(figures) > len(document["goals"]) * 0.6
    for goal in figures:
        assert goal["met"] is None
        if goal["kind"] == "x faster" and " minus " not in goal["ours"] + goal["other"]:
            ours, other = (medians[(*(goal[key] for key in where), goal[name])] for name in ("ours", "other"))
            assert goal["figure"] == pytest.approx(other / ours)
    assert all(
        goal["missing"] and all(goal["missing"].values()) for goal in document["goals"] if goal["figure"] is None
    )

    for job in dict.fromkeys(goal["job"] for goal in document["goals"]):
        assert f"\n{job}\n" in out
    assert "so the figures mean nothing" in out
    for cache in ("hot", "cold"):
        line = next(line for line in out.split(f"{SWEEP}, {cache}")[1].splitlines() if "read once" in line)
        assert len(line.replace("read once", "").split()) == len(QUICK.sweep)
    assert ElementTree.fromstring(places[1].read_text()).tag.endswith("svg")


def test_a_large_call_is_verified_whole_by_its_first_rows(rows):
    seen = []

    def bind(inputs):
        return lambda number: seen.append(inputs[number].shape) or inputs[number].argmax(-1)

    made = []
    method = replace(Draw(GREEDY).ours(), bind=bind, check=lambda rows, results: made.append((rows, results)))
    method.verify([Case(700, 6).rows(6)], rows)
    assert seen == [(6, 700)]
    assert torch.equal(made[0][0], rows)
    assert torch.equal(made[0][1][0], rows.argmax(-1))
    for method in (
        Draw(COMBINED).ours(),
        Draw(COMBINED).kernel(),
        Fused(COMBINED, PENALTIES, SEQUENCES).method("fused"),
    ):
        method.verify([Case(700, 6).rows(6)], rows)
    penalise(COUNTS, PENALTIES, SEQUENCES, {}).verify([Case(700, 6).rows(6)], rows)
    assert torch.equal(SEQUENCES.of(Case(700, 6).rows(6))[:4], SEQUENCES.of(rows))
    assert torch.equal(bitmask_of(Case(700, 6).rows(6))[:4], bitmask_of(rows))


def test_the_inputs_that_are_timed_are_those_that_are_verified(monkeypatch):
    verified, timed = [], []
    real_verify = Method.verify

    def verify_and_keep(self, inputs, rows):
        verified.append(torch.cat(list(inputs)))
        assert torch.equal(verified[-1][: len(rows)], rows)
        real_verify(self, inputs, rows)

    def inputs_of(self, cache, cold_bytes):
        inputs = real_inputs(self, cache, cold_bytes)
        timed.append(torch.cat(inputs[:4]))
        return inputs

    real_inputs = Case.inputs
    monkeypatch.setattr(Method, "verify", verify_and_keep)
    monkeypatch.setattr(Case, "inputs", inputs_of)
    cpu.run(cpu.Options(quick=True, only="greedy"))
    assert len(timed) == 3
    for given in timed:
        assert any(torch.equal(given[:1], each[:1]) and given.shape[1] == each.shape[1] for each in verified)
    assert any(len(given) > 1 and torch.equal(given[:4], verified[0]) for given in timed)


def test_without_peers_the_rest_is_measured(run, monkeypatch):
    for name in ("transformers.generation.logits_process", "llama_cpp.llama_cpp"):
        monkeypatch.setitem(sys.modules, name, None)
    code, out, _ = run("bench", "cpu", "--quick", "--json", "-")
    document = json.loads(out)
    assert code == 0
    assert document["absent"]["transformers warpers"].startswith("transformers is not installed")
    assert document["absent"][LLAMA].startswith("llama-cpp-python is not installed")
    assert len(document["goals"]) == sum(len(goals) for each in grid(QUICK, {}) for goals in each.goals.values())
    missing = [goal for goal in document["goals"] if goal["figure"] is None]
    assert any("llama-cpp-python is not" in reason for goal in missing for reason in goal["missing"].values())
    assert any("best eager" in goal["against"] and goal["figure"] for goal in document["goals"])


def test_bench_cpu_gives_verdicts_and_can_be_narrowed(run, monkeypatch):
    monkeypatch.setattr(cpu, "Sizes", lambda: QUICK)
    monkeypatch.setattr(cpu, "COLD_BYTES", 10_000)
    code, out, _ = run("bench", "cpu", "--only", "greedy", "--no-compile", "--json", "-")
    document = json.loads(out)
    assert code == 0
    assert {record["job"] for record in document["results"]} == {"greedy"}
    assert {goal["met"] for goal in document["goals"]} <= {True, False, None}
    assert all((goal["met"] is None) == (goal["target"] is None) for goal in document["goals"])
    assert (
        "not measured: torch.compile (skipped: --no-compile)"
        in run("bench", "cpu", "--only", "host", "--no-compile")[1]
    )


def test_bench_cpu_does_not_time_what_is_not_verified(run, monkeypatch):
    monkeypatch.setattr(draws, "check_drawn", lambda name, *rest: (_ for _ in ()).throw(NotVerified(f"{name} is off")))
    code, out, err = run("bench", "cpu", "--quick", "--only", "greedy")
    assert (code, out, err) == (1, "", "warpdraw: error: warpdraw.sample is off\n")


def test_without_a_second_thread_the_rest_is_measured(run, monkeypatch):
    monkeypatch.setattr(cpu, "_no_second_thread", lambda: "this process has one core")
    code, out, _ = run("bench", "cpu", "--quick", "--only", "second thread: temperature", "--json", "-")
    document = json.loads(out)
    assert code == 0
    assert [goal["missing"] for goal in document["goals"]] == [{"two threads": "this process has one core"}]
    assert [record["method"] for record in document["results"]] == ["one thread"]


def test_the_number_of_threads_is_as_before(threads):
    threads(2)
    cpu.run(cpu.Options(quick=True, only="second thread: temperature"))
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "nothing"], "only: expected part of the name of a job (top-k 50, "),
        (["--json", "no/such/place.json"], "json: expected a file in an existing folder"),
        (["--picture", "no/such/place.svg"], "picture: expected a file in an existing folder"),
        (["--picture", "cpu.png"], "picture: expected a name that ends in .svg, got 'cpu.png'"),
        (["--picture", "x.svg", "--only", "greedy"], f"picture: expected no --only, or a part of {SWEEP!r}"),
        (["--seconds", "1"], "No such option: --seconds"),
    ],
)
def test_bad_input_of_bench_cpu_is_one_line_and_exit_code_2(run, arguments, message):
    code, out, err = run("bench", "cpu", "--quick", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"warpdraw: error: {message}")
    assert err.count("\n") == 1


def test_help_of_bench_cpu_has_examples(run):
    code, out, _ = run("bench", "cpu", "--help")
    assert code == 0
    assert "warpdraw bench cpu --json cpu.json --picture cpu.svg" in out


def test_bench_sample_reports_every_method(run, tmp_path):
    path = tmp_path / "result.json"
    arguments = ["bench", "sample", "--vocab", "1000", "--vocab", "77", "--batch", "3", "--seconds", "0.05"]
    code, out, err = run(*arguments, "--json", str(path))
    assert (code, err) == (0, f"wrote {path}\n")
    document = json.loads(path.read_text())
    assert document["environment"]["threads"] == 1
    assert {(r["vocab"], r["cache"]) for r in document["results"]} == {
        (v, c) for v in (1000, 77) for c in ("cold", "hot")
    }
    for record in document["results"]:
        assert record["p10_us"] <= record["median_us"] <= record["p90_us"]
    for method in ("warpdraw.sample", "mask and multinomial", "best eager", "one read (dot)", "one read (amax)"):
        assert out.count(method) >= 4
    code, out, _ = run(*arguments[:4], "--seconds", "0", "--batch", "1", "--dtype", "bfloat16", "--json", "-")
    assert code == 0
    assert json.loads(out)["job"]["dtype"] == "bfloat16"


# --------------------------------------------------------------------------------------------------------------------
# The picture.


def document(times):
    """A document with a sweep: {(method, kind): {vocab: microseconds}} in both cache states."""
    results = [
        {"method": method, "series": kind, "cache": cache, "vocab": vocab, "median_us": microseconds}
        for cache in ("hot", "cold")
        for (method, kind), points in times.items()
        for vocab, microseconds in points.items()
    ]
    return {"results": results, "environment": {"cpu": "A & B <C>"}, "date": "2026-01-02T03:04:05"}


def test_the_picture_shows_each_line_in_each_panel_at_logarithmic_places():
    lines = {
        ("ours & <more>", "ours"): {1000: 1.0, 10_000: 10.0, 100_000: 100.0},
        ("peer", "peer"): {1000: 1000.0, 100_000: 1000.0},
        ("floor", "floor"): {1000: 2.0, 100_000: 20.0},
    }
    text = picture(document(lines))
    tree = ElementTree.fromstring(text)
    paths = {}
    for element in tree.iter():
        if "data-line" in element.attrib:
            points = [tuple(map(float, point.split())) for point in element.attrib["d"][1:].split("L")]
            paths.setdefault(int(element.attrib["data-line"]), []).append(points)
    # Two panels, and a short line in the key.
    assert [[len(points) for points in paths[index]] for index in range(3)] == [[3, 3, 2], [2, 2, 2], [2, 2, 2]]
    for hot, cold in ((paths[index][0], paths[index][1]) for index in range(3)):
        assert [(x + 460, y) for x, y in hot] == [(pytest.approx(x), y) for x, y in cold]
    (x0, y0), (x1, y1), (x2, y2) = paths[0][0]
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert y0 > y1 > y2 > paths[1][0][0][1]
    assert paths[1][0][0][1] == paths[1][0][1][1]
    shown = [element.text for element in tree.iter() if element.tag.endswith("text")]
    assert {"warpdraw: ours & <more>", "peer", "floor", "1k", "10k", "100k", "1", "1,000"} <= set(shown)
    assert "prefers-color-scheme: dark" in text
    places = [
        (float(element.attrib["x"]), float(element.attrib["y"])) for element in tree if element.tag.endswith("text")
    ]
    width, height = map(float, tree.attrib["viewBox"].split()[2:])
    assert all(0 <= x <= width and 0 <= y <= height for x, y in places)


def test_the_picture_of_one_vocabulary_and_one_time_is_drawn():
    tree = ElementTree.fromstring(picture(document({("a", "ours"): {1000: 1.0}})))
    assert "nan" not in ElementTree.tostring(tree).decode()
