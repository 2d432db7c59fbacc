"""transformers' logits processors and ours agree where the definitions do: on rows without ties, in the order "hf"."""

import pytest
import torch
from transformers import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

import warpdraw

B, V, H = 24, 300, 40
LIST = torch.tensor([[3, 7, 250]] * B, dtype=torch.int32)


@pytest.fixture(autouse=True)
def _on_every_backend(backend):
    pass


def rows_and_history(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(B, V, generator=generator)
    history = torch.randint(0, 6, (B, H), generator=generator)  # of few tokens, so that n-grams repeat
    likely = logits.topk(6, -1).indices
    return logits, likely.gather(-1, history)


def new_tokens(count, stop):
    return MinNewTokensLengthLogitsProcessor(H - 10, count, stop, device="cpu")


# What transformers applies, in its order, and what we are given.
CASES = {
    "repetition": ([RepetitionPenaltyLogitsProcessor(1.7)], {"repetition_penalty": 1.7}),
    "repetition below 1": ([RepetitionPenaltyLogitsProcessor(0.6)], {"repetition_penalty": 0.6}),
    "bigrams": ([NoRepeatNGramLogitsProcessor(2)], {"no_repeat_ngram": 2}),
    "trigrams": ([NoRepeatNGramLogitsProcessor(3)], {"no_repeat_ngram": 3}),
    "unigrams": ([NoRepeatNGramLogitsProcessor(1)], {"no_repeat_ngram": 1}),
    "suppressed": ([SuppressTokensLogitsProcessor([3, 7, 250], device="cpu")], {"banned_ids": LIST}),
    "too few tokens": (
        [new_tokens(11, [3, 7, 250])],
        {"stop_ids": LIST, "min_tokens": 11, "prompt_length": H - 10},
    ),
    "enough tokens": ([new_tokens(10, [3, 7, 250])], {"stop_ids": LIST, "min_tokens": 10, "prompt_length": H - 10}),
    "temperature": ([TemperatureLogitsWarper(0.7)], {"temperature": 0.7}),
    "top-k": ([TopKLogitsWarper(13)], {"top_k": 13}),
    "top-p": ([TopPLogitsWarper(0.83)], {"top_p": 0.83}),
    "min-p": ([MinPLogitsWarper(0.07)], {"min_p": 0.07}),
    "typical": ([TypicalLogitsWarper(0.63)], {"typical_p": 0.63}),
    "typical, nearly all": ([TypicalLogitsWarper(0.987)], {"typical_p": 0.987}),
    "typical, hardly any": ([TypicalLogitsWarper(0.02)], {"typical_p": 0.02}),
    "epsilon": ([EpsilonLogitsWarper(0.011)], {"epsilon": 0.011}),
    "epsilon above all": ([EpsilonLogitsWarper(0.9)], {"epsilon": 0.9}),
    "eta": ([EtaLogitsWarper(0.013)], {"eta": 0.013}),
    "eta, large": ([EtaLogitsWarper(0.7)], {"eta": 0.7}),
    "the whole chain": (
        [
            RepetitionPenaltyLogitsProcessor(1.3),
            NoRepeatNGramLogitsProcessor(3),
            TemperatureLogitsWarper(1.4),
            TopKLogitsWarper(60),
            TopPLogitsWarper(0.97),
            MinPLogitsWarper(0.011),
            TypicalLogitsWarper(0.91),
            EpsilonLogitsWarper(0.006),
            EtaLogitsWarper(0.02),
        ],
        {
            "repetition_penalty": 1.3, "no_repeat_ngram": 3, "temperature": 1.4, "top_k": 60, "top_p": 0.97,
            "min_p": 0.011, "typical_p": 0.91, "epsilon": 0.006, "eta": 0.02,
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_same_distribution(name):
    processors, params = CASES[name]
    for seed in range(3):
        logits, history = rows_and_history(seed)
        expected = LogitsProcessorList(processors)(history, logits.double()).softmax(-1)
        found = warpdraw.filter_probs(logits, history=history.int(), order="hf", **params)
        assert torch.equal(found > 0, expected > 0)
        assert torch.allclose(found.double(), expected, rtol=1e-5, atol=0)
        assert (name == "enough tokens") or not torch.allclose(expected, logits.double().softmax(-1), rtol=1e-3, atol=0)
