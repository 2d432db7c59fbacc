"""Decode steps that a CUDA graph can hold: the text is that of the other steps, and what could not be held is counted.

On the CPU the same step runs without a graph; tests/test_gpu.py has the graphs themselves.
"""

import pytest
import torch

from warpdraw import SamplingParams, generate, load
from warpdraw.generation import graph

PROMPTS = ["The sky is", "The grass is green and the", "A"]


@pytest.fixture(scope="module")
def model():
    return load("tiny-target")


def both(model, params, **options):
    """The completions of the usual steps, and those of steps for graphs."""
    usual, held = (generate(model, PROMPTS, params, graphs=graphs, **options) for graphs in (False, True))
    return usual, held


CASES = {
    "sampled": SamplingParams(seed=7, max_tokens=40, ignore_eos=True),
    "greedy": SamplingParams(temperature=0.0, max_tokens=40, ignore_eos=True),
    "until it ends": SamplingParams(seed=3, max_tokens=80),
    "samples": SamplingParams(seed=5, n=3, top_k=20, top_p=0.9, max_tokens=24),
    "history that grows": SamplingParams(
        seed=2, repetition_penalty=1.2, frequency_penalty=0.1, no_repeat_ngram=4, max_tokens=90, ignore_eos=True
    ),
    "reports": SamplingParams(seed=9, logprobs=3, kept=4, min_p=0.05, max_tokens=20),
    "a mask": SamplingParams(
        seed=4, max_tokens=16, bitmask=lambda tokens: torch.full((40,), 0x5555 if len(tokens) % 2 else -1).int()
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_text_is_that_of_the_usual_steps(model, name):
    usual, held = both(model, CASES[name])
    assert [each.token_ids for each in held] == [each.token_ids for each in usual]
    assert [each.text for each in held] == [each.text for each in usual]
    assert [each.kept for each in held] == [each.kept for each in usual]
    for mine, theirs in zip(held, usual, strict=True):
        for one, other in zip(mine.logprobs or [], theirs.logprobs or [], strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
    assert held.throughput.graph_steps > 5
    assert usual.throughput.graph_steps == 0
    assert usual.throughput.eager_steps == {}


def test_every_step_is_counted_with_its_reason(model):
    params = SamplingParams(seed=7, max_tokens=30, ignore_eos=True)
    throughput = generate(model, PROMPTS, params, graphs=True).throughput
    # The first token comes from the prefill.
    assert throughput.graph_steps + sum(throughput.eager_steps.values()) == 29
    assert throughput.eager_steps == {"there have been few steps of the kind": graph.STEPS_BEFORE}
    assert throughput.graphs == 1


def test_rows_that_come_and_go_are_drawn_as_usual(model):
    params = [SamplingParams(seed=n, max_tokens=6 + 7 * n, ignore_eos=True) for n in range(3)]
    usual, held = both(model, params, max_rows=2)
    assert [each.token_ids for each in held] == [each.token_ids for each in usual]
    assert held.throughput.graphs == 2  # of one row, and of two


def test_rows_of_several_calls_are_drawn_as_usual(model):
    params = [SamplingParams(seed=1, order=order, max_tokens=9, ignore_eos=True) for order in ("vllm", "hf", "vllm")]
    usual, held = both(model, params)
    assert [each.token_ids for each in held] == [each.token_ids for each in usual]
    assert held.throughput.graph_steps == 0


def test_explained_steps_are_drawn_as_usual(model):
    usual, held = both(model, SamplingParams(seed=1, max_tokens=8), explain=3)
    assert [each.steps for each in held] == [each.steps for each in usual]
    assert list(held.throughput.eager_steps) == ["explained steps compute more than a draw"]


def test_a_graph_serves_so_many_places_and_then_another_is_made(model, monkeypatch):
    monkeypatch.setattr(graph, "PLACES", 16)
    usual, held = both(model, SamplingParams(seed=7, max_tokens=50, ignore_eos=True))
    assert [each.token_ids for each in held] == [each.token_ids for each in usual]
    assert 3 <= held.throughput.graphs <= 5


def test_a_cache_that_grows_needs_another_graph(model, monkeypatch):
    monkeypatch.setattr("warpdraw.generation.loop.FIRST_TOKENS", 8)
    usual, held = both(model, SamplingParams(seed=7, max_tokens=60, ignore_eos=True))
    assert [each.token_ids for each in held] == [each.token_ids for each in usual]
    assert held.throughput.graphs > 1


def test_what_cannot_be_captured_is_drawn_as_usual_and_said(model, monkeypatch):
    def refused(step):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(graph, "directly", refused)
    usual, held = both(model, SamplingParams(seed=7, max_tokens=20, ignore_eos=True))
    assert [each.token_ids for each in held] == [each.token_ids for each in usual]
    reason = "the step cannot be captured: operation not permitted when stream is capturing"
    assert held.throughput.eager_steps[reason] == 17
    assert held.throughput.graph_steps == 0


def test_a_row_without_a_token_ends_and_the_others_go_on(model):
    def nothing_after(count):
        return lambda tokens: torch.zeros(40, dtype=torch.int32) if len(tokens) == count else None

    params = [SamplingParams(seed=1, max_tokens=12, ignore_eos=True, bitmask=nothing_after(6))]
    params += [SamplingParams(seed=n, max_tokens=12, ignore_eos=True) for n in (2, 3)]
    usual, held = both(model, params)
    assert [each.token_ids for each in held] == [each.token_ids for each in usual]
    assert [each.finish_reason for each in held] == ["error", "length", "length"]


def test_the_tensors_of_a_graph_stay_where_they_are(model, monkeypatch):
    """What a real graph has recorded is addresses: whatever a step reads must be the same memory each time."""
    seen = []
    real = graph.Transformer.decode

    def decode(self, tokens, cache, rows, positions, places):
        seen.append((tokens.data_ptr(), rows.data_ptr(), positions.data_ptr(), cache.keys(0).data_ptr(), places))
        return real(self, tokens, cache, rows, positions, places)

    monkeypatch.setattr(graph.Transformer, "decode", decode)
    throughput = generate(
        model, PROMPTS, SamplingParams(seed=7, max_tokens=30, ignore_eos=True), graphs=True
    ).throughput
    assert throughput.graphs == 1
    assert len(set(seen)) == 1
    assert len(seen) == throughput.graph_steps + 1  # once to load the kernels
