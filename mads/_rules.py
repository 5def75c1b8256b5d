"""What a name, a conversation id and a text must be, each refused with one sentence."""

import re

from madlog.mads.errors import InvalidTurn, TurnTooLarge
from madlog.schemas import NAME_PATTERN

__all__ = (
    "CONVERSATION_ID_MAX",
    "TEXT_BYTES_MAX",
    "checked_id",
    "checked_name",
    "checked_text",
    "is_name",
)

CONVERSATION_ID_MAX = 256
TEXT_BYTES_MAX = 1 << 20

_NAME = re.compile(NAME_PATTERN.strip("^$"))
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def is_name(text: str) -> bool:
    """Say whether a text can be a participant's name."""
    return _NAME.fullmatch(text) is not None


def checked_name(name: str) -> str:
    """Return a participant's name as it is; raises InvalidTurn."""
    if not isinstance(name, str) or not is_name(name):
        raise InvalidTurn(
            f"{str(name)[:80]!r} is not a participant's name: begin with a-z, then at most 62 of "
            "a-z, 0-9 and -"
        )
    return name


def checked_id(conversation_id: str) -> str:
    """Return a conversation id as it is; raises InvalidTurn."""
    if not isinstance(conversation_id, str) or not conversation_id:
        raise InvalidTurn("the conversation id is empty: give it 1 to 256 characters")
    if len(conversation_id) > CONVERSATION_ID_MAX:
        raise InvalidTurn(
            f"the conversation id {conversation_id[:40]!r}… has {len(conversation_id)} characters: "
            f"use at most {CONVERSATION_ID_MAX}"
        )
    if found := _CONTROL.search(conversation_id):
        raise InvalidTurn(
            f"the conversation id {conversation_id[:40]!r} holds the control character "
            f"U+{ord(found[0]):04X}: use printable characters only"
        )
    try:
        conversation_id.encode()
    except UnicodeEncodeError as error:
        raise InvalidTurn("the conversation id is not valid Unicode: send UTF-8") from error
    return conversation_id


def checked_text(text: str, bytes_max: int = TEXT_BYTES_MAX) -> str:
    """Return a turn's text as it is; raises InvalidTurn, TurnTooLarge."""
    if not isinstance(text, str):
        raise InvalidTurn(f"a turn's text is a string, not {type(text).__name__}")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidTurn(
            f"the text is not valid Unicode at character {error.start}: send UTF-8"
        ) from error
    if size > bytes_max:
        raise TurnTooLarge(
            f"the text has {size:,} bytes and a turn at most {bytes_max:,}: store the content as "
            "a blob and say its address in a part (content_class 'fixed': uri, sha256, size)"
        )
    if "\x00" in text:
        raise InvalidTurn(
            f"the text holds a NUL at character {text.index(chr(0))}: remove it, or send the "
            "content by reference"
        )
    return text
