"""Helpers of the truth tables: what is kept of one row, and with which probabilities."""

import pytest
import torch
from cases import INF

import warpdraw

P = [0.1, 0.2, 0.3, 0.4]


def logits_of(probabilities):
    """One row of logits with these probabilities."""
    return torch.tensor([probabilities], dtype=torch.float64).log().float()


def ids(*tokens):
    """A list of ids for one row."""
    return torch.tensor([tokens], dtype=torch.int32)


def for_rows(count, params):
    """The parameters of one row for several."""
    return {name: x.expand(count, *x.shape[1:]) if isinstance(x, torch.Tensor) else x for name, x in params.items()}


def kept_logits(row, **params):
    """The ids that the filters keep of a row of logits; filter_probs and sample have to agree."""
    logits = torch.tensor([row], dtype=torch.float32) if not isinstance(row, torch.Tensor) else row.view(1, -1)
    filtered = warpdraw.filter_logits(logits, **params)
    kept = filtered[0] > -INF
    assert torch.equal(filtered[0][kept], logits[0][kept])
    probabilities = warpdraw.filter_probs(logits, **params)
    if kept.any():
        assert torch.equal(probabilities[0] > 0, kept)
        assert probabilities.sum().item() == pytest.approx(1, rel=1e-6)
    else:
        assert probabilities.isnan().all()
    found = kept.nonzero().flatten().tolist()
    position = params.pop("position", 0) + torch.arange(20)
    drawn = warpdraw.sample(
        logits.expand(20, -1),
        position=position,
        kept_count=True,
        max_kept=logits.shape[1],
        **for_rows(20, params),
    )
    assert set(drawn.tokens.tolist()) <= (set(found) or {-1})
    assert drawn.valid.tolist() == [bool(found)] * 20
    assert drawn.kept_count[0] == len(found)
    assert drawn.kept_ids[0].tolist() == found + [-1] * (logits.shape[1] - len(found))
    return set(found)


def kept(probabilities, **params):
    return kept_logits(logits_of(probabilities), **params)


def probabilities_of(row, **params):
    return warpdraw.filter_probs(torch.tensor([row]), **params)[0].tolist()


def near(expected):
    return pytest.approx(expected, rel=2e-6)
