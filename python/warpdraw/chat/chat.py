"""Chat: a conversation with a model, whose answers are drawn by `generation` and streamed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ..generation import SamplingParams, Speculation, Stream, stream
from ..generation.params import fresh_seed, sample_seed
from ..model.weights import Checkpoint
from .conversation import Conversation, Message
from .reply import Answer, Prompt, Reply
from .template import ChatTemplate
from .window import fit

MOST_TOKENS = 256
# The samples of a seed that are answers: the attempts at one turn lie this far apart.
ATTEMPTS_APART = 2**32


class Chat:
    """A conversation with a model.

    model         the checkpoint.
    params        how answers are drawn; None is SamplingParams(max_tokens=256), or half of a smaller context. A seed
                  of None draws one at random. `n` has to be 1.
    system        the system prompt.
    draft         what proposes tokens, as in `generate`.
    template      None is the checkpoint's own.
    conversation  messages to go on from; `system` replaces theirs.
    variables     further names that the template reads, such as {"enable_thinking": False}.
    graphs        whether steps run as CUDA graphs, as in `generate`.

    An answer ends at the checkpoint's end-of-text ids, at the tokens that the template writes after an answer
    (unless params.ignore_eos), at params.stop_ids and params.stop. Answer t of a conversation (from 0) in attempt a
    is sample t + 2^32 a of the seed, as `sample_seed` defines it: the same messages, parameters and seed give the
    same answers. Each turn reads the whole prompt anew: the cache of earlier turns is not used again.

    Raises TemplateError where the template is missing or fails on a first question, ValueError and TypeError for
    what `SamplingParams` and `generate` refuse.

    >>> from warpdraw import SamplingParams, load
    >>> chat = Chat(load("tiny-target"), SamplingParams(seed=7))
    >>> "".join(event.text for event in chat.say("The sky is"))
    'blue and the air is warm.'
    >>> [message.role for message in chat.conversation]
    ['user', 'assistant']
    """

    def __init__(
        self,
        model: Checkpoint,
        params: SamplingParams | None = None,
        *,
        system: str | None = None,
        draft: Speculation | Checkpoint | str | None = None,
        template: ChatTemplate | None = None,
        conversation: Conversation | None = None,
        variables: Mapping[str, Any] | None = None,
        graphs: bool | None = None,
    ) -> None:
        self._model, self._draft, self._graphs = model, draft, graphs
        self.template = template or ChatTemplate.load(model)
        self.variables = dict(variables or {})
        self.conversation = Conversation() if conversation is None else conversation
        self.answers: list[Answer] = []  # of this object, in the order they came
        self._turn = self.template.turn(self.variables)
        if params is None:
            params = SamplingParams(max_tokens=default_max_tokens(model))
        if not isinstance(params, SamplingParams):
            raise TypeError(f"params: expected a SamplingParams, got {params!r}")
        seed = fresh_seed() if params.seed is None else params.seed
        self._params = dataclasses.replace(params, seed=seed)
        self.params = self._params
        self.system = self.conversation.system if system is None else system

    @property
    def conversation(self) -> Conversation:
        """The messages so far."""
        return self._conversation

    @conversation.setter
    def conversation(self, conversation: Conversation) -> None:
        if not isinstance(conversation, Conversation):
            raise TypeError(f"conversation: expected a Conversation, got {conversation!r}")
        self._conversation, self._attempt = conversation, 0

    @property
    def params(self) -> SamplingParams:
        """How answers are drawn, the next one on."""
        return self._params

    @params.setter
    def params(self, params: SamplingParams) -> None:
        if not isinstance(params, SamplingParams):
            raise TypeError(f"params: expected a SamplingParams, got {params!r}")
        if params.n != 1:
            raise ValueError(f"params.n: expected 1 in a conversation, got {params.n}")
        if params.seed is None:
            params = dataclasses.replace(params, seed=self._params.seed)
        context = self._model.config.max_positions
        if params.max_tokens >= context:
            raise ValueError(f"max_tokens: expected less than the context of {context}, got {params.max_tokens}")
        # What else `generate` would refuse is refused now.
        self._open([0], dataclasses.replace(params, stop_ids=self._end_ids(params)))
        self._params = params

    @property
    def system(self) -> str | None:
        """The system prompt; one that the template or the context refuses is not taken."""
        return self.conversation.system

    @system.setter
    def system(self, text: str | None) -> None:
        head = [] if text is None else [Message("system", text)]
        self._prompt([*head, Message("user", "a")])
        self.conversation.system = text

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The ids that end an answer."""
        return self._end_ids(self.params)

    def say(self, text: str) -> Reply:
        """Ask, and iterate over the `Event`s of the answer as they come.

        The question and its answer are in the conversation when the answer has ended, or was stopped after some text.
        What is wrong raises here and leaves the conversation as it was: TemplateError, and ValueError for a question
        that does not fit into the context beside the system prompt.
        """
        if not text.strip():
            raise ValueError(f"message: expected some text, got {text!r}")
        reply = self._ask(self.conversation, Message("user", text), 0)
        self._attempt = 0
        return reply

    def retry(self) -> Reply:
        """Ask the last question again: the next attempt at its answer, which takes the place of the last one."""
        before = Conversation(self.conversation)
        taken = before.undo()
        if not taken:
            raise ValueError("retry: expected a question to ask again, got none")
        reply = self._ask(before, taken[0], self._attempt + 1)
        self._attempt += 1
        return reply

    def undo(self) -> list[Message]:
        """Take back the last question and its answer; returns them, or nothing where there is none."""
        self._attempt = 0
        return self.conversation.undo()

    def _ask(self, conversation: Conversation, question: Message, attempt: int) -> Reply:
        before = list(conversation)
        prompt = self._prompt([*before, question], conversation.turn, attempt)
        params = dataclasses.replace(self.params, seed=prompt.seed, stop_ids=self.end_ids)

        def done(answer: Answer) -> None:
            self.answers.append(answer)
            stopped = answer.finish_reason in ("stopped", "error")
            if answer.text or not stopped:
                said = Message("assistant", answer.text, stopped)
                self.conversation.messages = [*before, question, said]

        return Reply(self._open(prompt.ids, params), prompt, done)

    def _open(self, ids: list[int], params: SamplingParams) -> Stream:
        return stream(self._model, [ids], params, draft=self._draft, graphs=self._graphs)

    def _end_ids(self, params: SamplingParams) -> tuple[int, ...]:
        ends = () if params.ignore_eos else (*self._model.eos_ids, *self._turn.ends)
        return tuple(sorted({*params.stop_ids, *ends}))

    def _prompt(self, messages: Sequence[Message], turn: int = 0, attempt: int = 0) -> Prompt:
        """What the model reads before its answer to these messages."""

        def encode(kept: Sequence[Message]) -> list[int]:
            return self.template.encode(kept, add_generation_prompt=True, variables=self.variables)

        window = fit(messages, encode, self._model.config.max_positions, self.params.max_tokens)
        assert self.params.seed is not None
        seed = sample_seed(self.params.seed, turn + attempt * ATTEMPTS_APART)
        return Prompt(window.ids, seed, turn, attempt, self._turn.space, window.dropped)


def default_max_tokens(model: Checkpoint) -> int:
    """The most tokens of an answer where nobody says: 256, or half of a smaller context."""
    return max(1, min(MOST_TOKENS, model.config.max_positions // 2))
