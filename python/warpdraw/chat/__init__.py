"""Conversations with a checkpoint: its chat template, the messages, and answers that stream."""

from .chat import Chat
from .conversation import Conversation, Message
from .reply import Answer, Reply
from .template import ChatTemplate, TemplateError

__all__ = ["Answer", "Chat", "ChatTemplate", "Conversation", "Message", "Reply", "TemplateError"]
