"""Compares two documents of a benchmark: what became faster or slower, and what the spread leaves open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SAME, FASTER, SLOWER, UNCLEAR = "same", "faster", "slower", "unclear"
# Medians this near to each other are the same.
NEAR = 0.03

# What tells one record from another.
PLACE = (
    "series",
    "job",
    "vocab",
    "batch",
    "drafts",
    "dtype",
    "logits",
    "noise",
    "cache",
    "threads",
    "method",
)

Key = tuple[tuple[str, Any], ...]


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The records of both at the same place by the same method, with a verdict each; what one alone has is counted.

    Raises ValueError for documents of different benchmarks, without times, or with no place in common.
    """
    if old["benchmark"] != new["benchmark"]:
        raise ValueError(f"new: expected a measurement of bench {old['benchmark']}, got one of {new['benchmark']!r}")
    if old.get("job") != new.get("job"):  # bench sample has one for all its records
        raise ValueError(f"new: expected a measurement of the job {old.get('job')}, got one of {new.get('job')}")
    before, after = _records("old", old), _records("new", new)
    both = [key for key in before if key in after]
    if not both:
        raise ValueError("new: expected a measurement at a place and by a method of the old one, got none")
    records = [dict(key) | change(before[key], after[key]) for key in both]
    return {
        "benchmark": old["benchmark"],
        "machines": [_machine(old), _machine(new)],
        "dates": [old["date"], new["date"]],
        "counts": {name: sum(each["verdict"] == name for each in records) for name in (FASTER, SLOWER, SAME, UNCLEAR)},
        "only_old": len(before) - len(both),
        "only_new": len(after) - len(both),
        "results": records,
    }


def change(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Medians of both, the new over the old, and a verdict.

    The same: medians within NEAR of each other. Faster or slower: further apart, and the spans from the 10th to the
    90th percentile do not meet. Unclear: they do.
    """
    ratio = new["median_us"] / old["median_us"]
    if abs(ratio - 1) <= NEAR:
        verdict = SAME
    elif new["p10_us"] <= old["p90_us"] and old["p10_us"] <= new["p90_us"]:
        verdict = UNCLEAR
    else:
        verdict = FASTER if ratio < 1 else SLOWER
    return {"old_us": old["median_us"], "new_us": new["median_us"], "ratio": ratio, "verdict": verdict}


def _records(name: str, document: Mapping[str, Any]) -> dict[Key, Mapping[str, Any]]:
    timed = [record for record in document.get("results", ()) if record.get("median_us")]
    if not timed:
        raise ValueError(f"{name}: expected a measurement with times, got one of {document['benchmark']!r} without")
    return {tuple((part, record[part]) for part in PLACE if part in record): record for record in timed}


def _machine(document: Mapping[str, Any]) -> str:
    device = document.get("device", {})
    return str(device.get("name", document["environment"]["cpu"]))
