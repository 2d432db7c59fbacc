"""The window: which messages of a conversation fit into the model's context, the oldest exchanges left out first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .conversation import Message


@dataclass(frozen=True)
class Window:
    """What the model reads: the prompt's token ids, and the indices of the messages that are left out of it."""

    ids: list[int]
    dropped: tuple[int, ...] = ()


def exchanges(messages: Sequence[Message]) -> tuple[int, list[int]]:
    """How many messages at the start are the system prompt, and where each exchange after them begins.

    An exchange is a question and all that comes before the next one.

    >>> exchanges([Message("system", "a"), Message("user", "b"), Message("assistant", "c"), Message("user", "d")])
    (1, [1, 3])
    """
    head = next((at for at, message in enumerate(messages) if message.role != "system"), len(messages))
    return head, [at for at in range(head, len(messages)) if at == head or messages[at].role == "user"]


def fit(
    messages: Sequence[Message], encode: Callable[[Sequence[Message]], list[int]], context: int, max_tokens: int
) -> Window:
    """The prompt of a conversation that leaves room for `max_tokens` in a context.

    Where all messages do not fit, the oldest exchanges are left out, as few as will do; the system prompt and the
    last exchange never are. Raises ValueError with the figures where these two alone do not fit.

    >>> said = [Message(role, "a" * 4) for role in ("system", "user", "assistant", "user")]
    >>> fit(said, lambda kept: [0] * sum(len(message.content) for message in kept), context=12, max_tokens=2).dropped
    (1, 2)
    """
    room = context - max_tokens
    head, starts = exchanges(messages)

    def without(count: int) -> list[int]:
        """The prompt without the first exchanges."""
        first = starts[count] if starts else head
        return encode([*messages[:head], *messages[first:]])

    ids = without(0)
    if len(ids) <= room:
        return Window(ids)

    # fits(count) is false at `fails` and true at `does`: between them it changes.
    fails, does = 0, max(0, len(starts) - 1)
    ids = without(does)
    if len(ids) > room:
        with_system = " with the system prompt" if head else ""
        raise ValueError(
            f"message: expected at most {max(0, room)} tokens{with_system} in the template "
            f"(context {context}, less max_tokens {max_tokens}), got {len(ids)}"
        )
    while does - fails > 1:
        middle = (fails + does) // 2
        shorter = without(middle)
        if len(shorter) <= room:
            does, ids = middle, shorter
        else:
            fails = middle
    return Window(ids, tuple(range(head, starts[does])))
