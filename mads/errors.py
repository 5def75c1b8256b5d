"""Errors of conversations.

MadlogError (madlog.schemas)
└── ConversationError
    ├── NotAParticipant (PermissionError)
    ├── UnknownConversation (LookupError)
    ├── ConversationExists (ValueError)
    └── InvalidTurn (ValueError)          text, name, conversation id or line that breaks a rule
        └── TurnTooLarge
"""

from madlog.schemas import MadlogError

__all__ = (
    "ConversationError",
    "ConversationExists",
    "InvalidTurn",
    "NotAParticipant",
    "TurnTooLarge",
    "UnknownConversation",
)


class ConversationError(MadlogError):
    """The conversation could not do what it was asked to do."""


class NotAParticipant(ConversationError, PermissionError):
    """Only participants speak and are spoken to in a conversation: join it first."""


class UnknownConversation(ConversationError, LookupError):
    """The log holds no conversation of this id: create it first."""


class ConversationExists(ConversationError, ValueError):
    """The log holds a conversation of this id already: open it, or choose another id."""


class InvalidTurn(ConversationError, ValueError):
    """The turn breaks a rule of conversations: correct what the message names."""


class TurnTooLarge(InvalidTurn):
    """The text is over the size limit: store it as a blob and refer to it in a part."""
