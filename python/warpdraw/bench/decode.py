"""Runs `warpdraw bench decode`: decode steps and rounds of speculation of models with random weights."""

from __future__ import annotations

import gc
from dataclasses import asdict
from functools import partial
from time import perf_counter
from typing import Any

import torch

from ..backends import backend_for
from ..model.cache import KVCache
from ..model.config import ModelConfig
from ..model.transformer import Transformer
from .decode_rounds import Rounds
from .decode_shapes import (
    CONTEXT,
    DRAFTERS,
    QUICK_CONTEXT,
    QUICK_DRAFTERS,
    QUICK_SHAPES,
    SHAPES,
    filled_cache,
    random_model,
)
from .decode_steps import Steps
from .gpu_clock import clock_of
from .gpu_jobs import DRAFTS
from .gpu_methods import OURS
from .gpu_run import DROPPED, Options, Save, Tell, device_record, failure, on
from .peers import COMPILED, COMPILED_EAGER, EAGER, GPU_LOADERS, IDIOM, SPECULATORS, USUAL, load_peers
from .records import described

BATCHES, QUICK_BATCHES = (1, 32, 128), (1, 3)
PLACE_SECONDS = 1.5
METHOD = {
    "model": "plain PyTorch in bf16 with random weights, one read of a context of `context` places in each step; the "
    "keys and values of the rows are copied before attention, which an engine with paged attention does not do, so "
    "that the share of sampling is larger there",
    "step": "the forward and the sampler in one CUDA graph, the drawn token written, the same input tokens each step, "
    "so that all methods have the same logits; our position advances in the graph. A sampler that waits for the "
    "device is called after a graph of the model, with events around both. On the CPU wall time",
    "share": "(the step minus the model alone) over the step, medians of one run, never below 0",
    "sampler": "the sampler alone on the step's logits, timed apart, hot",
    "round": f"{DRAFTS} steps of a smaller model, each with a draw, the target's rows of all places in one forward, "
    "and their verification, in one CUDA graph. Which drafts are verified is chosen, so that of each request as many "
    "are accepted as if each were with probability `rate`, and for rejection their rows are the target's, flatter; "
    "`tokens` is the mean of that law, `speedup` these tokens over the round's time, against steps of the target with "
    "our sampler. After a round whose drafts are all accepted an engine gives the draft model one token more, which "
    "is not in it",
    "verified": "ours: tokens of the step equal the CPU backend's on its logits; peers: weights and draws against the "
    "float64 reference; of rounds: as many drafts accepted as were chosen to be, ours the CPU backend's tokens",
}


def run(options: Options, tell: Tell = lambda what, part: None, save: Save = lambda document: None) -> dict[str, Any]:
    """Measure: a document of plain data; ValueError for an `only` that names no model."""
    device = torch.device(options.device)
    with on(device):
        return _run(options, device, tell, save)


def _run(options: Options, device: torch.device, tell: Tell, save: Save) -> dict[str, Any]:
    begun = perf_counter()
    shapes = QUICK_SHAPES if options.quick else SHAPES
    chosen = [name for name in shapes if options.only in name]
    if not chosen:
        raise ValueError(f"only: expected part of the name of a model ({'; '.join(shapes)}), got {options.only!r}")
    drafters = QUICK_DRAFTERS if options.quick else DRAFTERS
    batches = QUICK_BATCHES if options.quick else BATCHES
    wanted = {name: GPU_LOADERS[name] for name in (IDIOM, EAGER, COMPILED, COMPILED_EAGER)}
    peers, absent = load_peers(options.skip, wanted)
    backend, clock = backend_for(device), clock_of(device)
    places = QUICK_CONTEXT if options.quick else CONTEXT
    document = described(
        "decode",
        method=METHOD,
        options=asdict(options),
        backend=f"{backend.name}: {backend.reason}",
        device=device_record(device),
        context=places,
        shapes={name: asdict(shapes[name]) for name in chosen},
        absent=absent,
        drafters={
            name: {"drafter": drafters[name][0], **asdict(drafters[name][1])} for name in chosen if name in drafters
        },
        steps=[],
        rounds=[],
        failed=[],
        dropped=[],
    )
    speculators = {name: SPECULATORS[name]() for name in (USUAL, EAGER)}
    seconds = 0.0 if options.quick else PLACE_SECONDS
    for done, name in enumerate(chosen):
        model = drafter = None
        for number, batch in enumerate(batches):
            place = {"model": name, "batch": batch}
            if perf_counter() - begun > options.seconds:
                document["dropped"].append(place | {"reason": DROPPED})
                continue
            tell(f"{name}, {batch} rows", (done + number / len(batches)) / len(chosen))
            fail = partial(_fail, document["failed"], place)
            try:
                model = model or _with_cache(shapes[name], max(batches), places, device)
                found = Steps(*model, batch, clock, peers).measure(seconds, fail)
                document["steps"] += [{"model": name, "vocab": shapes[name].vocab_size, **record} for record in found]
                if name in drafters:
                    drafter = drafter or _with_cache(drafters[name][1], max(batches), places, device)
                    found = Rounds(model, drafter, batch, clock, speculators).measure(seconds, fail)
                    document["rounds"] += [{"model": name, "drafter": drafters[name][0], **record} for record in found]
            except Exception as error:
                fail(OURS, error)
            document["seconds"] = perf_counter() - begun
            save(document)
        del model, drafter
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return document


def _fail(failed: list[dict[str, Any]], place: dict[str, Any], method: str, error: Exception) -> None:
    failed.append(place | {"method": method} | failure(error))


def _with_cache(config: ModelConfig, slots: int, places: int, device: torch.device) -> tuple[Transformer, KVCache]:
    return random_model(config, device), filled_cache(config, slots, places, device)
