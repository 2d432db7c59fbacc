"""The engine: requests that join, are cancelled and leave at any time draw what they draw alone; bounds, and errors."""

import doctest
import random
import re
from importlib import import_module
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from small_model import EOS, small_model

import warpdraw
from warpdraw import Engine, EngineFull, SamplingParams, generate
from warpdraw.generation import graph

MODEL = small_model()
TINY = warpdraw.load("tiny-target")
# So that prompts of this file are read in several parts.
PART = 24


@pytest.fixture(autouse=True)
def short_parts(monkeypatch):
    monkeypatch.setattr(import_module("warpdraw.generation.engine"), "PREFILL_TOKENS", PART)


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def lasting(**fields):
    return SamplingParams(**{"ignore_eos": True, "max_tokens": 8, "seed": 3, **fields})


def run(engine):
    """All events of an engine until it is idle."""
    events = []
    while not engine.idle:
        events += engine.step()
    return events


def completions(events):
    """The completion of each sample; its events sum to its text and its tokens."""
    found, texts, tokens = {}, {}, {}
    for event in events:
        key = event.index, event.sample
        assert key not in found, "an event after the last one"
        texts[key] = texts.get(key, "") + event.text
        tokens[key] = tokens.get(key, ()) + event.token_ids
        assert (event.finish_reason is None) == (event.completion is None)
        if event.completion is not None:
            assert event.completion.finish_reason == event.finish_reason
            assert (event.completion.index, event.completion.sample) == key
            found[key] = event.completion
    assert found.keys() == texts.keys()
    for key, completion in found.items():
        assert (completion.text, tuple(completion.token_ids)) == (texts[key], tokens[key])
    return found


ALONE = {}


def alone(prompt, params):
    """What `generate` draws, one request in a run."""
    key = (tuple(prompt), params)
    if key not in ALONE:
        ALONE[key] = generate(MODEL, [prompt], params)
    return ALONE[key]


def some_params(chance):
    more = chance.choice(
        [{}, {}, {"temperature": 0.0}, {"repetition_penalty": 1.4}, {"order": "hf", "top_p": 0.8}, {"logprobs": 1}]
    )
    return lasting(
        seed=chance.randrange(20), max_tokens=chance.choice([1, 3, 9]), n=chance.choice([1, 1, 1, 2, 4]), **more
    )


@settings(max_examples=25, deadline=None)
@given(
    seed=some.integers(0, 10**6),
    slots=some.sampled_from([1, 2, 3, 5]),
    steps=some.lists(some.sampled_from(["add", "add", "step", "step", "step", "cancel", "late"]), max_size=40),
)
def test_requests_draw_what_they_draw_alone_whoever_joins_and_leaves(seed, slots, steps):
    chance, clock = random.Random(seed), Clock()
    engine = Engine(MODEL, slots, prefill_tokens=chance.choice([PART, 2 * PART, None]), clock=clock)
    requests, events, cancelled = {}, [], set()
    for action in steps:
        if action == "add":
            prompt = [chance.randrange(8) for _ in range(chance.choice([1, 2, 16, 17, 40, 60]))]
            params = some_params(chance)
            requests[engine.add(prompt, params, deadline=chance.choice([None, None, 2.5]))] = prompt, params
        elif action == "cancel" and requests:
            which = chance.choice(list(requests))
            if engine.cancel(which):
                cancelled.add(which)
        elif action == "late":
            clock.now += 1.0
        else:
            events += engine.step()
    assert engine.idle == (engine.running == engine.waiting == 0) or cancelled
    events += run(engine)
    assert (engine.running, engine.waiting) == (0, 0)
    assert engine.step() == []

    found = completions(events)
    assert found.keys() == {(index, sample) for index, (_, params) in requests.items() for sample in range(params.n)}
    for (index, sample), completion in found.items():
        expected = alone(*requests[index])[sample]
        if completion.finish_reason in ("cancelled", "deadline"):
            assert (completion.finish_reason == "cancelled") <= (index in cancelled)
            assert completion.token_ids == expected.token_ids[: len(completion.token_ids)]
        else:
            assert completion.token_ids == expected.token_ids
            assert (completion.text, completion.finish_reason) == (expected.text, expected.finish_reason)
            assert completion.seed == expected.seed


def test_requests_start_in_the_order_in_which_they_came():
    engine = Engine(MODEL, 3)
    for n in (2, 2, 1):  # the third would fit beside the first, but came after the second
        engine.add([5], lasting(n=n, max_tokens=2))
    first = engine.step()
    assert [(event.index, event.sample) for event in first] == [(0, 0), (0, 1)]
    assert (engine.running, engine.waiting) == (2, 2)
    engine.step()
    assert [(event.index, event.sample) for event in engine.step()] == [(1, 0), (1, 1), (2, 0)]


def test_more_samples_than_slots_start_as_slots_come_free():
    engine = Engine(MODEL, 2)
    engine.add([5, 6], lasting(n=5, max_tokens=2))
    assert (engine.waiting, engine.idle) == (1, False)
    events = engine.step()
    assert [event.sample for event in events] == [0, 1]
    assert engine.waiting == 0
    found = completions(events + run(engine))
    expected = alone([5, 6], lasting(n=5, max_tokens=2))
    assert [found[0, sample].token_ids for sample in range(5)] == [each.token_ids for each in expected]


def test_a_long_prompt_is_read_beside_running_rows_that_draw_a_token_in_every_step():
    engine = Engine(MODEL, 2, prefill_tokens=PART)
    one = engine.add([5], lasting(max_tokens=30))
    engine.step()
    long = [7] * (3 * PART + 5)
    two = engine.add(long, lasting())
    steps = [[event.index for event in engine.step()] for _ in range(5)]
    assert steps == [[one], [one], [one], [one, two], [one, two]]


def test_a_step_reads_no_more_prompt_tokens_than_it_may_and_the_parts_are_those_of_a_prompt_alone(monkeypatch):
    read = []
    for name in ("forward", "extend"):
        real = getattr(type(MODEL.model), name)

        def counted(self, tokens, *args, real=real, **options):
            read.append(tokens.numel())
            return real(self, tokens, *args, **options)

        monkeypatch.setattr(type(MODEL.model), name, counted)
    engine = Engine(MODEL, 4, prefill_tokens=2 * PART)
    for length in (PART + 3, 2 * PART, 5, 6):
        engine.add([9] * length, lasting(max_tokens=1))
    parts = []
    while not engine.idle:
        engine.step()
        parts.append(read.copy())
        read.clear()
    assert parts == [[PART, 3], [PART, PART], [11]]


def test_cancelled_requests_end_with_the_text_so_far_wherever_they_are():
    engine = Engine(TINY, 1, prefill_tokens=None)
    running = engine.add("The sky is", lasting(seed=7, max_tokens=20))
    waiting = engine.add("The grass is", lasting(n=2))
    engine.step()
    engine.step()
    assert engine.cancel(waiting)
    assert engine.cancel(running)
    assert not engine.idle
    events = engine.step()
    assert [(event.index, event.sample, event.finish_reason) for event in events] == [
        (running, 0, "cancelled"),
        (waiting, 0, "cancelled"),
        (waiting, 1, "cancelled"),
    ]
    assert [event.completion.text for event in events] == [" blue and", "", ""]
    assert engine.idle
    assert not engine.cancel(running)
    assert not engine.cancel(99)


def test_a_request_is_cancelled_while_its_prompt_is_read_and_its_slot_is_clean():
    engine = Engine(MODEL, 1, prefill_tokens=PART)
    one = engine.add([3] * (3 * PART), lasting())
    assert engine.step() == []
    engine.cancel(one)
    two = engine.add([5, 6], lasting())
    events = engine.step()
    assert [(event.index, event.finish_reason) for event in events] == [(one, "cancelled"), (two, None)]
    assert completions(events[1:] + run(engine))[two, 0].token_ids == alone([5, 6], lasting())[0].token_ids


def test_text_that_is_held_back_comes_when_a_request_is_cancelled():
    engine = Engine(TINY, 1)
    one = engine.add("The sky is", lasting(seed=7, max_tokens=20, stop=[" blue and the sea"]))
    assert [event.text for event in engine.step() + engine.step()] == ["", ""]
    engine.cancel(one)
    (event,) = engine.step()
    assert (event.text, event.completion.text) == (" blue and", " blue and")


def test_deadlines_are_seconds_from_the_request_and_end_it_before_the_next_token():
    clock = Clock()
    engine = Engine(TINY, 2, clock=clock)
    late, soon = (engine.add("The sky is", lasting(seed=7), deadline=seconds) for seconds in (10, 1.5))
    clock.now += 1.0
    assert [event.finish_reason for event in engine.step()] == [None, None]
    clock.now += 0.5
    events = engine.step()
    assert [(event.index, event.finish_reason) for event in events] == [(soon, "deadline"), (late, None)]
    assert events[0].completion.text == " blue"
    clock.now += 9
    assert [(event.index, event.finish_reason) for event in engine.step()] == [(late, "deadline")]
    assert engine.idle


def test_a_request_that_ends_in_time_has_no_deadline_any_more():
    clock = Clock()
    engine = Engine(MODEL, 1, clock=clock)
    engine.add([5], lasting(max_tokens=1), deadline=1.0)
    assert [event.finish_reason for event in engine.step()] == ["length"]
    clock.now += 5
    assert engine.step() == []
    assert engine._deadlines == {}


def test_a_function_that_raises_ends_its_own_request():
    def raises(ids):
        if len(ids) == 2:
            raise ZeroDivisionError("by zero")

    for draft in (None, "ngram"):
        engine = Engine(MODEL, 3, draft=draft)
        bad = engine.add([5, 6], lasting(bitmask=raises))
        shape = engine.add([5, 6], lasting(bitmask=lambda ids: torch.zeros(2)))
        good = engine.add([5, 6], lasting())
        found = completions(run(engine))
        expected = alone([5, 6], lasting())[0].token_ids
        assert found[bad, 0].finish_reason == found[shape, 0].finish_reason == "error"
        assert found[bad, 0].error.endswith("its bitmask raised ZeroDivisionError: by zero")
        assert "its bitmask raised TypeError: params.bitmask: expected" in found[shape, 0].error
        assert (found[bad, 0].token_ids, found[shape, 0].token_ids) == (expected[:2], [])
        assert found[good, 0].token_ids == expected
    with pytest.raises(ZeroDivisionError):
        generate(MODEL, [[5, 6]], lasting(bitmask=raises))


def test_the_context_bounds_a_sample_and_the_memory():
    engine = Engine(MODEL, 2, context=20, capacity=4)
    config = MODEL.config
    bytes_a_place = 2 * config.layers * config.kv_heads * 16 * -(-config.head_dim // 16) * 4
    # Whole blocks of 64 places.
    assert engine.memory_bytes == 2 * 64 * bytes_a_place
    assert Engine(MODEL, 2).memory_bytes == 2 * config.max_positions * bytes_a_place
    assert Engine(MODEL, 2, draft=MODEL).memory_bytes == 2 * Engine(MODEL, 2).memory_bytes
    full = engine.add([5] * 15, lasting(max_tokens=50))
    assert completions(run(engine))[full, 0].finish_reason == "context"
    assert engine._cache.capacity <= 20
    completion = generate(MODEL, [[5] * 15], lasting(max_tokens=50))[0]
    assert completion.completion_tokens == 50


def test_what_can_never_fit_is_refused_with_the_figures():
    engine = Engine(MODEL, 2, context=20)
    message = "prompt: expected fewer tokens than the context of 20 tokens that each of the 2 slots has, got 20"
    with pytest.raises(ValueError, match=message):
        engine.add([5] * 20)
    assert engine.idle
    assert engine.add([5] * 19) == 0


def test_so_many_requests_may_wait_and_no_more():
    engine = Engine(MODEL, 1, max_waiting=2)
    for _ in range(2):
        engine.add([5], lasting())
    with pytest.raises(EngineFull, match="max_waiting: expected at most 2 waiting requests, got one more"):
        engine.add([5], lasting())
    engine.step()
    assert engine.add([5], lasting()) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slots": 0}, "slots: expected an integer of at least 1, got 0"),
        ({"context": 1}, r"context: expected an integer in \[2, "),
        ({"context": 10**6}, "context: expected an integer in"),
        ({"prefill_tokens": 5}, f"prefill_tokens: expected an integer of at least {PART}, got 5"),
        ({"max_waiting": 0}, "max_waiting: expected an integer of at least 1, got 0"),
        ({"capacity": 0}, "capacity: expected an integer in"),
        ({"explain": -1}, "explain: expected an integer of at least 0, got -1"),
    ],
)
def test_bad_engines_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Engine(MODEL, **options)


@pytest.mark.parametrize("deadline", [0, -1.0, float("nan"), "soon", True])
def test_bad_deadlines_are_refused(deadline):
    with pytest.raises((ValueError, TypeError), match="deadline: expected None or a number of seconds > 0, got"):
        Engine(MODEL, 1).add([5], deadline=deadline)


@pytest.mark.parametrize("graphs", [False, True])
def test_drafts_draw_the_same_tokens_in_a_batch_that_changes(graphs):
    engine = Engine(MODEL, 2, draft="ngram", graphs=graphs)
    prompts = [[4, 5] * length for length in (3, 9, 1, 20)]
    for prompt in prompts[:3]:
        engine.add(prompt, lasting(max_tokens=12))
    events = engine.step() + engine.step()
    engine.cancel(1)
    engine.add(prompts[3], lasting(max_tokens=12))
    found = completions(events + run(engine))
    for index in (0, 2, 3):
        assert found[index, 0].token_ids == alone(prompts[index], lasting(max_tokens=12))[0].token_ids


def test_a_graph_of_a_bucket_serves_rows_that_change(monkeypatch):
    """What a real graph has recorded is addresses: a step must read the same memory whichever rows it is for."""
    seen = []
    real = graph.Transformer.decode

    def decode(self, tokens, cache, rows, positions, places):
        seen.append((tokens.data_ptr(), rows.data_ptr(), positions.data_ptr(), cache.keys(0).data_ptr(), len(rows)))
        return real(self, tokens, cache, rows, positions, places)

    monkeypatch.setattr(graph.Transformer, "decode", decode)
    engine = Engine(TINY, 4, graphs=True)
    kinds = [{}, {"frequency_penalty": 0.4}]
    for kind in kinds:
        before = engine.throughput.graphs
        params = [lasting(seed=seed, max_tokens=5 + 3 * seed, top_k=20, **kind) for seed in range(8)]
        ids = [engine.add("The sky is", each) for each in params]
        found = completions(run(engine))
        for index, each in zip(ids, params, strict=True):
            assert found[index, 0].token_ids == generate(TINY, "The sky is", each)[0].token_ids
        # Of 1, 2 and 4 rows, though 8 requests ran beside each other in many ways.
        assert engine.throughput.graphs - before == 3
    assert len(set(seen)) == 6
    assert engine.throughput.graph_steps > 20


def test_graphs_draw_the_usual_tokens_while_requests_come_and_go():
    for seed in range(6):
        chance = random.Random(seed)
        engine, requests, events = Engine(TINY, 3, graphs=True), {}, []
        for _ in range(40):
            if chance.random() < 0.25:
                params = some_params(chance)
                requests[engine.add("The sky is", params)] = params
            if requests and chance.random() < 0.05:
                engine.cancel(chance.choice(list(requests)))
            events += engine.step()
        found = completions(events + run(engine))
        for (index, sample), completion in found.items():
            expected = generate(TINY, "The sky is", requests[index])[sample].token_ids
            assert completion.token_ids == expected[: len(completion.token_ids)]
            assert completion.finish_reason == "cancelled" or len(completion.token_ids) == len(expected)


def test_a_row_of_another_order_leaves_no_old_tokens_in_a_graph():
    engine = Engine(TINY, 2, graphs=True)
    params = lasting(seed=1, max_tokens=30)
    one = engine.add("The sky is", params)
    events = [event for _ in range(8) for event in engine.step()]
    engine.add("The sky is", lasting(order="hf", max_tokens=4))
    found = completions(events + run(engine))
    assert found[one, 0].token_ids == generate(TINY, "The sky is", params)[0].token_ids


def test_throughput_counts_all_requests():
    engine = Engine(MODEL, 2)
    for length in (3, 40):
        engine.add([EOS - 1] * length, lasting(n=2, max_tokens=4))
    run(engine)
    assert (engine.throughput.prompt_tokens, engine.throughput.completion_tokens) == (43, 16)


def test_the_python_of_the_guide_prints_what_it_says():
    text = (Path(__file__).parent.parent / "docs" / "engine.md").read_text(encoding="utf-8")
    session = "\n".join(re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL))
    test = doctest.DocTestParser().get_doctest(session, {}, "engine.md", None, None)
    output = []
    assert doctest.DocTestRunner(verbose=False).run(test, out=output.append).failed == 0, "".join(output)
    assert len(test.examples) > 10
