"""Sampler: a loop of one's own draws what generate draws, from tensors that stay in place as requests come and go."""

import copy
import dataclasses
import io
import re

import pytest
import torch
from conftest import BACKENDS, runnable
from small_model import EOS, small_model
from test_generate import requests
from torch._dynamo.testing import CompileCounter
from torch.utils._python_dispatch import TorchDispatchMode

import warpdraw
from warpdraw import Sampler, SamplingParams
from warpdraw.generation.params import ORDERS
from warpdraw.model.cache import KVCache

MODEL = small_model()
V = 130
PENALISED = SamplingParams(seed=5, repetition_penalty=1.5, frequency_penalty=0.3, no_repeat_ngram=2)
MIXED = [
    PENALISED,
    SamplingParams(seed=-(2**63), temperature=0.7, top_k=20, banned_ids=[3, 4]),
    SamplingParams(seed=2**63 - 1, top_p=0.9, logit_bias={7: 2.5, 8: -float("inf")}, allowed_ids=list(range(60))),
    SamplingParams(seed=8, min_p=0.02, dry_multiplier=0.8, dry_breakers=(), min_tokens=4, stop_ids=list(range(40))),
    SamplingParams(temperature=0.0, seed=1, presence_penalty=2.0),
]


def logits_at(request, position):
    """The logits of a request at a position: wherever it stands, they are the same."""
    generator = torch.Generator().manual_seed(1000 * request + position)
    return 2 * torch.randn(V, generator=generator)


def steps(sampler, held, count):
    """Draw some times; `held` says which request each slot has and which tokens its sequence, which grow."""
    for _ in range(count):
        logits = torch.full((len(sampler.requests), V), torch.nan)
        for slot, (request, ids) in held.items():
            logits[slot] = logits_at(request, len(ids))
        tokens = sampler(logits.to(sampler.position.device)).tolist()
        assert [token >= 0 for token in tokens] == [slot in held for slot in range(len(tokens))]
        for slot, (_, ids) in held.items():
            ids.append(tokens[slot])


def alone(request, count):
    ids = [request, 2, request]
    sampler = Sampler(V, 1, max_length=50)
    assert sampler.add(MIXED[request], ids) == 0
    steps(sampler, {0: (request, ids)}, count)
    return ids


def storage(sampler):
    return {name: (tensor.data_ptr(), tensor.shape) for name, tensor in sampler.named_buffers()}


def generated(sampler, prompts, params):
    """The tokens of each request by a loop that admits one a step: rows join and leave in the middle."""
    cache = KVCache(MODEL.config, len(sampler.requests), 64)
    drawn, waiting, running = [[] for _ in prompts], list(range(len(prompts))), {}
    while waiting or running:
        logits = torch.full((len(sampler.requests), MODEL.config.vocab_size), torch.nan)
        if running:
            last = torch.tensor([drawn[request][-1:] for request in running.values()])
            logits[list(running)] = MODEL.model(last, cache, torch.tensor(list(running)))[:, -1]
        if waiting and None in sampler.requests:
            request = waiting.pop(0)
            slot = sampler.add(params[request], prompts[request])
            cache.truncate(slot, 0)
            logits[slot] = MODEL.model(torch.tensor([prompts[request]]), cache, torch.tensor([slot]))[0, -1]
            running[slot] = request
        for slot, token in enumerate(sampler(logits).tolist()):
            if slot not in running:
                assert token == -1
                continue
            request = running[slot]
            drawn[request] += [token] if token >= 0 else []
            ends = {*params[request].stop_ids, EOS, -1}
            if token in ends or len(drawn[request]) == params[request].max_tokens:
                sampler.remove(slot)
                del running[slot]
    return drawn


@pytest.mark.parametrize("order", ORDERS)
def test_a_loop_draws_what_generate_draws(order):
    prompts, params = requests(24)
    params = [dataclasses.replace(each, order=order, bitmask=None) for each in params]
    expected = [completion.token_ids for completion in warpdraw.generate(MODEL, prompts, params)]
    assert len({tuple(ids) for ids in expected}) > 18
    for max_batch in (1, 4):
        sampler = Sampler(MODEL, max_batch, max_ids=300, order=order)
        assert generated(sampler, prompts, params) == expected


def test_each_sample_of_a_request_has_its_own_seed():
    params = SamplingParams(seed=11, n=3, max_tokens=8, ignore_eos=True)
    sampler = Sampler(MODEL, 3)
    for index in range(3):
        sampler.add(params, [1, 2], index=index)
    completions = warpdraw.generate(MODEL, [[1, 2]], params)
    assert sampler.seed.tolist() == [completion.seed for completion in completions]
    logits = MODEL.model(torch.tensor([[1, 2]]))[:, -1].expand(3, -1)
    assert sampler(logits).tolist() == [completion.token_ids[0] for completion in completions]


def test_a_seed_that_nobody_chose_is_reported_and_another_for_each():
    sampler = Sampler(V, 2)
    for _ in range(2):
        sampler.add(SamplingParams(), [])
    assert len(set(sampler.seed.tolist())) == 2


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.gpu if backend.device in ("cuda", "xpu") else ())
        for name, backend in BACKENDS.items()
    ],
)
def test_requests_may_come_go_and_move_on_every_backend(name):
    """One object for all of them, wherever it is."""
    device = BACKENDS[runnable(name)].device
    sampler = Sampler(V, 4, max_length=50).to("cpu" if device == "any" else device)
    with warpdraw.use(name):
        before = warpdraw.launches()
        come_go_and_move(sampler)
        ran = {key for key, count in warpdraw.launches().items() if count != before.get(key, 0)}
    path = name if name not in ("cpu", "cuda") else "avx|portable|cuda"
    assert all(re.match(f"({path}).*\\.sample|scalar.sample", key) for key in ran), ran


def come_go_and_move(sampler):
    before = storage(sampler)
    held = {}

    def add(request):
        ids = [request, 2, request]
        held[sampler.add(MIXED[request], torch.tensor(ids) if request % 2 else ids)] = request, ids

    def now_at(slots):
        moved = {new: held[old] for new, old in enumerate(slots)}
        held.clear()
        held.update(moved)

    add(0)
    steps(sampler, held, 2)
    for request in (1, 2, 3):
        add(request)
    steps(sampler, held, 2)
    sampler.remove(1)
    done = [held.pop(1)]
    steps(sampler, held, 2)
    now_at(sampler.compact())
    assert sampler.slots == sorted(held) == [0, 1, 2]
    add(4)
    steps(sampler, held, 1)
    sampler.reorder([3, 0, 2])
    done.append(held[1])
    now_at([3, 0, 2])
    steps(sampler, held, 3)
    assert storage(sampler) == before
    with warpdraw.use("scalar"):
        for request, ids in [*done, *held.values()]:
            assert ids == alone(request, len(ids) - 3)


def test_an_interrupted_request_goes_on():
    whole = alone(0, 8)
    sampler = Sampler(V, 2, max_length=50)
    sampler.add(MIXED[1], [])
    prompt, drawn = whole[:3], whole[3:7]
    slot = sampler.add(MIXED[0], prompt, drawn)
    held = {0: (1, []), slot: (0, [*prompt, *drawn])}
    steps(sampler, held, 4)
    assert held[slot][1] == whole


def test_positions_may_be_given():
    counted, given = (Sampler(V, 2) for _ in range(2))
    logits = torch.stack([logits_at(0, 0), logits_at(1, 0)])
    for sampler in (counted, given):
        for request in (0, 1):
            sampler.add(MIXED[request], [5])
    drawn = [counted(logits).tolist() for _ in range(4)]
    assert [given(logits, torch.full((2,), 1 + step)).tolist() for step in range(3)] == drawn[:3]
    assert given(logits).tolist() == drawn[3]
    assert given.position.tolist() == counted.position.tolist() == [5, 5]


def test_a_draw_may_be_of_the_first_slots_only():
    sampler = Sampler(V, 3)
    for request in range(3):
        sampler.add(MIXED[request], [1])
    assert sampler(logits_at(0, 1).expand(2, -1)).shape == (2,)
    assert sampler.position.tolist() == [2, 2, 1]


def test_reports_and_masks_go_to_sample():
    sampler = Sampler(V, 1)
    sampler.add(SamplingParams(seed=3), [1])
    words = torch.zeros(1, (V + 31) // 32, dtype=torch.int32)
    words[0, 1] = 1 << 5
    logits = logits_at(0, 0)[None]
    drawn = sampler.draw(logits, bitmask=words, logprob=True, top_n=2)
    assert (drawn.tokens.tolist(), drawn.valid.tolist(), drawn.logprob.tolist()) == ([37], [True], [0.0])
    assert drawn.top_ids.tolist() == [logits[0].topk(2).indices.tolist()]
    tokens = torch.zeros(1, dtype=torch.int32)
    assert sampler(logits, tokens=tokens) is tokens


def test_a_row_without_a_token_changes_nothing_but_its_position():
    sampler = Sampler(V, 2)
    for _ in range(2):
        sampler.add(PENALISED, [1])
    logits = logits_at(0, 1).repeat(2, 1)
    logits[0] = torch.nan
    drawn = sampler.draw(logits)
    assert drawn.valid.tolist() == [False, True]
    assert drawn.tokens[0] == -1
    assert sampler.position.tolist() == [2, 2]
    again = sampler(logits_at(0, 2).repeat(2, 1)).tolist()
    assert again[0] == warpdraw.sample(
        logits_at(0, 2)[None], seed=5, position=2, history=torch.tensor([[1]], dtype=torch.int32), prompt_length=1,
        repetition_penalty=1.5, frequency_penalty=0.3, no_repeat_ngram=2,
    ).tokens.item()  # fmt: skip


def test_a_sequence_that_is_too_long_to_be_read_becomes_invalid():
    sampler = Sampler(V, 2, max_length=4)
    sampler.add(PENALISED, [1, 2])
    sampler.add(SamplingParams(seed=2), [1] * 9)
    valid = [sampler.draw(logits_at(0, step).expand(2, -1)).valid.tolist() for step in range(6)]
    assert valid == [[True, True]] * 3 + [[False, True]] * 3


def test_a_draw_does_as_much_on_the_host_for_one_row_as_for_many():
    class Counter(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            calls.append(function)
            return function(*args, **(kwargs or {}))

    counts = []
    for rows in (1, 40):
        sampler, calls = Sampler(V, rows), []
        for slot in range(rows):
            sampler.add(MIXED[slot % len(MIXED)], [1])
        sampler(torch.zeros(rows, V))
        before = warpdraw.launches()
        with Counter():
            sampler(torch.zeros(rows, V))
        counts.append((len(calls), sum(warpdraw.launches().values()) - sum(before.values())))
    assert counts[0] == counts[1]
    assert counts[0][0] < 20
    assert counts[0][1] == 1


def test_a_bare_sampler_needs_no_lists_and_no_history():
    bare, full = Sampler(V, 1, max_length=0, max_ids=0), Sampler(V, 1)
    for sampler in (bare, full):
        sampler.add(SamplingParams(seed=4, top_k=30), [1])
    logits = logits_at(0, 0)[None]
    assert [bare(logits).item() for _ in range(5)] == [full(logits).item() for _ in range(5)]
    with pytest.raises(ValueError, match=r"params\.banned_ids: expected at most max_ids = 0 ids, got 1"):
        bare.add(SamplingParams(banned_ids=[1]), [1])
    with pytest.raises(ValueError, match="prompt: expected fewer than max_length = 0 tokens"):
        bare.add(PENALISED, [])


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch warns about its own modules
def test_a_compiled_module_draws_the_same(compiler):
    class Step(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.sampler = Sampler(V, 2)
            self.sampler.add(MIXED[3], [1, 2])

        def forward(self, logits):
            return self.sampler(logits * 2) + 1

    torch._dynamo.reset()
    eager, step = Step(), Step()
    compiled = torch.compile(step, backend=compiler, fullgraph=True)
    for number in range(6):
        if number == 3:
            for each in (eager, step):
                each.sampler.add(MIXED[0], [3])
        logits = torch.stack([logits_at(0, number), logits_at(1, number)])
        assert compiled(logits).tolist() == eager(logits).tolist()
    assert step.sampler.position.tolist() == [8, 4]


def test_requests_that_come_and_go_compile_nothing_anew():
    counter = CompileCounter()
    torch._dynamo.reset()
    sampler = Sampler(V, 2)
    compiled = torch.compile(sampler, backend=counter, fullgraph=True)
    for request in range(4):
        slot = sampler.add(MIXED[request], [1])
        compiled(torch.zeros(2, V))
        sampler.remove(slot)
    assert counter.frame_count == 1


def test_a_draw_of_any_number_of_slots_is_one_graph():
    counter = CompileCounter()
    torch._dynamo.reset()
    eager, sampler = Sampler(V, 6), Sampler(V, 6)
    compiled = torch.compile(sampler, backend=counter, fullgraph=True, dynamic=True)
    for each in (eager, sampler):
        for request in range(5):
            each.add(MIXED[request], [1])
    for count in (5, 3, 4, 2):
        logits = torch.stack([logits_at(slot, count) for slot in range(count)])
        assert compiled(logits).tolist() == eager(logits).tolist()
    assert counter.frame_count == 1
    assert sampler.position.tolist() == eager.position.tolist() == [5, 5, 4, 3, 2, 0]


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_sampler_draws_the_same(strict):
    """Also after it was in a file. Requests come as what the tensors of a sampler hold."""
    sampler = Sampler(V, 3, max_length=40)
    for request in (0, 3):
        sampler.add(MIXED[request], [request, 2])
    before = copy.deepcopy(sampler)
    program = torch.export.export(sampler, (torch.zeros(3, V),), strict=strict)
    for name, tensor in before.named_buffers():
        assert torch.equal(tensor.nan_to_num(-1), sampler.get_buffer(name).nan_to_num(-1))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    sampler, modules = before, [program.module(), torch.export.load(file).module()]
    for number in range(8):
        if number == 4:
            sampler.add(MIXED[1], [7])
            for module in modules:
                for name, tensor in sampler.named_buffers():
                    module.get_buffer(name).copy_(tensor)
        logits = torch.stack([logits_at(slot, number) for slot in range(3)])
        tokens = sampler(logits).tolist()
        assert [module(logits).tolist() for module in modules] == [tokens, tokens]
        assert (tokens[2] >= 0) == (number >= 4)


def test_an_exported_sampler_may_be_given_positions():
    sampler = Sampler(V, 2)
    sampler.add(MIXED[0], [1])
    example = torch.zeros(2, V), torch.zeros(2, dtype=torch.int64)
    module = torch.export.export(copy.deepcopy(sampler), example).module()
    for position in (4, 2):
        logits, positions = logits_at(0, position).repeat(2, 1), torch.tensor([position, 0])
        assert module(logits, positions).tolist() == sampler(logits, positions).tolist()


def test_a_sampler_follows_a_model_to_another_dtype_and_into_a_copy():
    model = torch.nn.Sequential(torch.nn.Linear(4, V), Sampler(V, 1))
    sampler = model[1]
    sampler.add(PENALISED, [1])
    before = {name: tensor.clone() for name, tensor in sampler.named_buffers()}
    model.to(torch.bfloat16)
    assert all(torch.equal(tensor, before[name]) for name, tensor in sampler.named_buffers())
    logits = logits_at(0, 0)[None]
    sampler(logits)
    other = copy.deepcopy(sampler)
    assert [other(logits).item() for _ in range(3)] == [sampler(logits).item() for _ in range(3)]
    assert not model.state_dict().keys() - {"0.weight", "0.bias"}
    assert repr(sampler) == "Sampler(max_batch=1, running=1)"


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("name", ["cuda", "triton"])
def test_a_graph_draws_the_steps_of_the_cpu_while_requests_come_and_go(name):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    runnable(name)
    device, host = (Sampler(V, 3, device=where) for where in ("cuda", "cpu"))
    logits = torch.zeros(3, V, device="cuda")
    for sampler in (device, host):
        sampler.add(MIXED[0], [1])
    graph = torch.cuda.CUDAGraph()
    with warpdraw.use(name):
        warm = [device(logits).tolist()]
        torch.cuda.set_sync_debug_mode("error")
        try:
            late = device(logits)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        warm.append(late.tolist())
        with torch.cuda.graph(graph):
            tokens = device(logits)
    assert warm == [host(torch.zeros(3, V)).tolist() for _ in range(2)]
    for number in range(8):
        for sampler in (device, host):
            if number in (2, 3):
                sampler.add(MIXED[number], [number])
            if number == 5:
                sampler.reorder([2, 0])
        row = torch.stack([logits_at(slot, number) for slot in range(3)])
        logits.copy_(row)
        graph.replay()
        assert tokens.tolist() == host(row).tolist()


def sampler_of_two():
    sampler = Sampler(9, 2, max_length=5, max_ids=2)
    sampler.add(SamplingParams(seed=1), [1])
    return sampler


def add(prompt=(1,), drawn=(), index=0, **fields):
    return lambda sampler: sampler.add(SamplingParams(**fields), list(prompt), list(drawn), index=index)


REFUSED = {
    "full": (add(), "params: expected at most max_batch = 2 requests at a time"),
    "prompt": (add([9]), "prompt: expected token ids in [0, 9), got 9"),
    "prompt below": (add([-1]), "prompt: expected token ids in [0, 9), got -1"),
    "drawn": (add(drawn=[10]), "drawn: expected token ids in [0, 9), got 10"),
    "long": (
        add([1] * 5, presence_penalty=1.0),
        "prompt: expected fewer than max_length = 5 tokens, because its parameters read them, got 5",
    ),
    "index": (add(index=2, n=2), "index: expected an integer in [0, params.n = 2), got 2"),
    "order": (add(order="hf"), "params.order: expected 'vllm', the order of this sampler, got 'hf'"),
    "bitmask": (
        add(bitmask=lambda ids: None),
        "params.bitmask: expected None, because a draw asks no function: give it the words itself",
    ),
    "list": (add(banned_ids=[1, 2, 3]), "params.banned_ids: expected at most max_ids = 2 ids, got 3"),
    "bias": (add(logit_bias={1: 1, 2: 2, 3: 3}), "params.logit_bias: expected at most max_ids = 2 ids, got 3"),
    "id": (add(allowed_ids=[9]), "params.allowed_ids: expected ids below 9, got 9"),
    "text": (
        add(banned_ids=["a"]),
        "params.banned_ids: expected token ids, because without a tokenizer nothing has a text, got 'a'",
    ),
    "breakers": (
        add(dry_multiplier=1.0, dry_breakers=["a"]),
        "params.dry_breakers: expected none, because without a tokenizer nothing has a text, got ('a',)",
    ),
    "slot": (
        lambda sampler: sampler.remove(1),
        "slot: expected slots that hold a request, which are [0], got 1",
    ),
    "slots": (
        lambda sampler: sampler.reorder([0, 2]),
        "slots: expected slots that hold a request, which are [0], got 2",
    ),
    "twice": (lambda sampler: sampler.reorder([0, 0]), "slots: expected different ones, got [0, 0]"),
    "logits": (
        lambda sampler: sampler(torch.zeros(2, 8)),
        "logits: expected shape [B, 9] with B <= max_batch = 2, got [2, 8]",
    ),
    "rows": (
        lambda sampler: sampler(torch.zeros(3, 9)),
        "logits: expected shape [B, 9] with B <= max_batch = 2, got [3, 9]",
    ),
    "positions": (
        lambda sampler: sampler(torch.zeros(2, 9), torch.zeros(3, dtype=torch.int64)),
        "position: expected shape [B] with B = 2, got [3]",
    ),
    "max_batch": (lambda _: Sampler(9, 0), "max_batch: expected an integer of at least 1, got 0"),
    "order of all": (lambda _: Sampler(9, 1, order="x"), f"order: expected one of {', '.join(ORDERS)}, got 'x'"),
    "eos": (lambda _: Sampler(9, 1, eos_ids=[9]), "eos_ids: expected token ids in [0, 9), got 9"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_refuses_is_named_and_changes_nothing(name):
    call, message = REFUSED[name]
    sampler = sampler_of_two()
    if name == "full":
        add()(sampler)
    before = {key: tensor.clone() for key, tensor in sampler.named_buffers()}
    with pytest.raises(ValueError, match=re.escape(message)):
        call(sampler)
    held = {key: tensor.nan_to_num(-1) for key, tensor in before.items()}
    assert all(torch.equal(tensor.nan_to_num(-1), held[key]) for key, tensor in sampler.named_buffers())
    assert sampler.slots == ([0, 1] if name == "full" else [0])


def test_what_has_the_wrong_type_is_named():
    sampler = sampler_of_two()
    for call, message in [
        (lambda: sampler.add(None, [1]), "params: expected a SamplingParams, got None"),
        (lambda: sampler.add(SamplingParams(), "ab"), "prompt: expected a list or a tensor of one dimension"),
        (lambda: sampler.add(SamplingParams(), torch.zeros(2)), r"prompt: expected token ids in \[0, 9\), got 0.0"),
        (lambda: sampler.remove(True), "slot: expected slots that hold a request, got True"),
        (lambda: sampler(torch.zeros(2, 9), top_kk=3), "top_kk"),
        (lambda: sampler(torch.zeros(2, 9), top_k=3), "top_k"),
        (lambda: Sampler("9", 1), "vocabulary: expected an integer of at least 1, got '9'"),
    ]:
        with pytest.raises(TypeError, match=message):
            call()
