"""Reply: one answer while it streams, and the record of it at its end."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..generation import Completion, Event, Stream


@dataclass(frozen=True)
class Answer:
    """One answer.

    text           what the model said, without the white space that the template writes before an answer.
    finish_reason  as of a Completion, or "stopped" where it was stopped before its end.
    stop           the stop string, stop id or end token that ended it.
    seed           of its draws: `generate` with it and the same prompt and parameters gives the same text.
    turn, attempt  the number of the answer in the conversation and of the retry, from 0.
    prompt_tokens  how many tokens the model read: system prompt, earlier messages and question, in the template.
    dropped        the indices of the earlier messages that were left out, because they do not fit the context.
    error          what went wrong, where finish_reason is "error".
    """

    text: str
    finish_reason: str
    stop: str | int | None
    seed: int
    turn: int
    attempt: int
    prompt_tokens: int
    completion_tokens: int
    dropped: tuple[int, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Prompt:
    """What is known of an answer before it begins."""

    ids: list[int]
    seed: int
    turn: int
    attempt: int
    space: str  # what the template writes before an answer
    dropped: tuple[int, ...]


class Reply(Iterator[Event]):
    """The events of one answer; their texts together are the answer's. At the end `answer` is its record.

    `stop` ends it earlier, and keeps what came.
    """

    def __init__(self, events: Stream, prompt: Prompt, done: Callable[[Answer], None]) -> None:
        self.prompt = prompt
        self.answer: Answer | None = None
        self._events, self._done = events, done
        self._pieces: list[str] = []
        self._tokens = 0
        self._space = prompt.space  # what of it has not come yet

    @property
    def text(self) -> str:
        """What has come so far."""
        return "".join(self._pieces)

    def __next__(self) -> Event:
        if self.answer is not None:
            raise StopIteration
        event = next(self._events)
        piece = self._after_space(event.text, event.completion is not None)
        self._pieces.append(piece)
        self._tokens += len(event.token_ids)
        if event.completion is not None:
            self._finish(event.completion)
        return dataclasses.replace(event, text=piece)

    def run(self) -> Answer:
        """Draw the answer to its end."""
        for _ in self:
            pass
        assert self.answer is not None
        return self.answer

    def stop(self) -> Answer:
        """End the answer here, if it has not ended; its text is what has come."""
        if self.answer is None:
            self._end("stopped", None, self._tokens, None)
        assert self.answer is not None
        return self.answer

    def _finish(self, completion: Completion) -> None:
        self._end(completion.finish_reason, completion.stop, completion.completion_tokens, completion.error)

    def _end(self, reason: str, stop: str | int | None, tokens: int, error: str | None) -> None:
        prompt = self.prompt
        self.answer = Answer(
            text=self.text,
            finish_reason=reason,
            stop=stop,
            seed=prompt.seed,
            turn=prompt.turn,
            attempt=prompt.attempt,
            prompt_tokens=len(prompt.ids),
            completion_tokens=tokens,
            dropped=prompt.dropped,
            error=error,
        )
        self._done(self.answer)

    def _after_space(self, piece: str, last: bool) -> str:
        """A piece without the template's white space, in whichever pieces that comes."""
        while piece and self._space and piece[0] == self._space[0]:
            piece, self._space = piece[1:], self._space[1:]
        if piece or last:
            self._space = ""
        return piece
