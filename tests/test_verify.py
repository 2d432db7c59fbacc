"""verify: every rule on every backend, its errors, and what a call has to say."""

import doctest
import re
from pathlib import Path

import pytest
import torch
import verify_checks
from conftest import BACKENDS, SIMULATED, VECTOR, runnable
from test_every_backend import each
from verify_checks import CHAIN, METHODS, links, random_call

import warpdraw

RULES = {rule.__name__.removeprefix("check_"): rule for rule in verify_checks.RULES}
# In Python, or on a simulated GPU: the rules that need few requests.
SLOW = {"reference": {"invalid_requests"}, "triton": {"rare_uniforms", "invalid_requests"}}
FEW_REQUESTS = (
    {
        "rare_uniforms", "coupled_is_sample", "greedy", "degenerate_residuals", "padding", "invalid_requests",
        "drafts_join_the_history", "rows_of_masks",
    }
)  # fmt: skip
SLOW |= {name: FEW_REQUESTS for name in SIMULATED}


@pytest.mark.parametrize("backend", each(BACKENDS))
@pytest.mark.parametrize("rule", RULES)
def test_rules(backend, rule):
    if rule not in SLOW.get(backend, RULES):
        pytest.skip(f"{backend}: too slow for thousands of requests; other tests compare it with the oracle")
    if BACKENDS[runnable(backend)].device not in ("any", "cpu"):
        pytest.skip(f"{backend}: these tensors are on the CPU; tests/test_gpu.py compares with it")
    with warpdraw.use(backend):
        RULES[rule]()


@pytest.mark.parametrize("backend", [*VECTOR, *SIMULATED])
def test_what_is_left_in_many_tiles(backend):
    with warpdraw.use(runnable(backend)):
        verify_checks.check_many_tiles()


def test_the_reference_agrees_with_the_oracle():
    """In float64 and by other code: all tokens, and log-probabilities to fp32 rounding."""
    history = torch.randint(0, 50, (8, 5), generator=torch.Generator().manual_seed(1), dtype=torch.int32)
    sets = (
        {}, {"temperature": 0.8, "top_k": 20, "top_p": 0.95}, {"min_p": 0.01, "order": "hf"},
        {"history": history, "repetition_penalty": 1.3, "frequency_penalty": 0.2},
    )  # fmt: skip
    tree = dict(zip(("first_child", "next_sibling"), (x.expand(8, -1) for x in links((0, 0, 1, 1))), strict=True))
    for seed in range(4):
        for method in METHODS:
            for number, params in enumerate(sets):
                call = {
                    **random_call(8, 4, 50, seed),
                    "method": method,
                    "step": seed,
                    "draft_temperature": 0.9,
                    **params,
                }
                if method != "block" and number == seed % 4:
                    call |= {**tree, "siblings": ("independent", "distinct")[seed % 2]}
                found = []
                for backend in ("scalar", "reference"):
                    with warpdraw.use(backend):
                        found.append(warpdraw.verify(**call, logprob=True, raw_logprob=True, nodes=True))
                for name, got, want in zip(found[0]._fields, *found, strict=True):
                    if got.dtype.is_floating_point:
                        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
                    else:
                        assert torch.equal(got, want), f"{name}, {method}, set {number}, seed {seed}"


# --------------------------------------------------------------------------------------------------------------------
# What a call may not say.

TOKENS, LOGITS = torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 4, 10)


def refuses(error, *words, **given):
    with pytest.raises(error) as caught:
        warpdraw.verify(**{"draft_tokens": TOKENS, "target_logits": LOGITS, **given})
    for word in words:
        assert word in str(caught.value), f"{word!r} is not in {str(caught.value)!r}"


def test_errors_name_the_argument(backend):
    refuses(ValueError, "draft_tokens", "K of at least 1", draft_tokens=TOKENS[:, :0], target_logits=LOGITS[:, :1])
    refuses(ValueError, "target_logits", "[B, K+1, V]", "K = 3", target_logits=LOGITS[:, :3])
    refuses(ValueError, "target_logits", "B = 2", target_logits=LOGITS[:1])
    refuses(ValueError, "draft_logits", "V = 10", "[2, 3, 9]", draft_logits=torch.zeros(2, 3, 9), method="rejection")
    refuses(ValueError, "draft_logits", "K = 3", draft_logits=torch.zeros(2, 4, 10), method="rejection")
    for method in ("rejection", "block"):
        refuses(ValueError, "draft_logits", "[B, K, V]", f"method '{method}'", "None", method=method)
    refuses(
        ValueError, "method", "'coupled', 'rejection', 'point_mass', 'block', 'greedy'", "'typical'", method="typical"
    )
    refuses(TypeError, "method", "'coupled'", "tensor [B]", "1.5", method=1.5)
    refuses(ValueError, "method", "7", method=7)
    refuses(ValueError, "offsets", "target_logits [N, V]", target_logits=LOGITS[0])
    offsets = torch.tensor([0, 4, 8], dtype=torch.int32)
    refuses(ValueError, "offsets", "None", "target_logits [B, K+1, V]", offsets=offsets)
    refuses(ValueError, "offsets", "[B+1]", target_logits=LOGITS.view(8, 10), offsets=offsets[:2])
    refuses(ValueError, "step", "[0, 16777215]", step=-1)
    refuses(ValueError, "draft_top_p", "[0, 1]", draft_top_p=1.5)
    refuses(ValueError, "draft_temperature", "[0, inf)", draft_temperature=float("nan"))
    first, sibling = (link.expand(2, -1) for link in links(CHAIN))
    refuses(ValueError, "next_sibling", "first_child", first_child=first)
    tree = {"first_child": first, "next_sibling": sibling}
    refuses(ValueError, "first_child", "method 'block'", method="block", draft_logits=torch.zeros(2, 3, 10), **tree)
    refuses(TypeError, "draft_tokens", "int64 or int32", "float32", draft_tokens=TOKENS.float())
    refuses(TypeError, "target_logits", "float32", "int64", target_logits=LOGITS.long())


def test_words_and_their_places_are_the_same(backend):
    call = random_call(3, 2, 20, seed=1)
    for place, word in enumerate(METHODS):
        want = warpdraw.verify(**call, method=word).tokens
        for method in (place, torch.full((3,), place, dtype=torch.int32)):
            assert torch.equal(warpdraw.verify(**call, method=method).tokens, want)
    mixed = warpdraw.verify(**call, method=torch.tensor([0, 4, 1], dtype=torch.int32)).tokens
    for row, word in enumerate(("coupled", "greedy", "rejection")):
        assert torch.equal(mixed[row], warpdraw.verify(**call, method=word).tokens[row])


def test_a_request_with_a_method_that_lacks_draft_logits_is_invalid(backend):
    call = random_call(2, 2, 20, seed=1)
    del call["draft_logits"]
    result = warpdraw.verify(**call, method=torch.tensor([0, 1], dtype=torch.int32))
    assert result.valid.tolist() == [True, False]
    assert (result.tokens[1] == -1).all()


def test_where_nothing_can_be_drawn_the_tokens_before_stand(backend):
    call = random_call(1, 3, 20, seed=2)
    call["draft_tokens"] = call["target_logits"].argmax(-1)[:, :3]
    call["target_logits"][0, 2] = -torch.inf
    result = warpdraw.verify(**call, method="greedy", logprob=True, nodes=True)
    assert result.valid.tolist() == [False]
    assert result.accepted.tolist() == [2]
    assert result.tokens.tolist() == [[*call["draft_tokens"][0, :2].tolist(), -1, -1]]
    assert result.nodes.tolist() == [[0, 1, -1, -1]]


def test_tokens_of_32_bits(backend):
    call = random_call(3, 2, 20, seed=3)
    want = warpdraw.verify(**call)
    call["draft_tokens"] = call["draft_tokens"].int()
    tokens = torch.zeros(3, 3, dtype=torch.int32)
    found = warpdraw.verify(**call, tokens=tokens)
    assert found.tokens is tokens
    assert torch.equal(tokens.long(), want.tokens)


def test_the_examples_of_the_guide_print_what_it_says():
    guide = (Path(__file__).parent.parent / "docs" / "verification.md").read_text(encoding="utf-8")
    session = "\n".join(re.findall(r"^```python\n(.*?)^```$", guide, flags=re.MULTILINE | re.DOTALL))
    test = doctest.DocTestParser().get_doctest(session, {}, "verification.md", None, None)
    output = []
    assert doctest.DocTestRunner(verbose=False).run(test, out=output.append).failed == 0, "".join(output)
    assert len(test.examples) > 5
