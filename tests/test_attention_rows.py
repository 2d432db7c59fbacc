"""Attention of many rows in few calls: each row has the bits that it has alone, and what the definition says."""

import random

import pytest
import torch

from warpdraw.model.attention_rows import PLACES, attend_rows, plan_of

SLOTS, KV_HEADS, GROUP, SIZE, CAPACITY = 12, 2, 3, 32, 4 * PLACES


def attend(query, keys, values, rows, window):
    return attend_rows(query, keys, values, plan_of(rows, window, KV_HEADS * SIZE, torch.float32))


@pytest.mark.parametrize("window", [None, 5, 100])
@pytest.mark.parametrize("several", [False, True])
def test_rows_have_the_bits_that_they_have_alone(window, several):
    torch.manual_seed(0)
    keys, values = torch.randn(2, SLOTS, KV_HEADS, CAPACITY, SIZE).unbind()
    for seed in range(40):
        chance = random.Random(seed)
        slots = [chance.randrange(SLOTS) for _ in range(20)] if several else chance.sample(range(SLOTS), 7)
        rows = list(dict.fromkeys((slot, chance.choice([0, 1, 62, 63, 64, 130, 255])) for slot in slots))
        query = torch.randn(len(rows), 1, KV_HEADS * GROUP, SIZE)
        together = attend(query, keys, values, rows, window)
        for row, (slot, position) in enumerate(rows):
            assert torch.equal(together[row : row + 1], attend(query[row : row + 1], keys, values, [rows[row]], window))
            seen = slice(0 if window is None else max(0, position + 1 - window), position + 1)
            for head in range(KV_HEADS * GROUP):
                key, value = (part[slot, head // GROUP, seen].double() for part in (keys, values))
                weights = (key @ query[row, 0, head].double() / SIZE**0.5).softmax(0)
                torch.testing.assert_close(together[row, 0, head].double(), weights @ value, rtol=1e-4, atol=1e-5)


def test_neighbours_share_a_call_and_rows_far_apart_do_not():
    def calls(slots, numbers=64):
        return [
            (call.first, call.last)
            for call in plan_of([(slot, 9) for slot in slots], None, numbers, torch.float32).calls
        ]

    assert calls([0, 1, 2, 3]) == [(0, 3)]
    assert calls([3, 0, 2]) == [(0, 3)]
    assert calls([0, 40]) == [(0, 0), (40, 40)]
    assert calls([0, 2, 3], numbers=4096) == [(0, 0), (2, 3)]
    assert calls([5, 5, 6]) == [(5, 5), (6, 6)]
