"""The float64 reference against definitions in plain Python: one row, one token after the other."""

import math
import random

import pytest
import torch
from cases import INF, ORDERS

import warpdraw
from warpdraw.ops.noise import philox


def kept_by_definition(row, order, T, k, p, m, n_sigma, typical, epsilon, eta, threshold, dynamic):
    """The ids that the chain keeps; `threshold` is None where XTC's coin says no, `dynamic` a range and an exponent."""
    ranked = sorted((token for token in range(len(row)) if row[token] > -INF), key=lambda token: (-row[token], token))
    if T > 0 and dynamic[0] > 0 and order != "llama.cpp":
        T = dynamic_temperature([row[token] for token in ranked], T, *dynamic)
    if T == 0 or not ranked:
        return set(ranked[:1])
    T = 1.0 if order == "llama.cpp" else T

    def share(seen):
        weights = [math.exp((row[token] - row[seen[0]]) / T) for token in seen]
        return [weight / sum(weights) for weight in weights]

    def entropy(seen):
        return -sum(q * math.log(q) for q in share(seen) if q > 0)

    def sigma(seen):
        logits = [row[token] for token in seen]
        mean = sum(logits) / len(logits)
        deviation = math.sqrt(sum((x - mean) ** 2 for x in logits) / len(logits))
        return [token for token in seen if row[token] >= row[seen[0]] - n_sigma * deviation] if n_sigma else seen

    def top_k(seen):
        return seen[:k] if k else seen

    def min_p(seen):
        return [token for token, q in zip(seen, share(seen), strict=True) if q >= m * share(seen)[0]]

    def shortest(seen, order_of, mass):
        kept, total = [], 0.0
        for place in order_of:
            if kept and total >= mass:
                break
            kept.append(place)
            total += share(seen)[place]
        return [seen[place] for place in sorted(kept)]

    def top_p(seen):
        return shortest(seen, range(len(seen)), p) if p < 1 else seen

    def typical_p(seen):
        if typical >= 1:
            return seen
        H, shares = entropy(seen), share(seen)
        above = [H + math.log(q) if q > 0 else -INF for q in shares]  # positive: more probable than exp(-H)
        places = sorted(
            range(len(seen)),
            key=lambda place: (abs(above[place]), above[place] <= 0, -place if above[place] > 0 else place),
        )
        return shortest(seen, places, typical)

    def floor(seen, least):
        return [token for token, q in zip(seen, share(seen), strict=True) if q >= least] or seen[:1]

    def epsilon_floor(seen):
        return floor(seen, epsilon) if epsilon else seen

    def eta_floor(seen):
        return floor(seen, min(eta, math.sqrt(eta) * math.exp(-entropy(seen)))) if eta else seen

    def xtc(seen):
        top = [token for token, q in zip(seen, share(seen), strict=True) if threshold is not None and q >= threshold]
        return [token for token in seen if token not in top[:-1]]

    seen = sigma(ranked)
    if order == "vllm":
        seen = typical_p(top_p(top_k(min_p(seen))))
    elif order == "hf":
        seen = typical_p(min_p(top_p(top_k(seen))))
    elif order == "flashinfer-joint":
        seen = typical_p([token for token in top_p(seen) if token in top_k(seen) and token in min_p(seen)])
    else:
        seen = min_p(top_p(typical_p(top_k(seen))))
    return set(xtc(eta_floor(epsilon_floor(seen))))


def dynamic_temperature(logits, T, spread, exponent):
    weights = [math.exp(x - max(logits)) for x in logits]
    shares = [weight / sum(weights) for weight in weights]
    H = -sum(q * math.log(q) for q in shares)
    low = max(0.0, T - spread)
    return low if len(logits) == 1 else low + (T + spread - low) * (H / math.log(len(logits))) ** exponent


def edited_by_definition(row, one):
    """Steps 1 to 4 for one row of Python numbers, in float64."""
    x = dict(enumerate(row))
    history = one["history"][: one["history_length"]]
    output = history[one["prompt_length"] :]
    for token, bias in zip(one["bias_ids"], one["bias"], strict=True):
        if token >= 0:
            x[token] += bias
    for token in set(history):
        r = one["repetition_penalty"]
        x[token] = x[token] / r if x[token] > 0 else x[token] * r
    for token in set(output):
        x[token] -= one["frequency_penalty"] * output.count(token) + one["presence_penalty"]
    for token in x:
        longest = 0
        for end in range(1, len(history)):
            if history[end] == token and token not in one["dry_breakers"]:
                copies = [n for n in range(1, end + 1) if history[end - n : end] == history[len(history) - n :]]
                whole = [n for n in copies if not set(history[len(history) - n :]) & set(one["dry_breakers"])]
                longest = max([longest, *whole])
        if longest >= one["dry_allowed_length"]:
            x[token] -= one["dry_multiplier"] * one["dry_base"] ** (longest - one["dry_allowed_length"])
    n = one["no_repeat_ngram"]
    grams = [tuple(history[i : i + n]) for i in range(len(history) - n + 1)] if n else []
    bitmask, allowed = one["bitmask"][0] % 2**32, [token for token in one["allowed_ids"] if token >= 0]
    for token in x:
        repeats = (*history[len(history) - n + 1 :], token) in grams if n and len(history) >= n - 1 else False
        stopped = token in one["stop_ids"] and len(output) < one["min_tokens"]
        masked = token >= (one["vocab_size"] or len(row)) or not bitmask >> token & 1
        restricted = allowed and token not in allowed
        if repeats or stopped or masked or restricted or token in one["banned_ids"]:
            x[token] = -INF
    return [x[token] for token in range(len(row))]


def coin(seed, position):
    """XTC's uniform number."""
    counter = [torch.tensor(word) for word in (0, position % 2**32, position >> 32 & 0xFFFFFFFF, 2)]
    key = [torch.tensor(word) for word in (seed % 2**32, seed >> 32 & 0xFFFFFFFF)]
    return (philox(counter, key)[0].item() + 0.5) / 2**32


@pytest.fixture(params=["reference", "scalar"], autouse=True)
def _on_the_slow_backends(request):
    with warpdraw.use(request.param):
        yield


def test_filters():
    generator = random.Random(8)
    choose = generator.choice
    for _ in range(250):
        V = generator.randint(1, 30)
        step = choose((0.0, 0.0, 0.5))
        row = [generator.gauss(0, 2) for _ in range(V)]
        row = torch.tensor([round(x / step) * step if step else x for x in row])
        names = {
            "temperature": choose((0.0, 0.5, 1.0, 2.0)), "top_k": choose((0, 0, generator.randint(1, V + 2))),
            "top_p": choose((1.0, 1.0, 0.0, 0.31, 0.77)), "min_p": choose((0.0, 0.0, 0.021, 0.41)),
            "top_n_sigma": choose((0.0, 0.0, 0.43, 1.13)), "typical_p": choose((1.0, 1.0, 0.0, 0.37, 0.83)),
            "epsilon": choose((0.0, 0.0, 0.023, 0.31)), "eta": choose((0.0, 0.0, 0.031, 0.37)),
            "xtc_probability": choose((0.0, 0.5, 1.0)), "xtc_threshold": choose((0.0, 0.113, 0.31)),
            "dynatemp_range": choose((0.0, 0.0, 0.37, 1.3)), "dynatemp_exponent": choose((1.0, 0.5, 2.0)),
        }  # fmt: skip
        seed, position = generator.randrange(-(2**63), 2**63), generator.randrange(2**63)
        single = {name: torch.tensor(value, dtype=torch.float32).item() for name, value in names.items()}
        heads = coin(seed, position) < single["xtc_probability"]
        for order in ORDERS:
            expected = kept_by_definition(
                row.tolist(), order, single["temperature"], names["top_k"], single["top_p"], single["min_p"],
                single["top_n_sigma"], single["typical_p"], single["epsilon"], single["eta"],
                single["xtc_threshold"] if heads else None, (single["dynatemp_range"], single["dynatemp_exponent"]),
            )  # fmt: skip
            found = warpdraw.filter_logits(row[None], **names, seed=seed, position=position, order=order)[0] > -INF
            assert set(found.nonzero().flatten().tolist()) == expected, (order, names, row)


def test_edits():
    """Numbers that fp32 holds exactly, so that every order of operations gives the same; powers of two for DRY."""
    generator = random.Random(9)
    choose = generator.choice
    for _ in range(400):
        V, H = generator.randint(2, 12), generator.randint(1, 14)
        few = generator.randint(1, 3)

        def some(count, largest=V):
            return [choose((-1, generator.randrange(largest))) for _ in range(count)]

        row = [generator.randint(-64, 64) / 8 for _ in range(V)]
        length = generator.randint(0, H)
        one = {
            "history": [generator.randrange(min(few, V)) for _ in range(H)], "history_length": length,
            "prompt_length": generator.randint(0, length), "bias_ids": some(3), "bias": [choose((-2.5, 4.0))] * 3,
            "repetition_penalty": choose((1.0, 2.0, 0.5)), "frequency_penalty": choose((0.0, 0.25, -1.5)),
            "presence_penalty": choose((0.0, 0.75, -2.0)), "dry_multiplier": choose((0.0, 0.5, 2.0)),
            "dry_base": choose((1.0, 2.0)), "dry_allowed_length": generator.randint(1, 3), "dry_breakers": some(2, few),
            "no_repeat_ngram": choose((0, 0, 1, 2, 3)), "banned_ids": choose(([-1, -1], some(2))),
            "stop_ids": some(2), "min_tokens": choose((0, 1, 3)), "vocab_size": choose((0, generator.randint(1, V))),
            "bitmask": [choose((-1, generator.getrandbits(31)))], "allowed_ids": choose(([-1, -1], some(2))),
        }  # fmt: skip
        numbers = {name: value for name, value in one.items() if not isinstance(value, list)}
        lists = {
            name: torch.tensor([value], dtype=torch.float32 if name == "bias" else torch.int32)
            for name, value in one.items()
            if isinstance(value, list)
        }
        numbers["history_length"] = torch.tensor([length], dtype=torch.int32)
        found = warpdraw.filter_probs(torch.tensor([row]), **numbers, **lists)[0]
        expected = torch.tensor(edited_by_definition(row, one), dtype=torch.float64).softmax(0)
        assert torch.allclose(found.double(), expected, rtol=1e-5, atol=1e-30, equal_nan=True), (row, one, found)
