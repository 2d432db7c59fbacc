"""What `warpdraw bench cpu` measures and what it is to reach: a job is one Measurement here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .cases import CACHES, Case
from .draws import CANDIDATES, EXP, READ, Draw, candidates, floor
from .features import COUNTS, GATHERED, PENALISED, PLAIN, REPETITION, Fused, Sequences, penalise
from .goals import FASTER, MORE, RATIO, TIME, Goal, above, faster, within
from .method import KERNEL, OURS, Method
from .overhead import EVERYTHING, PER_ROW, VOCAB, calls, kernel_of
from .peers import ARGMAX, COMPILED, EAGER, IDIOM, LLAMA, NUMPY, TRANSFORMERS, Job, Peer
from .peers.penalties import Penalties
from .softmaxes import TORCH_FRESH, TORCH_OUT, softmax

SWEEP = "against the vocabulary"
ONE, TWO = "one thread", "two threads"

COMBINED = Draw(Job(temperature=1.0, top_k=50, top_p=0.9, min_p=0.05))
NUCLEUS = Draw(Job(temperature=1.0, top_k=0, top_p=0.9, min_p=0.0))
TEMPERED = Draw(Job(temperature=0.7, top_k=0, top_p=1.0, min_p=0.0))
GREEDY = Draw(Job(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0))
PENALTIES = Penalties(repetition=1.1, frequency=0.2, presence=0.1)


@dataclass(frozen=True)
class Measurement:
    """Methods timed in turn on the same logits, hot and cold, and the goals of each cache state."""

    job: str
    case: Case
    methods: tuple[Method, ...]
    goals: Mapping[str, tuple[Goal, ...]]  # by cache state: those in it are measured
    seconds: float = 1.5  # for each cache state
    turn: float = 0.0
    series: Mapping[str, str] = field(default_factory=dict)  # of the picture: the kind of line each method is


@dataclass(frozen=True)
class Sizes:
    """How large the measurements are."""

    vocab: int = 128256
    many: int = 64  # rows of a large batch
    some: int = 8
    sweep: tuple[int, ...] = (1000, 5003, 32000, 128256, 262144)
    history: int = 1024
    top: int = 20


QUICK = Sizes(vocab=2000, many=4, some=3, sweep=(300, 1000), history=64, top=5)


def grid(sizes: Sizes, peers: Mapping[str, Peer]) -> list[Measurement]:
    """All that is measured, the second thread last."""
    one, many = Case(sizes.vocab, 1), Case(sizes.vocab, sizes.many)
    return [
        *_combined(sizes, one, many, peers),
        *_native(one, peers),
        *_nucleus(sizes, peers),
        *_tempered(one, many, peers),
        *_greedy(one, many, peers),
        *_softmax(one, many),
        *_features(sizes, one, many, peers),
        _overhead(),
        *_sweep(sizes, peers),
        *_threads(sizes, one),
    ]


def _combined(sizes: Sizes, one: Case, many: Case, peers: Mapping[str, Peer]) -> list[Measurement]:
    job = "top-k 50, top-p 0.9, min-p 0.05"
    ways = (COMBINED.ours(), *(COMBINED.by(name, peers) for name in (TRANSFORMERS, IDIOM, EAGER, NUMPY)))
    compiled = COMBINED.by(COMPILED, peers)
    others = (faster(IDIOM), faster(NUMPY))
    hot = (faster(TRANSFORMERS, 400), faster(EAGER, 25), *others, faster(COMPILED))
    cold = (faster(TRANSFORMERS), faster(EAGER), *others, faster(COMPILED))
    large = (faster(TRANSFORMERS, 180), faster(EAGER, 7), *others, within(READ, None, OURS))
    half = Case(sizes.vocab, 1, "bfloat16")
    return [
        Measurement(job, one, (*ways, compiled), {"hot": hot, "cold": cold}, seconds=3.0),
        Measurement(job, many, (*ways, floor(READ)), {"cold": large}, seconds=3.0),
        Measurement(job, half, ways, {"hot": tuple(faster(way.name) for way in ways[1:])}),
    ]


def _native(one: Case, peers: Mapping[str, Peer]) -> list[Measurement]:
    job = "the same, the kernel alone"
    methods = (COMBINED.kernel(), floor(READ), floor(EXP), COMBINED.by(LLAMA, peers), candidates())
    chain = Goal(FASTER, f"{LLAMA}, candidates not counted", (KERNEL,), (LLAMA, CANDIDATES))
    return [
        Measurement(
            job,
            one,
            methods,
            {
                "hot": (above(READ, 5.0, KERNEL), faster(LLAMA, 20, KERNEL), chain),
                "cold": (within(READ, 1.3, KERNEL), faster(LLAMA, 4, KERNEL), chain),
            },
        )
    ]


def _nucleus(sizes: Sizes, peers: Mapping[str, Peer]) -> list[Measurement]:
    made = []
    for logits, times, floors in (("peaked", 400, 1.4), ("normal", 200, 3.0)):
        case = Case(sizes.vocab, 1, logits=logits)
        methods = (NUCLEUS.ours(), NUCLEUS.by(IDIOM, peers).named("sort idiom"), NUCLEUS.kernel(), floor(EXP))
        near = within(EXP, floors, KERNEL)
        goals = {"hot": (faster("sort idiom", times), near), "cold": (faster("sort idiom"), near)}
        made.append(Measurement("top-p 0.9", case, methods, goals, seconds=2.0))
    return made


def _tempered(one: Case, many: Case, peers: Mapping[str, Peer]) -> list[Measurement]:
    idiom = "softmax + multinomial"
    methods = (TEMPERED.ours(), TEMPERED.by(IDIOM, peers).named(idiom), TEMPERED.kernel(), floor(EXP))
    near = within(EXP, 1.5, KERNEL)
    return [
        Measurement(
            "temperature 0.7", one, methods, {"hot": (faster(idiom, 120), near), "cold": (faster(idiom), near)}
        ),
        Measurement("temperature 0.7", many, methods, {"cold": (faster(idiom, 50), near)}, seconds=2.0),
    ]


def _greedy(one: Case, many: Case, peers: Mapping[str, Peer]) -> list[Measurement]:
    methods = (GREEDY.ours(), GREEDY.by(ARGMAX, peers), GREEDY.kernel(), floor(READ))
    near = above(READ, None, KERNEL)
    return [
        Measurement("greedy", one, methods, {"hot": (faster(ARGMAX, 10), near), "cold": (faster(ARGMAX), near)}),
        Measurement("greedy", many, methods, {"cold": (faster(ARGMAX, 4), within(READ, None, KERNEL))}),
    ]


def _softmax(one: Case, many: Case) -> list[Measurement]:
    methods = tuple(softmax(0.7))
    goals = (faster(TORCH_OUT, 2.5), faster(TORCH_FRESH))
    return [
        Measurement("softmax(x / 0.7), out=", one, methods, {"hot": goals, "cold": goals}),
        Measurement("softmax(x / 0.7), out=", many, methods, {"cold": goals}),
    ]


def _features(sizes: Sizes, one: Case, many: Case, peers: Mapping[str, Peer]) -> list[Measurement]:
    sequences, job = Sequences(sizes.history), COMBINED.job
    plain = Fused(job).method(PLAIN)
    penalised = Fused(job, PENALTIES, sequences).method(PENALISED)
    others = tuple(penalise(name, PENALTIES, sequences, peers) for name in (COUNTS, GATHERED, REPETITION))
    goals = tuple(
        goal
        for other, target in ((COUNTS, 120), (REPETITION, 15), (GATHERED, None))
        for goal in (
            Goal(FASTER, f"{other} (added time only)", (PENALISED, PLAIN), (other,), target),
            Goal(FASTER, f"{other} (whole call)", (PENALISED,), (other,)),
        )
    )
    lists = []
    for top_of in ("raw", "filtered"):
        options = (("logprob", True), ("top_n", sizes.top), ("top_of", top_of))
        name = f"all, top {sizes.top} {top_of}"
        lists.append(Fused(job, PENALTIES, sequences, with_bitmask=True, options=options).method(name))
    near = tuple(Goal(RATIO, f"the plain call: {each.name}", (each.name,), (PLAIN,), 2.0) for each in lists)
    return [
        Measurement(f"three penalties, {sizes.history} tokens", many, (plain, penalised, *others), {"cold": goals}),
        Measurement(f"bitmask, penalties, {sizes.top} log-probs", one, (plain, *lists), {"hot": near, "cold": near}),
    ]


def _overhead() -> Measurement:
    goals = []
    for name, target in ((PER_ROW, 5.0), (EVERYTHING, 8.0)):
        goals += [
            Goal(TIME, f"{name}, median", (name,), target=target),
            Goal(TIME, f"{name}, minimum", (name,), target=target, of_minimum=True),
            Goal(MORE, f"{name}, the kernel alone", (name,), (kernel_of(name),)),
        ]
    return Measurement("host overhead", Case(VOCAB, 1), tuple(calls()), {"hot": tuple(goals)}, seconds=0.5)


def _sweep(sizes: Sizes, peers: Mapping[str, Peer]) -> list[Measurement]:
    ours = {"top-k, top-p, min-p": COMBINED, "top-p": NUCLEUS, "temperature": TEMPERED}
    eager, llama = f"{EAGER}: top-k, top-p, min-p", f"{LLAMA}: top-k, top-p, min-p"
    methods = (
        *(draw.kernel().named(name) for name, draw in ours.items()),
        COMBINED.by(EAGER, peers).named(eager),
        COMBINED.by(LLAMA, peers).named(llama),
        floor(READ),
        floor(EXP),
    )
    series = dict.fromkeys(ours, "ours") | {eager: "peer", llama: "peer", READ: "floor", EXP: "floor"}
    nothing: dict[str, tuple[Goal, ...]] = {cache: () for cache in CACHES}
    return [Measurement(SWEEP, Case(vocab, 1), methods, nothing, seconds=0.8, series=series) for vocab in sizes.sweep]


def _threads(sizes: Sizes, one: Case) -> list[Measurement]:
    def both(draw: Draw) -> tuple[Method, Method]:
        return draw.kernel().named(ONE), draw.kernel().named(TWO, threads=2)

    combined = "second thread: top-k 50, top-p 0.9, min-p 0.05"
    batches = [Case(sizes.vocab, batch) for batch in (sizes.some, sizes.many)]
    several = {"cold": (faster(ONE, 1.6, TWO),)}
    single = {"cold": (faster(ONE, 1.4, TWO),)}
    rows = {combined: COMBINED, "second thread: top-p 0.9": NUCLEUS, "second thread: temperature": TEMPERED}
    return [
        *(Measurement(combined, case, both(COMBINED), several, turn=0.05) for case in batches),
        *(Measurement(job, one, both(draw), single, turn=0.05) for job, draw in rows.items()),
    ]
