"""The benchmark of speculative verification: methods are verified first, figures follow from times, files are made."""

import json
import re
from dataclasses import asdict, replace
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
import torch

import warpdraw
from warpdraw.bench import draws, gpu, gpu_methods, gpu_run, speculation, speculation_methods
from warpdraw.bench.gpu_grid import FLOOR, Place, Sizes, goals_of
from warpdraw.bench.gpu_grid import grid as gpu_grid
from warpdraw.bench.gpu_jobs import COUPLED, POINT_MASS, REJECTION, SPECULATIVE, Point, Pool
from warpdraw.bench.gpu_methods import OURS
from warpdraw.bench.gpu_speculation import PLAIN_DRAWS, of_speculator, our_verification, plain_draws
from warpdraw.bench.peers import (
    COMPILED_EAGER,
    EAGER,
    FLASHINFER_CHAIN,
    SPECULATORS,
    TRANSFORMERS_SPECULATION,
    USUAL,
    Absent,
    Job,
    Speculator,
    available,
)
from warpdraw.bench.peers import flashinfer as flashinfer_peer
from warpdraw.bench.peers.speculation import best, usual
from warpdraw.bench.speculation import FILTERED, TEMPERED, Options
from warpdraw.bench.speculation_cases import METHODS, DraftedCase, arguments, with_other_noise
from warpdraw.bench.speculation_checks import check_law_of_rejection
from warpdraw.bench.speculation_grid import SWEEP, SWEPT_DRAFTS, grid, sweep, title
from warpdraw.bench.speculation_methods import (
    GREEDY,
    PLAIN,
    PLAIN_GREEDY,
    READ_ALL,
    READ_ONE,
    READ_TARGET,
    by,
    name_of,
    ours,
    plain,
    read,
)
from warpdraw.bench.verify import NotVerified

CPU = torch.device("cpu")
NUCLEUS, MIN_P = Job(1.0, 0, 0.9, 0.0), Job(0.9, 20, 1.0, 0.1)
JOBS = [FILTERED, TEMPERED, NUCLEUS, MIN_P]
# torch.compile takes a minute, and is best eager under another name.
NAMES = [name for name in SPECULATORS if name != COMPILED_EAGER]


def inputs_of(job, batch=3, drafts=3, vocab=400, count=2):
    return DraftedCase(vocab, batch, drafts).inputs(job, 0)[:count]


def speculator(name):
    """A peer, or a skipped test."""
    try:
        return SPECULATORS[name]()
    except Absent as error:
        pytest.skip(str(error))


# --------------------------------------------------------------------------------------------------------------------
# What is verified.


def test_drafts_are_those_that_sample_draws_from_their_rows():
    for given in inputs_of(FILTERED):
        assert given.target.shape == (3, 4, 400)
        difference = given.draft - given.target[:, :-1]
        assert difference.std().item() == pytest.approx(0.5, rel=0.1)
        for b in range(3):
            for place in range(3):
                at = {"seed": given.seed[b].item(), "position": given.position[b].item() + place}
                drawn = warpdraw.sample(given.draft[b, place][None], **asdict(FILTERED), **at, order="hf").tokens
                assert given.drawn[b, place] == drawn
        assert torch.equal(given.best, given.draft.argmax(-1))
        assert given.drafts("point_mass") is given.best
        assert given.drafts("rejection") is given.drawn
        assert given.of_rows()["position"].view(3, 4)[:, 3].equal(given.position + 3)
        assert given.first(2).seed.tolist() == given.seed[:2].tolist()
    first, second = inputs_of(FILTERED)
    assert not torch.equal(first.target, second.target)
    assert not torch.equal(first.position, second.position)


def test_coupled_verification_gives_the_plain_draws():
    for given in inputs_of(TEMPERED):
        rows = warpdraw.sample(given.target.flatten(0, 1), **asdict(TEMPERED), **given.of_rows(), order="hf").tokens
        verified = warpdraw.verify(given.drawn, given.target, method="coupled", **arguments("coupled", TEMPERED, given))
        places = torch.arange(4) <= verified.accepted[:, None]
        assert torch.equal(verified.tokens, torch.where(places, rows.view(3, 4), -1))


def test_other_noise_is_other_noise_on_the_same_rows():
    inputs = inputs_of(TEMPERED)
    made = list(with_other_noise(inputs, TEMPERED, 20))
    assert len(made) * 3 == 24
    assert all(each.target is inputs[number % 2].target for number, each in enumerate(made))
    positions = torch.cat([each.position for each in made]).view(-1, 3)[:, 0].sort().values
    assert positions.diff().min() >= 4
    assert len({tuple(each.drawn.flatten().tolist()) for each in made}) > 4


def test_a_case_counts_the_rows_that_must_be_read():
    case = DraftedCase(1000, 8, 5)
    assert case.bytes(0) == 8 * 6 * 4000
    assert case.bytes(1) == 8 * 7 * 4000
    assert replace(case, dtype="bfloat16").bytes(5) == 8 * 11 * 2000


# --------------------------------------------------------------------------------------------------------------------
# Peers.


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("job", JOBS)
def test_a_peer_does_the_job(name, job):
    peer = speculator(name)
    by(name, job, {name: peer}).verify(inputs_of(job, batch=1 if peer.one_request else 3))


def test_eager_peers_take_bfloat16():
    inputs = DraftedCase(400, 2, 3, "bfloat16").inputs(FILTERED, 0)[:1]
    for verify in (usual, best):
        by("x", FILTERED, {"x": Speculator("", verify)}).verify(inputs)


def test_a_draft_without_probability_is_rejected():
    torch.manual_seed(0)
    target, draft = torch.full((1, 2, 5), -50.0), torch.zeros(1, 1, 5)
    target[..., 3] = 0.0
    for verify in (usual, best):
        tokens, accepted = verify(torch.tensor([[1]]), target, draft, TEMPERED)
        assert (tokens.tolist(), accepted.tolist()) == ([[3, -1]], [0])
        tokens, accepted = verify(torch.tensor([[3]]), target, target[:, :1], TEMPERED)
        assert (tokens.tolist(), accepted.tolist()) == ([[3, 3]], [1])


def changed(change):
    """Best eager, with what it gives changed by a function of tokens, accepted, drafts and target."""

    def verify(drafts, target, draft, job):
        return change(*best(drafts, target, draft, job), drafts, target)

    return verify


def without_residual(drafts, target, draft, job):
    """Draws from the target where it should draw from what is left of it."""
    tokens, accepted = best(drafts, target, draft, job)
    rows = target[torch.arange(len(target)), accepted]
    drawn = torch.multinomial((rows / job.temperature).softmax(-1), 1)
    return tokens.scatter(1, accepted[:, None], drawn), accepted


def at_random(drafts, target, draft, job):
    """Accepts half of the drafts, whatever they are, and draws what follows plainly."""
    B, K = drafts.shape
    accepted = (torch.rand(B, K) < 0.5).long().cumprod(1).sum(1)
    tokens = torch.cat([drafts, drafts[:, :1]], 1)
    drawn = (target[torch.arange(B), accepted] / job.temperature).softmax(-1)
    tokens = tokens.scatter(1, accepted[:, None], torch.multinomial(drawn, 1))
    return tokens.masked_fill(torch.arange(K + 1) > accepted[:, None], -1), accepted


def independent(drafts, target, draft, job):
    """Accepts a draft where an independent draw from the target equals it: right tokens, too few of them accepted."""
    B, K = drafts.shape
    drawn = torch.multinomial((target / job.temperature).softmax(-1).flatten(0, 1), 1).view(B, K + 1)
    accepted = (drawn[:, :-1] == drafts).long().cumprod(1).sum(1)
    return drawn.masked_fill(torch.arange(K + 1) > accepted[:, None], -1), accepted


@pytest.mark.parametrize(
    ("verify", "message"),
    [
        (without_residual, "x does not draw by the probabilities"),
        (at_random, "x does not draw by the probabilities"),
        (independent, r"x accepts 0\.\d+ of the drafts at place 0, not 0\.\d+"),
        (changed(lambda tokens, accepted, drafts, target: (tokens + 1, accepted)), "does not give the accepted drafts"),
        (changed(lambda tokens, accepted, drafts, target: (tokens.clamp(min=0), accepted)), "does not give the accept"),
        (changed(lambda tokens, accepted, drafts, target: (tokens, accepted + 9)), "does not give tokens"),
        (changed(lambda tokens, accepted, drafts, target: (tokens[:1], accepted[:1])), "x gives 1 requests of 3"),
        (
            changed(lambda tokens, accepted, drafts, target: (tokens.masked_fill(tokens >= 0, 400), accepted * 0)),
            "does not give the accepted drafts|drew a token",
        ),
    ],
)
def test_a_peer_that_does_something_else_is_refused(verify, message):
    torch.manual_seed(0)
    with pytest.raises(NotVerified, match=message):
        by("x", TEMPERED, {"x": Speculator("", verify)}).verify(inputs_of(TEMPERED))


def test_the_law_is_checked_to_the_last_place():
    def greedy_bonus(drafts, target, draft, job):
        tokens, accepted = best(drafts, target, draft, job)
        bonus = torch.where(tokens[:, -1] >= 0, target[:, -1].argmax(-1), -1)
        return torch.cat([tokens[:, :-1], bonus[:, None]], 1), accepted

    check_law_of_rejection("best", best, TEMPERED, False, CPU)
    with pytest.raises(NotVerified, match="greedy does not draw by the probabilities"):
        check_law_of_rejection("greedy", greedy_bonus, TEMPERED, False, CPU)


def renorm(probs, keep):
    return probs * keep / (probs * keep).sum(-1, keepdim=True)


def top_p_renorm(probs, top_p):
    ordered, ids = probs.sort(-1, descending=True)
    kept = (ordered.cumsum(-1) - ordered) < top_p[:, None]
    return renorm(probs, torch.zeros_like(probs).scatter(1, ids, kept.float()))


def chain(draft, drafts, target, considered, emitted, *, seed, offset):
    """What FlashInfer's chain gives for probabilities, in eager PyTorch."""
    assert (draft.dtype, target.dtype, drafts.dtype) == (torch.float32, torch.float32, torch.int32)
    tokens, accepted = best(drafts.long(), target.log(), draft.log(), Job(1.0, 0, 1.0, 0.0))
    emitted += accepted
    considered += 1
    return tokens.int(), considered, emitted


def test_the_chain_of_flashinfer_is_given_probabilities(monkeypatch):
    sampling = SimpleNamespace(
        softmax=lambda logits, temperature: (logits.float() / temperature).softmax(-1),
        top_k_renorm_probs=lambda probs, k: renorm(probs, (probs >= probs.topk(int(k[0])).values[:, -1:]).float()),
        top_p_renorm_probs=top_p_renorm,
        chain_speculative_sampling=chain,
    )
    monkeypatch.setattr(flashinfer_peer, "_sampling", lambda: sampling)
    for job in (FILTERED, TEMPERED, NUCLEUS):
        by(FLASHINFER_CHAIN, job, {FLASHINFER_CHAIN: flashinfer_peer.load_speculation()}).verify(inputs_of(job))
    with pytest.raises(ValueError, match="job: expected no min-p"):
        flashinfer_peer.verify(*(None,) * 3, MIN_P)


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
def test_the_chain_of_flashinfer_needs_a_gpu():
    _, absent = available({FLASHINFER_CHAIN: flashinfer_peer.load_speculation}, {})
    assert "needs a CUDA device" in absent[FLASHINFER_CHAIN]


# --------------------------------------------------------------------------------------------------------------------
# Our own methods are not trusted either.


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("job", [FILTERED, TEMPERED])
def test_our_methods_do_the_job(method, job):
    ours(method, job).verify(inputs_of(job))


@pytest.mark.parametrize("field", ["tokens", "accepted", "valid", "bonus"])
def test_a_wrong_output_is_found(field, monkeypatch):
    real = warpdraw.ops.verify
    calls = []

    def wrong(*given, **named):
        result = real(*given, **named)
        calls.append(result)
        # Later ones are those of the oracle.
        if len(calls) <= 2:
            tensor = getattr(result, field)
            tensor[1] = 1 - tensor[1].int()
        return result

    monkeypatch.setattr(speculation_methods.ops, "verify", wrong)
    with pytest.raises(NotVerified, match=f"warpdraw.verify, coupled does not give the {field} of the scalar oracle"):
        ours("coupled", FILTERED).verify(inputs_of(FILTERED))


def test_plain_draws_are_those_of_the_oracle(monkeypatch):
    plain(PLAIN, FILTERED).verify(inputs_of(FILTERED))
    plain(PLAIN_GREEDY, GREEDY).verify(inputs_of(FILTERED))
    other = plain(PLAIN, replace(FILTERED, temperature=5.0))
    with pytest.raises(NotVerified, match=re.escape(f"{PLAIN} does not draw the tokens of the scalar oracle")):
        replace(plain(PLAIN, TEMPERED), bind=other.bind).verify(inputs_of(FILTERED))


@pytest.mark.parametrize(("name", "rows"), [(READ_TARGET, 12), (READ_ONE, 15), (READ_ALL, 21)])
def test_a_floor_reads_its_rows(name, rows, monkeypatch):
    inputs = inputs_of(FILTERED)
    read(name).verify(inputs)
    assert sum(len(part) for part in read(name).bind(inputs)(0)) == rows

    real = draws.native_kernel("read_floor")
    lazy = SimpleNamespace(prepare=lambda logits, out: real.prepare(logits[:, : logits.shape[1] // 2], out))
    monkeypatch.setattr(draws, "native_kernel", lambda name: lazy)
    with pytest.raises(NotVerified, match="does not read every token"):
        read(name).verify(inputs)


# --------------------------------------------------------------------------------------------------------------------
# The grid.

SIZED = [DraftedCase(128256, batch, 5) for batch in (1, 8)]


def targets(cases, cache, jobs=(FILTERED, TEMPERED)):
    return {
        (each.case.batch, method, goal.against): goal.target
        for each in grid(cases, jobs, {})
        for method, goals in each.goals[cache].items()
        for goal in goals
        if goal.target is not None
    }


@pytest.mark.parametrize("cache", ["hot", "cold"])
def test_the_grid_has_every_target(cache):
    found = targets(SIZED, cache)
    for batch in (1, 8):
        assert found[batch, "rejection", PLAIN] == 1.5
        assert found[batch, "coupled", PLAIN] == found[batch, "point_mass", PLAIN] == 1.15
        for name in (USUAL, EAGER):
            assert found.get((batch, "rejection", name)) == (25 if cache == "hot" else None)
    assert {method for _, method, _ in found} == {"rejection", "coupled", "point_mass"}


def test_other_sizes_have_no_targets():
    cases = [DraftedCase(32000, 1, 5), DraftedCase(128256, 1, 4), DraftedCase(128256, 2, 5)]
    assert targets(cases, "hot") == {}


@pytest.mark.parametrize("only", ["", "greedy", "coupled", "rejection", "top-k", "point_mass, temperature 0.8"])
def test_goals_name_ways_of_their_measurement(only):
    for each in grid(SIZED, (FILTERED, TEMPERED), {}, only):
        names = [way.name for way in each.ways]
        assert len(names) == len(set(names))
        used = {
            name
            for goals in each.goals.values()
            for some in goals.values()
            for goal in some
            for name in (*goal.ours, *goal.other)
        }
        assert used <= set(names)
        assert {name_of(method) for method in each.methods} <= set(names)
        assert all(only in title(method, each.job) for method in each.methods)
        assert (TRANSFORMERS_SPECULATION in names) <= (each.case.batch == 1)
        assert (USUAL in names) == bool({"rejection", "block"} & set(each.methods))
    for each in sweep(SIZED[1], FILTERED, {}):
        assert set(each.series) == {way.name for way in each.ways}
        assert each.case.batch == 1


# --------------------------------------------------------------------------------------------------------------------
# The command.


def test_the_acceptance_is_that_of_the_distributions():
    case = DraftedCase(200, 64, 1, logits="normal")
    each = grid([case], [TEMPERED], {}, "rejection")[0]
    inputs = case.inputs(TEMPERED, 0)
    found = speculation._accepted("rejection", each, inputs, 4000)
    p, q = (
        torch.cat([(rows / 0.8).double().softmax(-1).flatten(0, 1) for rows in made])
        for made in ([x.target[:, :1] for x in inputs], [x.draft for x in inputs])
    )
    agree = torch.minimum(p, q).sum(-1).mean().item()
    assert found["requests"] >= 4000
    assert found["of_drafts"] == pytest.approx(agree, abs=6 * found["standard_error_of_tokens"])
    assert found["tokens"] == pytest.approx(found["of_drafts"] + 1)


def test_bench_verify_prints_and_writes(run, tmp_path):
    places = tmp_path / "verify.json", tmp_path / "verify.svg"
    sizes = ["--vocab", "300", "--batch", "1", "--batch", "2", "--drafts", "2"]
    code, out, err = run("bench", "verify", "--quick", *sizes, "--json", str(places[0]), "--picture", str(places[1]))
    assert (code, err) == (0, f"wrote {places[1]}\nwrote {places[0]}\n")
    document = json.loads(places[0].read_text())
    assert document["benchmark"] == "verify"
    assert document["environment"]["threads"] == 1
    assert document["absent"][COMPILED_EAGER] == "skipped without --compile"
    jobs = {title(method, job) for method in METHODS for job in (FILTERED, TEMPERED)}
    assert {goal["job"] for goal in document["goals"]} == jobs
    where = ("vocab", "batch", "drafts", "cache")
    timed = [record for record in document["results"] if not record["series"]]
    medians = {(*(r[key] for key in where), r["job"], r["method"]): r["median_us"] for r in timed}
    assert len(medians) == len(timed)
    for record in timed:
        assert record["p10_us"] <= record["median_us"] <= record["p90_us"]
        draft_rows = {PLAIN: 0, PLAIN_GREEDY: 0, READ_TARGET: 0, READ_ONE: 1}.get(record["method"], 2)
        draft_rows = 0 if record["method"].endswith(("coupled", "point_mass", "greedy")) else draft_rows
        assert record["bytes"] == record["batch"] * (3 + draft_rows) * 300 * 4
        assert (record["acceptance"] is None) != record["method"].startswith("warpdraw.verify")
        if record["acceptance"]:
            assert record["acceptance"]["tokens"] == pytest.approx(1 + 2 * record["acceptance"]["of_drafts"])
    checked = 0
    for goal in document["goals"]:
        assert goal["met"] is None
        if goal["against"] == EAGER:
            filters = goal["job"].partition(", ")[2]
            other, own = (medians[(*(goal[key] for key in where), filters, name)] for name in (EAGER, goal["ours"]))
            assert goal["figure"] == pytest.approx(other / own)
            checked += 1
    assert checked == 16
    swept = [record for record in document["results"] if record["series"]]
    assert {record["drafts"] for record in swept} == set(SWEPT_DRAFTS)
    assert {record["job"] for record in swept} == {SWEEP}
    for job in jobs:
        assert f"\n{job}\n" in out
    assert "so the figures mean nothing" in out
    assert "accepted" in out
    assert f"{SWEEP}, cold" in out
    assert f"not measured: {COMPILED_EAGER} (skipped without --compile)" in out
    tree = ElementTree.fromstring(places[1].read_text())
    shown = [element.text for element in tree.iter() if element.tag.endswith("text")]
    assert {"Time to verify the drafts of one request", "hot rows, microseconds by number of drafts"} <= set(shown)
    assert {"warpdraw: rejection", EAGER, READ_ALL, "8"} <= set(shown)


def test_bench_verify_gives_verdicts_and_can_be_narrowed(monkeypatch):
    monkeypatch.setattr(speculation, "COLD_BYTES", 10_000)
    monkeypatch.setattr(speculation, "ACCEPTANCE_REQUESTS", 8)
    for name, value in (("TARGET_VOCAB", 300), ("TARGET_DRAFTS", 2)):
        monkeypatch.setattr(f"warpdraw.bench.speculation_grid.{name}", value)
    document = speculation.run(Options(vocab=300, batches=(1,), drafts=2, only="coupled, ", seconds=0.0))
    assert {goal["job"] for goal in document["goals"]} == {title("coupled", FILTERED), title("coupled", TEMPERED)}
    assert all((goal["met"] is None) == (goal["target"] is None) for goal in document["goals"])
    assert {goal["target"] for goal in document["goals"]} == {None, 1.15}


def test_without_transformers_the_rest_is_measured(monkeypatch):
    def missing():
        raise Absent("not here")

    monkeypatch.setitem(SPECULATORS, TRANSFORMERS_SPECULATION, missing)
    document = speculation.run(Options(vocab=300, batches=(1,), drafts=1, only="rejection", quick=True))
    goals = [goal for goal in document["goals"] if goal["against"] == TRANSFORMERS_SPECULATION]
    assert [goal["figure"] for goal in goals] == [None] * 4
    assert goals[0]["missing"] == {TRANSFORMERS_SPECULATION: "not here"}
    assert EAGER in {record["method"] for record in document["results"]}


def test_what_is_not_verified_is_not_timed(run, monkeypatch):
    monkeypatch.setattr(
        speculation_methods, "check_drawn", lambda name, *rest: (_ for _ in ()).throw(NotVerified(f"{name} is off"))
    )
    code, out, err = run("bench", "verify", "--quick", "--vocab", "300", "--only", "greedy")
    assert (code, out, err) == (1, "", f"warpdraw: error: {PLAIN_GREEDY} is off\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "nothing"], "only: expected part of the name of a job (rejection, temperature 0.8, top-k 50, "),
        (["--json", "no/such/place.json"], "json: expected a file in an existing folder"),
        (["--picture", "verify.png"], "picture: expected a name that ends in .svg, got 'verify.png'"),
        (["--dtype", "int8"], "dtype: expected one of float32, bfloat16, float16, got 'int8'"),
        (["--logits", "flat"], "logits: expected one of peaked, normal, got 'flat'"),
        (["--temperature", "0"], "temperature: expected more than 0"),
        (["--top-p", "1.5"], "top_p: expected"),
        (["--noise", "-1"], "noise: expected at least 0, got -1"),
        (["--seconds", "nan"], "seconds: expected at least 0, got nan"),
        (["--drafts", "0"], "Invalid value for '--drafts': expected an integer of at least 1, got 0"),
        (["--batch", "x"], "Invalid value for '--batch': expected an integer, got 'x'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, arguments, message):
    code, out, err = run("bench", "verify", "--quick", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"warpdraw: error: {message}")
    assert err.count("\n") == 1


def test_help_has_examples(run):
    code, out, _ = run("bench", "verify", "--help")
    assert code == 0
    assert "warpdraw bench verify --json verify.json --picture verify.svg" in out


# --------------------------------------------------------------------------------------------------------------------
# On a GPU, tried on the CPU.


@pytest.fixture(scope="module")
def pool():
    return Pool(300, "bfloat16", "peaked", 40, CPU)


def prepared(job, pool, batch=3):
    point = Point(job, 300, batch)
    return point, pool, pool.inputs(point.rows, 2)


def test_the_places_with_targets_are_measured_early():
    points = [place.point for place in gpu_grid(Sizes())]
    for job in SPECULATIVE:
        assert all(points.index(Point(job, 151936, batch)) < 90 for batch in (1, 8, 32, 128))


def test_the_targets_on_a_gpu():
    def target(job, batch, against):
        place = Place(Point(job, 151936, batch), (PLAIN_DRAWS, EAGER, FLASHINFER_CHAIN))
        return next(goal.target for goal in goals_of(place) if goal.against == against)

    assert [target(job, 32, FLOOR) for job in (COUPLED, POINT_MASS, REJECTION)] == [1.5, 1.5, 1.6]
    assert target(REJECTION, 32, FLASHINFER_CHAIN) == 4
    assert target(REJECTION, 8, FLASHINFER_CHAIN) is None
    assert target(COUPLED, 8, FLOOR) is None


def test_a_point_counts_the_rows_of_target_and_drafts():
    assert Point(COUPLED, 1000, 32).bytes == 32 * 6 * 2000
    assert Point(REJECTION, 1000, 32).bytes == 32 * 11 * 2000
    assert Point(REJECTION, 1000, 32).rows == 192


@pytest.mark.parametrize("job", SPECULATIVE)
@pytest.mark.parametrize("path", [None, "scalar"])
def test_ours_is_verified_by_what_it_wrote(job, path, pool):
    method = our_verification(*prepared(job, pool), path)
    method.check()
    method.poison()
    with pytest.raises(NotVerified, match="does not give"):
        method.compare()
    for number in range(2):
        method.call(number)
    method.compare()


def test_plain_draws_are_verified_by_what_they_wrote(pool):
    method = plain_draws(*prepared(COUPLED, pool))
    method.check()
    assert len(method.call(0).tokens) == 18
    method.poison()
    with pytest.raises(NotVerified, match="does not give"):
        method.compare()


def test_a_wrong_token_is_found(pool, monkeypatch):
    method = our_verification(*prepared(REJECTION, pool))
    monkeypatch.setattr(gpu_methods, "use", lambda name: warpdraw.use("scalar"))
    with pytest.raises(NotVerified, match=r"ran scalar\.verify"):
        our_verification(*prepared(REJECTION, pool), "portable").check()
    method.call(0).tokens[-1] += 1
    with pytest.raises(NotVerified, match="warpdraw does not give the tokens of the CPU backend"):
        method.compare()


def test_a_speculator_is_verified(pool):
    of_speculator(EAGER, speculator(EAGER), *prepared(REJECTION, pool)).check()
    wrong = Speculator("", without_residual)
    with pytest.raises(NotVerified):
        of_speculator("x", wrong, *prepared(REJECTION, pool)).check()


def test_a_run_measures_verification():
    document = gpu.run(gpu_run.Options(device="cpu", quick=True, only=REJECTION))
    assert not document["failed"]
    assert {record["method"] for record in document["results"]} == {
        OURS,
        f"{OURS}, portable",
        PLAIN_DRAWS,
        USUAL,
        EAGER,
    }
    assert {record["job"] for record in document["results"]} == {REJECTION, f"{REJECTION}, temperature alone"}
    assert FLASHINFER_CHAIN in document["absent"] or torch.cuda.is_available()
