"""Generation: the same text in any batch, a seed for each sample, every way to stop, events that sum to the text."""

import dataclasses
import math
import random
from importlib import import_module

import pytest
import torch
from small_model import EOS, small_model

import warpdraw
from warpdraw.generation.loop import generate, stream
from warpdraw.generation.params import ORDERS, SamplingParams, sample_seed

MODEL = small_model()
TOKENIZER = MODEL.tokenizer


def never_ends(**fields):
    return SamplingParams(**{"ignore_eos": True, "max_tokens": 12, "seed": 3, **fields})


def even_after_a_line(ids):
    """A bitmask that depends on the tokens: all after an even one, else only even ids."""
    return None if not ids or ids[-1] % 2 == 0 else torch.full([9], 0x55555555, dtype=torch.int32)


def features(chance):
    """Some of the features, as a request in a mixed batch may have them."""
    every = {
        "dynatemp_range": chance.choice([0.3, 0.9]),
        "dynatemp_exponent": 0.5,
        "top_n_sigma": 2.5,
        "typical_p": 0.8,
        "epsilon": 0.01,
        "eta": 0.02,
        "xtc_probability": 0.5,
        "xtc_threshold": 0.05,
        "repetition_penalty": chance.choice([0.8, 1.3]),
        "frequency_penalty": -0.5,
        "presence_penalty": 0.7,
        "dry_multiplier": 1.5,
        "dry_base": 3.0,
        "dry_allowed_length": 1,
        "dry_breakers": ["a"],
        "no_repeat_ngram": chance.choice([1, 2]),
        "logit_bias": {chance.randrange(EOS): 3.0, "e": -2.0},
        "allowed_ids": [*range(chance.randrange(60, 200)), EOS],
        "banned_ids": [chance.randrange(EOS), "t"],
        "bitmask": even_after_a_line,
        "min_tokens": 3,
        "logprobs_of": "filtered",
        "kept": chance.choice([0, 5, 257]),
    }
    return {name: every[name] for name in chance.sample(sorted(every), chance.choice([0, 1, 3, 8]))}


def requests(count):
    """Prompts of unequal length, each with parameters of its own."""
    chance = random.Random(5)
    orders = ["vllm", "hf", "flashinfer-joint", "llama.cpp"]
    prompts, params = [], []
    for number in range(count):
        prompts.append([chance.randrange(EOS) for _ in range(chance.choice([1, 2, 7, 16, 17, 33, 70]))])
        params.append(
            SamplingParams(
                temperature=chance.choice([0.0, 0.7, 1.0, 1.3]),
                top_k=chance.choice([0, 0, 1, 20]),
                top_p=chance.choice([1.0, 0.9]),
                min_p=chance.choice([0.0, 0.02]),
                order=orders[number % 4],
                seed=chance.randrange(-(2**63), 2**63),
                max_tokens=chance.choice([3, 10, 25]),
                logprobs=chance.choice([None, 0, 2]),
                **features(chance),
            )
        )
    return prompts, params


def test_a_request_gives_the_same_text_alone_and_in_any_batch():
    prompts, params = requests(24)
    alone = [generate(MODEL, [prompt], each)[0] for prompt, each in zip(prompts, params, strict=True)]
    assert len({tuple(completion.token_ids) for completion in alone}) > 18
    for count, max_rows in [(7, 64), (24, 64), (24, 5), (24, 1)]:
        order = random.Random(count).sample(range(24), count)
        together = generate(MODEL, [prompts[i] for i in order], [params[i] for i in order], max_rows=max_rows)
        for place, i in enumerate(order):
            assert together[place] == dataclasses.replace(alone[i], index=place)


def test_the_text_is_the_same_on_every_run_and_another_for_another_seed():
    texts = [generate(MODEL, "The sky is", never_ends(seed=seed))[0].text for seed in (3, 3, 4)]
    assert texts[0] == texts[1] != texts[2]


def test_tokens_are_drawn_with_the_sample_op_at_their_index_in_the_sequence():
    prompt = TOKENIZER.encode("The sky is")
    completion = generate(MODEL, [prompt], never_ends(temperature=0.8, top_k=40, top_p=0.95))[0]
    sequence = prompt + completion.token_ids
    with torch.no_grad():
        logits = MODEL.model(torch.tensor([sequence]))[0]
    for position in range(len(prompt), len(sequence)):
        drawn = warpdraw.sample(logits[position - 1 : position], 0.8, 40, 0.95, seed=3, position=position, order="vllm")
        assert drawn.tokens.item() == sequence[position]


OP = {spec.name for spec in warpdraw.sample.contract.inputs}
IDS = {"e": TOKENIZER.encode("e")[0], "t": TOKENIZER.encode("t")[0]}


def arguments_at(params, prompt, drawn):
    """What the parameters of one request are for one call of the op, put together anew for every step."""
    given = {name: value for name, value in vars(params).items() if name in OP and isinstance(value, int | float)}
    given |= {"order": params.order, "position": len(prompt) + len(drawn), "prompt_length": len(prompt)}

    def ids(tokens):
        return torch.tensor([[IDS.get(token, token) for token in tokens]], dtype=torch.int32)

    given["history"] = ids([*prompt, *drawn])
    given["stop_ids"] = ids([EOS, *params.stop_ids])
    if params.dry_multiplier:
        given["dry_breakers"] = ids(TOKENIZER.encode("".join(params.dry_breakers)))
    if params.allowed_ids:
        given["allowed_ids"] = ids(params.allowed_ids)
    if params.banned_ids:
        given["banned_ids"] = ids(params.banned_ids)
    if params.logit_bias:
        given["bias_ids"] = ids([token for token, _ in params.logit_bias])
        given["bias"] = torch.tensor([[value for _, value in params.logit_bias]])
    if params.bitmask and (mask := params.bitmask(drawn)) is not None:
        given["bitmask"] = mask[None]
    return given


def test_every_feature_reaches_the_op_at_every_step():
    prompts, params = requests(40)
    used = set()
    for prompt, each in zip(prompts, params, strict=True):
        each = dataclasses.replace(each, logprobs=2, kept=257)
        completion = generate(MODEL, [prompt], each)[0]
        sequence = prompt + completion.token_ids
        with torch.no_grad():
            logits = MODEL.model(torch.tensor([sequence]))[0]
        for step, token in enumerate(completion.token_ids):
            drawn = completion.token_ids[:step]
            result = warpdraw.sample(
                logits[len(prompt) + step - 1][None],
                **arguments_at(each, prompt, drawn),
                rank=True,
                kept_count=True,
                top_n=2,
                max_kept=257,
                top_of=each.logprobs_of,
            )
            assert result.tokens.item() == token
            assert result.kept_count.item() == completion.kept[step].count
            assert result.kept_ids[0, : result.kept_count].tolist() == list(completion.kept[step].ids)
            assert result.rank.item() == completion.logprobs[step].rank
            top = completion.logprobs[step].top
            assert result.top_ids[0, : len(top)].tolist() == [i for i, _ in top]
        default = SamplingParams()
        used |= {name for name, value in vars(each).items() if value != getattr(default, name)}
    # All of them occurred but those that only say when to stop, and those that are no argument of it.
    assert used >= {field.name for field in dataclasses.fields(SamplingParams)} - {
        "guide",
        "ban_phrases",
        "ban_case",
        "prefix",
        "stop_on_repeat",
        "mirostat",
        "mirostat_tau",
        "mirostat_eta",
        "guidance",
        "negative_prompt",
        "n",
        "stop",
        "stop_ids",
        "ignore_eos",
    }


def test_a_step_is_one_call_for_each_order():
    prompts, params = requests(24)
    for orders in (1, 2, 4):
        chosen = [
            dataclasses.replace(each, order=ORDERS[number % orders], logprobs_of="raw", max_tokens=5, min_tokens=5)
            for number, each in enumerate(params)
        ]
        before = sum(warpdraw.launches().values())
        completions = generate(MODEL, prompts, chosen)
        assert sum(warpdraw.launches().values()) - before == 5 * orders
        assert {each.completion_tokens for each in completions} == {5}


def test_a_history_is_kept_only_where_something_reads_it(monkeypatch):
    made = []
    monkeypatch.setattr(
        import_module("warpdraw.generation.draw"),
        "TokenHistory",
        lambda prompts, *given, **options: made.append(prompts) or warpdraw.TokenHistory(prompts, *given, **options),
    )
    plain = never_ends(n=2, logit_bias={3: 1.0}, xtc_probability=0.5)
    generate(MODEL, ["a", "b"], plain)
    assert made == []
    # It is made when the first row comes that reads one; the rows that read none have no prompt in it.
    reading = never_ends(n=3, max_tokens=20, presence_penalty=1.0)
    longer = dataclasses.replace(plain, max_tokens=40)
    together = generate(MODEL, ["a", "b", [5, 6]], [plain, longer, reading], max_rows=5)
    assert made == [[[5, 6]], [[]] * 4]
    assert together[2:4] == [dataclasses.replace(each, index=1) for each in generate(MODEL, "b", longer)]
    assert together[4:] == [dataclasses.replace(each, index=2) for each in generate(MODEL, [[5, 6]], reading)]


class Padded(torch.nn.Module):
    """The model with a head of 60 tokens more, which it likes best."""

    def __init__(self, model):
        super().__init__()
        self.model, self.embedding = model, model.embedding

    def forward(self, tokens, cache, rows, *, last=False):
        logits = self.model(tokens, cache, rows, last=last)
        return torch.nn.functional.pad(logits, (0, 60), value=99.0)


def test_the_padding_of_a_head_is_never_drawn():
    config = dataclasses.replace(MODEL.config, vocab_size=EOS + 61)
    padded = dataclasses.replace(MODEL, model=Padded(MODEL.model), config=config)
    params = never_ends(max_tokens=40, n=4, logprobs=EOS + 61, kept=EOS + 61, bitmask=lambda ids: None)
    for each, same in zip(
        generate(padded, "a", params), generate(MODEL, "a", never_ends(max_tokens=40, n=4)), strict=True
    ):
        assert each.token_ids == same.token_ids
        assert {kept.count for kept in each.kept} == {EOS + 1}
        assert {kept.ids for kept in each.kept} == {tuple(range(EOS + 1))}
        # What the model says of its padding is still reported.
        assert {len(entry.top) for entry in each.logprobs} == {EOS + 61}
    for words in (9, 10):
        mask = torch.zeros(words, dtype=torch.int32)
        mask[0] = 1 << 7
        completion = generate(padded, "a", never_ends(bitmask=lambda ids, mask=mask: mask))[0]
        assert completion.token_ids == [7] * 12
    with pytest.raises(ValueError, match=r"params\[0\].bitmask: expected 9 to 10 words, got 8"):
        generate(padded, "a", never_ends(bitmask=lambda ids: torch.zeros(8, dtype=torch.int32)))
    with pytest.raises(ValueError, match=r"params\[0\].allowed_ids: expected ids below 257, got 257"):
        generate(padded, "a", never_ends(allowed_ids=[257]))


def test_greedy_takes_the_largest_logit():
    prompt = TOKENIZER.encode("one")
    for params in (never_ends(temperature=0.0), never_ends(top_k=1)):
        sequence = prompt + generate(MODEL, [prompt], params)[0].token_ids
        with torch.no_grad():
            largest = MODEL.model(torch.tensor([sequence]))[0].argmax(-1).tolist()
        assert sequence[len(prompt) :] == largest[len(prompt) - 1 : -1]


def test_samples_of_a_prompt_are_those_of_their_own_seeds():
    params = never_ends(n=4, seed=-9)
    together = generate(MODEL, ["one", "two three"], params)
    assert [(each.index, each.sample) for each in together] == [(i, j) for i in range(2) for j in range(4)]
    assert len({each.text for each in together}) == 8
    for each in together:
        assert each.seed == sample_seed(-9, each.sample)
        again = generate(MODEL, each.prompt, never_ends(seed=each.seed))[0]
        assert (again.text, again.token_ids) == (each.text, each.token_ids)


def test_samples_share_one_prefill(monkeypatch):
    calls = []
    forward = type(MODEL.model).forward
    monkeypatch.setattr(
        type(MODEL.model),
        "forward",
        lambda self, *args, **options: calls.append(args[0].shape) or forward(self, *args, **options),
    )
    generate(MODEL, "0123456789" * 3, never_ends(n=3, max_tokens=4))
    assert [tuple(shape) for shape in calls] == [(1, 30), (3, 1), (3, 1), (3, 1)]


def test_more_samples_than_rows_are_drawn_in_parts():
    whole = generate(MODEL, "a", never_ends(n=7))
    assert generate(MODEL, ["b", "a"], never_ends(n=7), max_rows=3)[7:] == [
        dataclasses.replace(each, index=1) for each in whole
    ]


def test_a_long_prompt_is_read_in_parts(monkeypatch):
    whole = generate(MODEL, "0123456789" * 9, never_ends())[0]
    monkeypatch.setattr(import_module("warpdraw.generation.engine"), "PREFILL_TOKENS", 7)
    parts = generate(MODEL, "0123456789" * 9, never_ends())[0]
    assert (parts.prompt_tokens, parts.token_ids) == (90, whole.token_ids)


def test_finished_rows_leave_the_batch_and_waiting_ones_enter(monkeypatch):
    sizes = []
    forward = type(MODEL.model).forward
    monkeypatch.setattr(
        type(MODEL.model),
        "forward",
        lambda self, *args, **options: sizes.append(len(args[0])) or forward(self, *args, **options),
    )
    lengths = [2, 5, 3, 4]
    completions = generate(MODEL, ["a", "b", "c", "d"], [never_ends(max_tokens=n) for n in lengths], max_rows=2)
    assert [each.completion_tokens for each in completions] == lengths
    assert max(sizes) <= 2


def test_without_a_seed_the_result_says_which_one_was_drawn():
    one, other = (generate(MODEL, "x", never_ends(seed=None))[0] for _ in range(2))
    assert one.seed != other.seed
    assert generate(MODEL, "x", never_ends(seed=one.seed))[0] == one


def test_end_of_text_stops_and_ignoring_it_does_not():
    params = SamplingParams(max_tokens=200, n=16, seed=1, temperature=1.5)
    ended = [each for each in generate(MODEL, "a", params) if each.finish_reason == "stop"]
    assert ended
    for each in ended:
        assert (each.stop, each.token_ids[-1]) == (EOS, EOS)
        assert EOS not in each.token_ids[:-1]
        assert each.text == continuation("a", each.token_ids)
        onward = generate(MODEL, "a", dataclasses.replace(params, n=1, seed=each.seed, ignore_eos=True))[0]
        assert onward.token_ids[: len(each.token_ids)] == each.token_ids
        assert onward.finish_reason == "length"


def continuation(prompt, ids):
    before = TOKENIZER.encode(prompt)
    return TOKENIZER.decode(before + ids)[len(TOKENIZER.decode(before)) :]


def test_a_stop_id_ends_the_text_without_its_own():
    whole = generate(MODEL, "a", never_ends())[0].token_ids
    stopped = generate(MODEL, "a", never_ends(stop_ids=(whole[5],)))[0]
    end = whole.index(whole[5])
    assert (stopped.finish_reason, stopped.stop) == ("stop", whole[5])
    assert stopped.token_ids == whole[: end + 1]
    assert stopped.text == continuation("a", whole[:end])


def test_a_stop_string_ends_the_text_before_it():
    whole = generate(MODEL, "a", never_ends(max_tokens=40))[0]
    string = whole.text[6:8]
    stopped = generate(MODEL, "a", never_ends(max_tokens=40, stop=(string, "never this")))[0]
    assert (stopped.finish_reason, stopped.stop) == ("stop", string)
    assert stopped.text == whole.text[: whole.text.index(string)]
    assert stopped.token_ids == whole.token_ids[: stopped.completion_tokens]


@pytest.mark.parametrize("least", [1, 4, 9])
def test_no_end_is_drawn_before_min_tokens(least):
    ends = tuple(token for token in range(EOS) if token != 65)  # all but one, with the end-of-text token
    for each in generate(MODEL, "a", SamplingParams(max_tokens=20, min_tokens=least, n=8, seed=2, stop_ids=ends)):
        assert each.token_ids[:-1] == [65] * (each.completion_tokens - 1)
        assert each.completion_tokens > least
        assert each.finish_reason == "stop"


def test_a_stop_string_does_not_count_before_min_tokens():
    whole = generate(MODEL, "a", never_ends())[0]
    letters = tuple(set(whole.text))
    for least in (0, 1, 5):
        stopped = generate(MODEL, "a", never_ends(stop=letters, min_tokens=least))[0]
        assert stopped.finish_reason == "stop"
        assert stopped.completion_tokens >= max(1, least)
        assert whole.text.startswith(stopped.text)


def test_a_full_context_ends_the_text():
    model = small_model(context=20)
    completion = generate(model, [[1] * 15], never_ends())[0]
    assert (completion.finish_reason, completion.completion_tokens) == ("context", 5)
    assert generate(model, [[1] * 15], never_ends(max_tokens=5))[0].finish_reason == "length"
    assert generate(model, [[1] * 19], never_ends())[0].completion_tokens == 1


def test_logprobs_are_those_of_the_two_distributions():
    prompt = TOKENIZER.encode("The sky is")
    params = never_ends(temperature=0.7, top_k=5, logprobs=3)
    completion = generate(MODEL, [prompt], params)[0]
    sequence = prompt + completion.token_ids
    with torch.no_grad():
        logits = MODEL.model(torch.tensor([sequence]))[0].double()
    for step, entry in enumerate(completion.logprobs):
        row = logits[len(prompt) - 1 + step]
        raw, filtered = row.log_softmax(-1), (row / 0.7).topk(5)
        place = filtered.indices.tolist().index(entry.token)
        assert entry.token == completion.token_ids[step]
        assert entry.rank == 1 + sum(value > row[entry.token].item() for value in row.tolist())
        assert entry.raw_logprob == pytest.approx(raw[entry.token].item(), abs=1e-4)
        assert entry.logprob == pytest.approx(filtered.values.log_softmax(-1)[place].item(), abs=1e-4)
        assert [token for token, _ in entry.top] == raw.topk(3).indices.tolist()
        assert [value for _, value in entry.top] == pytest.approx(raw.topk(3).values.tolist(), abs=1e-4)


def test_logprobs_are_given_as_asked_row_by_row():
    counts = [None, 0, 2, EOS + 1]
    completions = generate(MODEL, ["a"] * 4, [never_ends(logprobs=count) for count in counts])
    assert completions[0].logprobs is None
    assert [len(each.logprobs[0].top) for each in completions[1:]] == [0, 2, EOS + 1]
    assert len({each.text for each in completions}) == 1


def test_filtered_logprobs_are_of_the_kept_tokens_only():
    params = never_ends(temperature=0.7, top_k=3, banned_ids=["a"], logprobs=5, logprobs_of="filtered", kept=2)
    both = [params, dataclasses.replace(params, logprobs_of="raw", logprobs=1, kept=None)]
    filtered, raw = generate(MODEL, ["a", "a"], both)
    assert filtered.token_ids == raw.token_ids
    assert raw.kept is None
    for entry, kept in zip(filtered.logprobs, filtered.kept, strict=True):
        ids = [token for token, _ in entry.top]
        assert kept.count == len(ids) == 3
        assert kept.ids == tuple(sorted(ids))[:2]
        assert sum(math.exp(value) for _, value in entry.top) == pytest.approx(1, abs=1e-5)
        assert dict(entry.top)[entry.token] == entry.logprob


def test_kept_is_given_as_asked_row_by_row():
    counts = [None, 0, 2, EOS + 1]
    completions = generate(MODEL, ["a"] * 4, [never_ends(kept=count, top_k=9) for count in counts])
    assert completions[0].kept is None
    assert [(each.kept[0].count, len(each.kept[0].ids)) for each in completions[1:]] == [
        (9, 0),
        (9, 2),
        (9, 9),
    ]
    events = list(stream(MODEL, "a", never_ends(kept=3)))
    assert [event.kept for event in events] == events[-1].completion.kept


def test_events_sum_to_the_completions():
    prompts, params = requests(12)
    params = [dataclasses.replace(each, n=2, stop=("\ufffd\ufffd", "a")) for each in params]
    events = stream(MODEL, prompts, params, max_rows=6)
    texts, ids, last = {}, {}, {}
    for event in events:
        key = event.index, event.sample
        assert key not in last
        texts[key] = texts.get(key, "") + event.text
        ids[key] = ids.get(key, []) + list(event.token_ids)
        if event.finish_reason is not None:
            last[key] = event.completion
    assert len(last) == 24
    for key, completion in last.items():
        assert (completion.text, completion.token_ids) == (texts[key], ids[key])
    whole = generate(MODEL, prompts, params)
    assert {(each.index, each.sample): each for each in whole} == last
    assert events.throughput.completion_tokens == sum(len(each) for each in ids.values())


def test_throughput_counts_tokens_and_seconds():
    completions = generate(MODEL, ["abc", "de"], never_ends(n=2, max_tokens=5))
    speed = completions.throughput
    assert (speed.prompt_tokens, speed.completion_tokens) == (5, 20)
    assert speed.prefill_seconds > 0
    assert speed.tokens_per_second == pytest.approx(20 / speed.decode_seconds)
    assert [each.prompt_tokens for each in completions] == [3, 3, 2, 2]


class Broken(torch.nn.Module):
    """The model, but the logits are NaN where the last token is 1."""

    def __init__(self, model):
        super().__init__()
        self.model, self.embedding = model, model.embedding

    def forward(self, tokens, cache, rows, *, last=False):
        logits = self.model(tokens, cache, rows)
        logits[tokens == 1] = math.nan
        return logits[:, -1:] if last else logits

    def extend(self, tokens, cache, slots, positions, outputs):
        logits = self.model.extend(tokens, cache, slots, positions, outputs)
        logits[tokens[outputs] == 1] = math.nan
        return logits


def test_a_row_without_candidates_ends_in_an_error_and_the_others_go_on():
    broken = dataclasses.replace(MODEL, model=Broken(MODEL.model))
    params = never_ends(stop_ids=(1,), logprobs=1)
    good, bad = generate(broken, [[5, 6], [5, 1]], params, explain=2)
    assert (bad.finish_reason, bad.token_ids, bad.text) == ("error", [], "")
    assert bad.error == "no token can be drawn at position 2: its logits are all NaN or -inf"
    assert good == generate(MODEL, [[5, 6]], params, explain=2)[0]


def test_parameters_that_leave_nothing_end_in_an_error():
    nothing = torch.zeros(9, dtype=torch.int32)
    params = [never_ends(allowed_ids=[5], banned_ids=[5]), never_ends(bitmask=lambda ids: nothing if ids else None)]
    one, other = generate(MODEL, [[5, 6], [5, 6]], params, explain=2)
    assert one.error == "no token can be drawn at position 2: its parameters leave no token that has a logit"
    assert other.error == "no token can be drawn at position 3: its parameters leave no token that has a logit"
    assert (one.finish_reason, one.token_ids, len(other.token_ids)) == ("error", [], 1)


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (torch.zeros(9), TypeError, "expected None or an int32 tensor of one dimension, got torch.float32 [9]"),
        (
            torch.zeros(1, 9, dtype=torch.int32),
            TypeError,
            "expected None or an int32 tensor of one dimension, got torch.int32 [1, 9]",
        ),
        ([1] * 9, TypeError, "expected None or an int32 tensor of one dimension, got [1, 1, 1, 1, 1, 1, 1, 1, 1]"),
        (torch.zeros(8, dtype=torch.int32), ValueError, "expected 9 words of 32 bits, got 8"),
        (torch.zeros(10, dtype=torch.int32), ValueError, "expected 9 words of 32 bits, got 10"),
    ],
)
def test_a_bad_bitmask_is_refused_by_name(mask, error, message):
    with pytest.raises(error) as caught:
        generate(MODEL, ["a", "b"], [never_ends(), never_ends(bitmask=lambda ids: mask)])
    assert str(caught.value) == f"params[1].bitmask: {message}"


def test_explained_steps_describe_the_draw():
    completion = generate(MODEL, "a", never_ends(top_k=3, temperature=0.5), explain=6)[0]
    assert len(completion.steps) == completion.completion_tokens
    for number, (step, token) in enumerate(zip(completion.steps, completion.token_ids, strict=True)):
        assert (step.position, step.kept) == (1 + number, 3)
        drawn = [each for each in step.candidates if each.drawn]
        kept = [each for each in step.candidates if each.kept]
        assert [each.id for each in drawn] == [token]
        assert drawn[0] in kept
        assert sum(each.filtered_probability for each in kept) == pytest.approx(1)
        assert all(each.filtered_probability == 0 for each in step.candidates if not each.kept)
        assert sum(each.probability for each in step.candidates) + step.rest == pytest.approx(1, abs=1e-5)
        assert [each.probability for each in step.candidates] == sorted(
            (each.probability for each in step.candidates), reverse=True
        )


def test_explained_steps_agree_with_the_draw_for_every_feature():
    prompts, params = requests(40)
    for each in generate(MODEL, prompts, [dataclasses.replace(each, kept=257) for each in params], explain=257):
        assert len(each.steps) == len(each.kept) == each.completion_tokens
        for step, kept in zip(each.steps, each.kept, strict=True):
            assert step.kept == kept.count
            assert kept.ids == tuple(sorted(candidate.id for candidate in step.candidates if candidate.kept))
            assert sum(candidate.filtered_probability for candidate in step.candidates) == pytest.approx(1, abs=1e-5)


def test_explaining_does_not_change_the_text():
    assert generate(MODEL, "a", never_ends(), explain=3)[0].text == generate(MODEL, "a", never_ends())[0].text


def test_no_prompts_give_no_completions():
    assert generate(MODEL, []) == []


@pytest.mark.parametrize(("name", "value"), [("max_rows", 0), ("max_rows", 1.5), ("explain", -1), ("explain", None)])
def test_bad_counts_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name}: expected an integer of at least"):
        generate(MODEL, "a", **{name: value})


@pytest.mark.parametrize(
    ("prompts", "params", "error", "message"),
    [
        ("", None, ValueError, "prompts[0]: expected at least one token, got none"),
        (["a", ""], None, ValueError, "prompts[1]: expected at least one token"),
        ([[]], None, ValueError, "prompts[0]: expected at least one token"),
        ([3], None, TypeError, "prompts[0]: expected text or a list of token ids, got 3"),
        ([["a"]], None, TypeError, "prompts[0]: expected text or a list of token ids"),
        ([[257]], None, ValueError, "prompts[0]: expected token ids in [0, 257), got 257"),
        ([[-1]], None, ValueError, "prompts[0]: expected token ids in [0, 257), got -1"),
        (["\ud800"], None, ValueError, "prompts[0]: expected text without lone surrogates"),
        ("a" * 256, None, ValueError, "prompts[0]: expected fewer tokens than the context of 256, got 256"),
        (["a"], [SamplingParams()] * 2, ValueError, "params: expected one for each of 1 prompts, got 2"),
        (["a"], [None], TypeError, "params[0]: expected a SamplingParams, got None"),
        ("a", SamplingParams(stop_ids=(257,)), ValueError, "params[0].stop_ids: expected ids below 257, got 257"),
        ("a", SamplingParams(banned_ids=(257,)), ValueError, "params[0].banned_ids: expected ids below 257, got 257"),
        ("a", SamplingParams(logit_bias={300: 1}), ValueError, "params[0].logit_bias: expected ids below 257, got 300"),
        (
            "a",
            SamplingParams(allowed_ids=["a", "bc"]),
            ValueError,
            "params[0].allowed_ids: expected the text of one token, got 'bc', which is 'b', 'c'",
        ),
        (
            "a",
            SamplingParams(banned_ids=["\ud800"]),
            ValueError,
            "params[0].banned_ids: expected the text of one token, got '\\ud800'",
        ),
        (
            "a",
            SamplingParams(dry_multiplier=1, dry_breakers=["bc"]),
            ValueError,
            "params[0].dry_breakers: expected strings that some token's text contains, got 'bc'",
        ),
        ("a", SamplingParams(logprobs=258), ValueError, "params[0].logprobs: expected at most 257, got 258"),
        ("a", SamplingParams(kept=258), ValueError, "params[0].kept: expected at most 257, got 258"),
    ],
)
def test_bad_requests_are_refused_by_name(prompts, params, error, message):
    with pytest.raises(error) as caught:
        generate(MODEL, prompts, params)
    assert str(caught.value).startswith(message)
