"""TokenHistory keeps sequences in place, copies and takes back what it should, and names what it refuses."""

import random

import pytest
import torch

import warpdraw
from warpdraw import TokenHistory
from warpdraw.history import FIRST_TOKENS


def sequences(history):
    lengths = history.lengths.tolist()
    return [row[:length] for row, length in zip(history.tokens.tolist(), lengths, strict=True)]


def test_prompts_of_any_length_are_kept_as_int32():
    prompts = [[1, 2, 3], [], [4]]
    history = TokenHistory(prompts, vocab_size=5)
    assert sequences(history) == prompts
    assert history.lengths.tolist() == history.prompt_lengths.tolist() == [3, 0, 1]
    assert {each.dtype for each in history.inputs.values()} == {torch.int32}
    assert {each.device.type for each in history.inputs.values()} == {"cpu"}
    assert list(history.inputs) == ["history", "history_length", "prompt_length"]
    assert history.capacity == 3 + FIRST_TOKENS


@pytest.mark.parametrize("make", [list, torch.tensor, lambda ids: torch.tensor(ids, dtype=torch.int32)])
def test_append_adds_to_every_row_but_those_with_minus_one(make):
    history = TokenHistory([[1], [2, 3]], vocab_size=9, capacity=4)
    history.append(make([4, 5]))
    history.append(make([-1, 6]))
    history.append(make([7, -1]))
    history.append(make([8, -1]))
    assert sequences(history) == [[1, 4, 7, 8], [2, 3, 5, 6]]
    assert history.prompt_lengths.tolist() == [1, 2]


def test_append_is_in_place_while_there_is_room():
    history = TokenHistory([[1], [2]], vocab_size=9)
    before = history.inputs
    for token in range(FIRST_TOKENS):
        history.append([token % 9, -1])
    after = history.inputs
    assert all(before[name].data_ptr() == after[name].data_ptr() for name in before)
    assert before["history_length"].tolist() == [1 + FIRST_TOKENS, 1]


def test_a_history_without_a_capacity_grows_by_doubling():
    chance = random.Random(1)
    history, expected, room = TokenHistory([[1], []], vocab_size=9), [[1], []], set()
    for _ in range(1000):
        step = [chance.randrange(-1, 9), chance.randrange(-1, 9)]
        history.append(torch.tensor(step))
        room.add(history.capacity)
        for row, token in zip(expected, step, strict=True):
            row.extend([token] if token >= 0 else [])
    assert sequences(history) == expected
    assert sorted(room) == [(1 + FIRST_TOKENS) << doublings for doublings in range(len(room))]


def test_rows_that_stand_still_cost_no_room():
    history = TokenHistory([[1]], vocab_size=9)
    for _ in range(10 * FIRST_TOKENS):
        history.append(torch.tensor([-1]))
    assert (history.capacity, sequences(history)) == (1 + FIRST_TOKENS, [[1]])


def test_a_capacity_is_kept_to():
    history = TokenHistory([[1, 2], [3]], vocab_size=9, capacity=3)
    history.append([4, 5])
    history.append(torch.tensor([-1, 6]))
    with pytest.raises(ValueError, match=r"^tokens: sequence 1 has capacity = 3 tokens already, expected -1$"):
        history.append([-1, 7])
    with pytest.raises(ValueError, match="sequence 0"):
        history.append(torch.tensor([8, -1]))
    history.append([-1, -1])
    assert sequences(history) == [[1, 2, 4], [3, 5, 6]]
    assert history.capacity == 3


def test_appending_a_device_tensor_reads_nothing_back():
    # A meta tensor has no values: reading one raises.
    history = TokenHistory([[1, 2], [3]], vocab_size=9, device="meta")
    for _ in range(FIRST_TOKENS):
        history.append(torch.empty(2, dtype=torch.int64, device="meta"))
    assert history.tokens.shape == (2, 2 + FIRST_TOKENS)


def test_forks_go_their_own_ways():
    history = TokenHistory([[1], [2, 3]], vocab_size=9)
    history.append([4, 5])
    forked = history.fork([1, 0, 1])
    forked.append([6, 7, 8])
    history.append([0, -1])
    assert sequences(forked) == [[2, 3, 5, 6], [1, 4, 7], [2, 3, 5, 8]]
    assert forked.prompt_lengths.tolist() == [2, 1, 2]
    assert sequences(history) == [[1, 4, 0], [2, 3, 5]]
    assert sequences(history.fork([])) == []


def test_a_fork_keeps_to_the_capacity():
    forked = TokenHistory([[1], [2, 3]], vocab_size=9, capacity=2).fork([1])
    with pytest.raises(ValueError, match="capacity = 2"):
        forked.append([4])


@pytest.mark.parametrize("capacity", [None, 4])
def test_joined_histories_are_one(capacity):
    one, other = TokenHistory([[1]], 9, capacity), TokenHistory([[2, 3], []], 9)
    one.append([4])
    other.append([5, 6])
    joined = one.join(other)
    joined.append([7, 8, -1])
    assert sequences(joined) == [[1, 4, 7], [2, 3, 5, 8], [6]]
    assert joined.prompt_lengths.tolist() == [1, 2, 0]
    assert (sequences(one), sequences(other)) == ([[1, 4]], [[2, 3, 5], [6]])
    if capacity:
        with pytest.raises(ValueError, match="sequence 1 has capacity = 4"):
            joined.append([-1, 1, -1])


def test_truncate_takes_back_what_was_drawn_but_not_the_prompt():
    history = TokenHistory([[1], [2, 3]], vocab_size=9, capacity=5)
    for token in (4, 5, 6):
        history.append([token, token])
    history.truncate(1, 3)
    assert sequences(history) == [[1, 4, 5, 6], [2, 3, 4]]
    history.truncate(1, 2)
    history.append([7, 8])
    assert sequences(history) == [[1, 4, 5, 6, 7], [2, 3, 8]]
    for length in (0, 6):
        with pytest.raises(ValueError, match=rf"^length: expected an integer in \[1, 5\] for row 0, got {length}$"):
            history.truncate(0, length)


@pytest.mark.parametrize("seed", range(5))
def test_any_sequence_of_calls_does_what_it_does_to_lists(seed):
    chance = random.Random(seed)
    expected = [[chance.randrange(9) for _ in range(chance.randrange(4))] for _ in range(3)]
    prompts = [len(each) for each in expected]
    history = TokenHistory(expected, vocab_size=9)
    expected = [list(each) for each in expected]
    for _ in range(400):
        action = chance.choice(["append"] * 12 + ["fork", "join", "truncate"])
        rows = range(len(expected))
        if action == "append":
            step = [chance.randrange(-1, 9) for _ in rows]
            history.append(step if chance.random() < 0.5 else torch.tensor(step))
            for each, token in zip(expected, step, strict=True):
                each.extend([token] if token >= 0 else [])
        elif action == "fork":
            chosen = [chance.choice(rows) for _ in range(chance.randrange(1, 5))]
            history = history.fork(chosen)
            expected, prompts = [list(expected[row]) for row in chosen], [prompts[row] for row in chosen]
        elif action == "join":
            history = history.join(TokenHistory([[1, 2]], vocab_size=9))
            expected, prompts = [*expected, [1, 2]], [*prompts, 2]
        else:
            row = chance.choice(rows)
            length = chance.randint(prompts[row], len(expected[row]))
            history.truncate(row, length)
            del expected[row][length:]
        assert sequences(history) == expected
        assert history.prompt_lengths.tolist() == prompts


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: TokenHistory([[9]], 9), ValueError, "prompts[0]: expected token ids in [0, 9), got 9"),
        (lambda: TokenHistory([[1], [0, -1]], 9), ValueError, "prompts[1]: expected token ids in [0, 9), got -1"),
        (lambda: TokenHistory([[1.0]], 9), TypeError, "prompts[0]: expected token ids in [0, 9), got 1.0"),
        (lambda: TokenHistory([[True]], 9), TypeError, "prompts[0]: expected token ids in [0, 9), got True"),
        (lambda: TokenHistory([1], 9), TypeError, "prompts[0]: expected a list of token ids, got 1"),
        (lambda: TokenHistory(["a"], 9), TypeError, "prompts[0]: expected a list of token ids, got 'a'"),
        (lambda: TokenHistory("a", 9), TypeError, "prompts: expected a list of lists of token ids, got 'a'"),
        (lambda: TokenHistory([], 0), ValueError, "vocab_size: expected an integer of at least 1, got 0"),
        (lambda: TokenHistory([], 1.5), TypeError, "vocab_size: expected an integer of at least 1, got 1.5"),
        (lambda: TokenHistory([[1, 2]], 9, 1), ValueError, "capacity: expected an integer of at least 2, got 1"),
        (lambda: TokenHistory([[]], 9, 0), ValueError, "capacity: expected an integer of at least 1, got 0"),
        (lambda: two().append([1, 9]), ValueError, "tokens: expected token ids in [-1, 9), got 9"),
        (lambda: two().append([1, -2]), ValueError, "tokens: expected token ids in [-1, 9), got -2"),
        (lambda: two().append([1, 2.0]), TypeError, "tokens: expected token ids in [-1, 9), got 2.0"),
        (lambda: two().append([1]), ValueError, "tokens: expected one for each of 2 sequences, got 1"),
        (lambda: two().append(3), TypeError, "tokens: expected an integer tensor or a list of token ids, got 3"),
        (lambda: two().append(torch.zeros(2)), TypeError, "tokens: expected int32 or int64, got float32"),
        (
            lambda: two().append(torch.zeros(3, dtype=torch.int32)),
            ValueError,
            "tokens: expected shape [2], got [3]",
        ),
        (
            lambda: two().append(torch.zeros(2, dtype=torch.int32, device="meta")),
            ValueError,
            "tokens: expected a tensor on cpu, got meta",
        ),
        (lambda: two().fork([2]), ValueError, "rows: expected integers in [0, 2), got 2"),
        (lambda: two().fork([0.0]), TypeError, "rows: expected integers in [0, 2), got 0.0"),
        (lambda: two().truncate(-1, 0), ValueError, "row: expected integers in [0, 2), got -1"),
        (lambda: two().truncate(0, 1.0), TypeError, "length: expected an integer in [1, 1] for row 0, got 1.0"),
        (
            lambda: two().join(TokenHistory([], 8)),
            ValueError,
            "other: expected a history of vocabulary 9, got 8",
        ),
        (
            lambda: TokenHistory([[1]], 9, 2).join(TokenHistory([[1, 2, 3]], 9)),
            ValueError,
            "other: expected sequences of at most capacity = 2 tokens, got 3",
        ),
    ],
)
def test_what_it_refuses_is_named(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message


def two():
    return TokenHistory([[1], [2]], vocab_size=9)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_history_on_a_device_is_the_same():
    device, host = TokenHistory([[1], [2, 3]], 9, device="cuda"), TokenHistory([[1], [2, 3]], 9)
    for step in ([4, 5], [-1, 6]):
        torch.cuda.set_sync_debug_mode("error")
        try:
            device.append(torch.tensor(step).pin_memory().to("cuda", non_blocking=True))
        finally:
            torch.cuda.set_sync_debug_mode("default")
        host.append(step)
    assert sequences(device) == sequences(host)


def test_sample_reads_a_history_where_it_is():
    history = TokenHistory([[1], [0]], vocab_size=3)
    logits = torch.tensor([[1.0, 3.0, 2.0]]).repeat(2, 1)
    drawn = []
    for _ in range(3):
        tokens = warpdraw.sample(logits, temperature=0.0, no_repeat_ngram=1, **history.inputs).tokens
        history.append(tokens)
        drawn.append(tokens.tolist())
    assert drawn == [[2, 1], [0, 2], [-1, -1]]
