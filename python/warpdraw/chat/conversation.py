"""Conversation: the messages between a user and a model, checked as they come, and kept in a JSON file if asked to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Message:
    """One message: who says what, and whether it is an answer that was stopped before its end.

    Raises TypeError or ValueError for another role than "system", "user" and "assistant", and for what is no text.

    >>> Message("user", "The sky is")
    Message(role='user', content='The sky is', stopped=False)
    """

    role: str
    content: str
    stopped: bool = False

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"role: expected one of {', '.join(ROLES)}, got {self.role!r}")
        if not isinstance(self.content, str):
            raise TypeError(f"content: expected text, got {self.content!r}")
        if any("\ud800" <= character <= "\udfff" for character in self.content):
            raise ValueError(f"content: expected text without lone surrogates, got {self.content!r}")
        if not isinstance(self.stopped, bool):
            raise TypeError(f"stopped: expected True or False, got {self.stopped!r}")

    @property
    def document(self) -> dict[str, Any]:
        """The message for JSON; `stopped` only where it is true."""
        return {"role": self.role, "content": self.content} | ({"stopped": True} if self.stopped else {})

    @staticmethod
    def of(document: Any, name: str = "message") -> Message:
        """The message of such a document; errors begin with `name`."""
        if isinstance(document, Message):
            return document
        if not isinstance(document, dict) or not {"role", "content"} <= set(document) <= {"role", "content", "stopped"}:
            raise ValueError(f"{name}: expected an object with role and content, got {_short(document)}")
        try:
            return Message(**document)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}.{error}") from None


class Conversation:
    """The messages of a conversation, in order. Which roles may follow each other is the template's matter.

    >>> conversation = Conversation([{"role": "user", "content": "The sky is"}])
    >>> conversation.add("assistant", "blue.")
    >>> conversation.system = "It rains."
    >>> [message.role for message in conversation]
    ['system', 'user', 'assistant']
    >>> [message.content for message in conversation.undo()]
    ['The sky is', 'blue.']
    """

    def __init__(self, messages: Iterable[Message | dict[str, Any]] = ()) -> None:
        self.messages = [Message.of(message, f"messages[{at}]") for at, message in enumerate(messages)]

    def __len__(self) -> int:
        return len(self.messages)

    def __iter__(self) -> Iterator[Message]:
        return iter(self.messages)

    @property
    def system(self) -> str | None:
        """The system prompt: the first message, if its role is "system"; None takes it away."""
        first = self.messages[:1]
        return first[0].content if first and first[0].role == "system" else None

    @system.setter
    def system(self, text: str | None) -> None:
        new = [] if text is None else [Message("system", text)]
        self.messages[: 0 if self.system is None else 1] = new

    @property
    def turn(self) -> int:
        """How many questions there are: the number, from 0, of the next answer."""
        return sum(message.role == "user" for message in self.messages)

    def add(self, role: str, content: str, stopped: bool = False) -> None:
        """Add a message."""
        self.messages.append(Message(role, content, stopped))

    def undo(self) -> list[Message]:
        """Take back the last question and what came after it; returns them, or nothing where there is no question."""
        starts = [at for at, message in enumerate(self.messages) if message.role == "user"]
        if not starts:
            return []
        taken = self.messages[starts[-1] :]
        del self.messages[starts[-1] :]
        return taken

    def save(self, path: str | Path) -> None:
        """Write the messages as a JSON list. The file is there whole or, after an error, as it was before."""
        path = Path(path)
        text = json.dumps([message.document for message in self.messages], ensure_ascii=False, indent=2) + "\n"
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            beside.write_text(text, encoding="utf-8")
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> Conversation:
        """Read a JSON list of messages, or an object that has one under "messages"; ValueError for anything else."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (RecursionError, ValueError) as error:
            raise ValueError(f"{path}: expected JSON: {error}") from None
        if isinstance(content, dict):
            content = content.get("messages")
        if not isinstance(content, list):
            raise ValueError(f"{path}: expected a list of messages, got {_short(content)}")
        try:
            return cls(content)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
