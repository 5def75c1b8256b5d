"""Agents and their conversations, and the scripted ecosystem of the demo."""

from madlog.mads.appending import Appended, TurnRequest, append_many, append_turn
from madlog.mads.conversation import Conversation, Conversations, Page, Said
from madlog.mads.ecosystem import Ecosystem
from madlog.mads.errors import (
    ConversationError,
    ConversationExists,
    InvalidTurn,
    NotAParticipant,
    TurnTooLarge,
    UnknownConversation,
)

__all__ = (
    "Appended",
    "Conversation",
    "ConversationError",
    "ConversationExists",
    "Conversations",
    "Ecosystem",
    "InvalidTurn",
    "NotAParticipant",
    "Page",
    "Said",
    "TurnRequest",
    "TurnTooLarge",
    "UnknownConversation",
    "append_many",
    "append_turn",
)
