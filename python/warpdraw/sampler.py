"""Sampler: the parameters of running requests as tensors that stay in place, for inference loops of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .generation.draw import padded
from .generation.params import NUMBERS, ORDERS, SamplingParams, end_ids, fresh_seed, sample_seed
from .generation.place import Place
from .generation.vocabulary import Ids, Vocabulary
from .history import append, check_ids, check_integer
from .model import Checkpoint
from .ops import sample

_OP: dict[str, Any] = {spec.name: spec for spec in sample.contract.inputs}
_LISTS = ("allowed_ids", "banned_ids", "stop_ids", "bias_ids", "bias", "dry_breakers")


class Sampler(nn.Module):
    """Draws the next token of each running request: the module that an inference loop calls after its model.

    Row b of the logits belongs to slot b, which holds one sample of a request: its parameters, its seed, its next
    position and, where its parameters read them, its tokens so far. All are tensors that `add`, `remove` and `reorder`
    write in place and that a draw brings up to date on the device. A draw does no work on the host for a row and waits
    for nothing, so it can be compiled, exported or captured in a CUDA graph; those stay valid when requests come and
    go.

    A request draws the tokens that `generate` draws from the same logits, in whichever slot and with whatever others.
    What ends a text and what is reported are up to the loop: of `SamplingParams`, ``max_tokens``, ``stop``,
    ``stop_on_repeat``, ``logprobs``, ``logprobs_of`` and ``kept`` are not read; ``stop_ids`` are banned for the first
    ``min_tokens``.

    Args:
        vocabulary: the number of columns of the logits, or a `Checkpoint`, whose tokenizer then says what texts in
            ``logit_bias``, ``allowed_ids``, ``banned_ids`` and ``dry_breakers`` stand for.
        max_batch: how many slots there are.
        max_length: the most tokens, prompt included, that the parameters of a request can read (penalties, DRY,
            no_repeat_ngram, min_tokens); a longer sequence becomes an invalid row. 0 takes no such request.
        max_ids: the most ids in each list of a request; 0 takes no lists. (DRY's default breakers have room of their
            own.)
        order: that of all requests, because one call has one.
        eos_ids: the end-of-text ids; None takes those of the checkpoint, or none.
        device: where the logits will be; ``.to(device)`` moves a sampler, ``.half()`` and the like leave it as it is.

    Attributes:
        requests: the parameters in each slot, or None.
        seed, position, temperature, top_k, ...: a tensor [max_batch] for each parameter of a request that is a number,
            with the dtype that `warpdraw.sample` wants; entries may be changed between draws.

    Raises:
        TypeError, ValueError: the message names the argument, what it was and what is allowed; nothing has changed
            then.

    >>> import torch, warpdraw
    >>> sampler = warpdraw.Sampler(vocabulary=5, max_batch=3)
    >>> sampler.add(warpdraw.SamplingParams(temperature=0.0, repetition_penalty=9.0), prompt=[0])
    0
    >>> sampler.add(warpdraw.SamplingParams(temperature=0.0), prompt=[0, 4])
    1
    >>> logits = torch.tensor([9.0, 8.0, 7.0, 6.0, 5.0]).expand(3, 5)
    >>> [sampler(logits).tolist() for _ in range(3)]
    [[1, 0, -1], [2, 0, -1], [3, 0, -1]]
    >>> sampler.position.tolist()
    [4, 5, 3]
    >>> sampler.remove(0)
    >>> sampler.compact(), sampler(logits[:1]).tolist()
    ([1], [0])
    """

    position: Tensor
    temperature: Tensor
    _tokens: Tensor
    _history_length: Tensor
    _prompt_length: Tensor
    _reads_history: Tensor

    def __init__(
        self,
        vocabulary: int | Checkpoint,
        max_batch: int,
        *,
        max_length: int = 4096,
        max_ids: int = 64,
        order: str = ORDERS[0],
        eos_ids: Sequence[int] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        check_integer("max_batch", max_batch, 1)
        check_integer("max_length", max_length, 0)
        check_integer("max_ids", max_ids, 0)
        if order not in ORDERS:
            raise ValueError(f"order: expected one of {', '.join(ORDERS)}, got {order!r}")
        self.requests: list[SamplingParams | None] = [None] * max_batch
        self._max_length, self._order = max_length, order

        self._vocabulary: Ids
        breakers = max_ids
        if isinstance(vocabulary, Checkpoint):
            self._vocabulary = Vocabulary(vocabulary)
            eos_ids = vocabulary.eos_ids if eos_ids is None else eos_ids
            if max_ids:
                by_default = self._vocabulary.lists("", SamplingParams(dry_multiplier=1.0)).breakers
                breakers = max(max_ids, len(by_default))
        else:
            check_integer("vocabulary", vocabulary, 1)
            self._vocabulary = Ids(vocabulary, vocabulary)
        self._eos_ids = tuple(eos_ids or ())
        check_ids("eos_ids", self._eos_ids, 0, self._vocabulary.size)
        lengths = dict.fromkeys(_LISTS, max_ids) | {"dry_breakers": breakers}
        self._lists = {name: length for name, length in lengths.items() if length}
        self._names = ("seed", "position", *NUMBERS, *self._lists)
        self._views: dict[int, tuple[dict[str, Any], tuple[Tensor, Tensor, Tensor] | None]] = {}

        def hold(name: str, dtype: torch.dtype, *sizes: int) -> None:
            tensor = torch.zeros(max_batch, *sizes, dtype=dtype, device=device)
            self.register_buffer(name, tensor, persistent=False)

        for name in ("seed", "position", *NUMBERS):
            hold(name, _OP[name].dtypes[0])
        for name, length in self._lists.items():
            hold(name, _OP[name].dtypes[0], length)
        # Two columns more than sequences may have: the token that makes one too long, and what `append` writes then.
        hold("_tokens", torch.int32, max_length + 2)
        hold("_history_length", torch.int32)
        hold("_prompt_length", torch.int32)
        hold("_reads_history", torch.bool)
        self._empty(0)

    def extra_repr(self) -> str:
        """What `repr` shows."""
        return f"max_batch={len(self.requests)}, running={len(self.slots)}"

    @property
    def slots(self) -> list[int]:
        """The slots that hold a request, ascending."""
        return [slot for slot, params in enumerate(self.requests) if params is not None]

    def add(
        self, params: SamplingParams, prompt: Sequence[int] | Tensor, drawn: Sequence[int] = (), *, index: int = 0
    ) -> int:
        """Put a sample of a request into the first free slot, and return the slot.

        ``prompt`` holds its token ids (a list, or an integer tensor of one dimension, which is read), ``drawn`` those
        that it has drawn before, where it was interrupted. ``index`` says which of ``params.n`` samples it is: like
        `generate`, each has a seed of its own. ``seed=None`` draws one at random; it stands in ``seed[slot]``.
        """
        if not isinstance(params, SamplingParams):
            raise TypeError(f"params: expected a SamplingParams, got {params!r}")
        if params.order != self._order:
            raise ValueError(f"params.order: expected {self._order!r}, the order of this sampler, got {params.order!r}")
        if params.bitmask is not None:
            raise ValueError("params.bitmask: expected None, because a draw asks no function: give it the words itself")
        for name, off in (("guide", None), ("ban_phrases", ()), ("prefix", ())):
            if getattr(params, name) != off:
                raise ValueError(f"params.{name}: expected {off!r}, because a draw follows no text: give it a bitmask")
        for name, why in (
            ("mirostat", "its filters stay as they are"),
            ("guidance", "it sees the logits of one prompt"),
        ):
            off, value = getattr(SamplingParams(), name), getattr(params, name)
            if value != off:
                raise ValueError(f"params.{name}: expected {off!r} in a sampler, because {why}, got {value!r}")
        check_integer("index", index, 0)
        if index >= params.n:
            raise ValueError(f"index: expected an integer in [0, params.n = {params.n}), got {index}")
        ids = [_as_ids(name, given, self._vocabulary.padded) for name, given in (("prompt", prompt), ("drawn", drawn))]
        if params.reads_history and len(ids[0]) + len(ids[1]) >= self._max_length:
            allowed = f"fewer than max_length = {self._max_length} tokens, because its parameters read them"
            raise ValueError(f"prompt: expected {allowed}, got {len(ids[0]) + len(ids[1])}")
        place = Place(
            name="params",
            params=params,
            lists=self._vocabulary.lists("params", params),
            seed=sample_seed(fresh_seed() if params.seed is None else params.seed, index),
            prompt=ids[0],
            ends=end_ids(params, self._eos_ids),
            tokens=ids[1],
        )
        lists = place.id_lists
        for name, values in lists.items():
            if len(values) > self._lists.get(name, 0):
                field = "logit_bias" if name.startswith("bias") else name
                most = self._lists.get(name, 0)
                raise ValueError(f"params.{field}: expected at most max_ids = {most} ids, got {len(values)}")
        if None not in self.requests:
            raise ValueError(f"params: expected at most max_batch = {len(self.requests)} requests at a time")

        slot = self.requests.index(None)
        self.requests[slot] = params
        for name in NUMBERS:
            getattr(self, name)[slot] = getattr(params, name)
        self.get_buffer("seed")[slot] = place.seed
        self.position[slot] = place.position
        for name, length in self._lists.items():
            tensor = getattr(self, name)
            tensor[slot] = torch.tensor(padded(name, lists[name], length), dtype=tensor.dtype)
        # The history of a row that reads none stays empty, so that its length has no bound.
        prompt_length, length = (len(ids[0]), place.position) if params.reads_history else (0, 0)
        self._tokens[slot, :length] = torch.tensor((ids[0] + ids[1])[:length], dtype=torch.int32)
        self._prompt_length[slot] = prompt_length
        self._history_length[slot] = length
        self._reads_history[slot] = params.reads_history
        return slot

    def remove(self, slot: int) -> None:
        """Empty a slot: its row draws -1 until another request has it."""
        self._check_slot("slot", slot)
        self.requests[slot] = None
        self._empty(slot, slot + 1)

    def reorder(self, slots: Sequence[int]) -> None:
        """Move the requests in ``slots`` to slots 0, 1, ..., and remove all others."""
        for slot in slots:
            self._check_slot("slots", slot)
        if len(set(slots)) < len(slots):
            raise ValueError(f"slots: expected different ones, got {list(slots)}")
        index = torch.tensor(list(slots), dtype=torch.int64, device=self.position.device)
        for tensor in self.buffers(recurse=False):
            tensor[: len(slots)] = tensor[index]
        requests = [self.requests[slot] for slot in slots]
        self.requests = requests + [None] * (len(self.requests) - len(slots))
        self._empty(len(slots))

    def compact(self) -> list[int]:
        """Close the gaps, and return the slots that were in use: the request of the i-th of them is in slot i now."""
        slots = self.slots
        self.reorder(slots)
        return slots

    def forward(self, logits: Tensor, positions: Tensor | None = None, **more: Any) -> Tensor:
        """The next token of each slot, int64 [B]; -1 where a slot is empty or nothing can be drawn.

        ``logits`` are [B, V], float32, float16 or bfloat16, those of slots 0 .. B - 1; B <= max_batch. ``positions``,
        int64 [B], are the places in the sequences that the tokens will have; by default each draw takes the one after
        the last. ``more`` goes to `warpdraw.sample`: ``bitmask`` and the buffers or reports that `draw` returns.
        """
        tokens: Tensor = self.draw(logits, positions, **more).tokens
        return tokens

    def draw(self, logits: Tensor, positions: Tensor | None = None, **more: Any) -> Any:
        """The same as a call, but returns what `warpdraw.sample` does: also ``valid`` and the reports asked for."""
        if logits.ndim != 2 or logits.shape[0] > len(self.requests) or logits.shape[1] != self._vocabulary.padded:
            allowed = f"[B, {self._vocabulary.padded}] with B <= max_batch = {len(self.requests)}"
            raise ValueError(f"logits: expected shape {allowed}, got {list(logits.shape)}")
        inputs, history = self._rows(logits.shape[0])
        if positions is None:
            drawn = sample(logits, **inputs, **more, order=self._order)
            inputs["position"].add_(1)
        else:
            drawn = sample(logits, **{**inputs, "position": positions}, **more, order=self._order)
            inputs["position"].copy_(positions + 1)
        if history is not None:
            tokens, length, reads = history
            append(tokens, length, drawn.tokens, reads & (drawn.tokens != -1))
        return drawn

    def _rows(self, count: int) -> tuple[dict[str, Any], tuple[Tensor, Tensor, Tensor] | None]:
        """The tensors of the first slots: what `sample` reads, and the history that grows."""
        # Cutting so many costs more than some draws do.
        if not torch.compiler.is_compiling() and count in self._views:
            return self._views[count]
        inputs: dict[str, Any] = {name: getattr(self, name)[:count] for name in self._names}
        if self._vocabulary.size < self._vocabulary.padded:
            inputs["vocab_size"] = self._vocabulary.size
        history = None
        if self._max_length:
            tokens, length = self._tokens[:count], self._history_length[:count]
            history = tokens, length, self._reads_history[:count]
            inputs |= {"history": tokens[:, : self._max_length], "history_length": length}
            inputs["prompt_length"] = self._prompt_length[:count]
        if not torch.compiler.is_compiling():
            self._views[count] = inputs, history
        return inputs, history

    def _empty(self, start: int, end: int | None = None) -> None:
        """Make rows invalid: a temperature that is no number does so, whatever else a slot holds."""
        self.temperature[start:end] = torch.nan

    def _check_slot(self, name: str, slot: int) -> None:
        if type(slot) is not int:
            raise TypeError(f"{name}: expected slots that hold a request, got {slot!r}")
        if slot not in self.slots:
            raise ValueError(f"{name}: expected slots that hold a request, which are {self.slots}, got {slot}")

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._views.clear()
        # Follow a module to its device, but not to its dtype: half the bits of a temperature draw other tokens.
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse)  # type: ignore[no-untyped-call]


def _as_ids(name: str, ids: Sequence[int] | Tensor, vocab_size: int) -> list[int]:
    if isinstance(ids, Tensor) and ids.ndim == 1:
        ids = ids.tolist()
    if isinstance(ids, str) or not isinstance(ids, Sequence):
        raise TypeError(f"{name}: expected a list or a tensor of one dimension of token ids, got {ids!r}")
    check_ids(name, ids, 0, vocab_size)
    return list(ids)
