"""What a turn's text shows of how the turn before it was taken: thumbs, thanks, questions.

Small closed lists, English where they are words at all. A text that is not in them shows nothing:
a rule that is silent costs a label, one that guesses costs a wrong one.
"""

import hashlib
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

__all__ = ("TurnMarks", "asked_key", "turn_marks")


class TurnMarks(NamedTuple):
    """What one turn shows: `thumb` and `report` are 1 good, -1 bad, 0 neither."""

    thumb: int = 0
    report: int = 0
    ack: bool = False
    health: bool = False
    asks: bool = False
    puzzled: bool = False
    error: bool = False
    ends: bool = False
    asked: bytes | None = None


_MARK = re.compile(r"[@#][A-Za-z][\w-]*[,:.!]?")
# Skin tones and the selector that asks for a coloured picture say nothing here.
_TONES = re.compile("[\U0001f3fb-\U0001f3ff\ufe0f]")
_WORD = re.compile(r"\w+")
_THUMBS = {"👍": 1, "+1": 1, "👎": -1, "-1": -1, "\u22121": -1}
_THANKS = frozenset(
    {
        "ack",
        "ok",
        "okay",
        "thanks",
        "thank you",
        "thanks a lot",
        "thank you very much",
        "got it",
        "great thanks",
        "perfect",
        "perfect thanks",
        "perfect thank you",
        "great thank you",
    }
)
_BARE_MAX = 200
# "yes" twice asks nothing twice; a sentence twice does.
_ASKED_WORDS_MIN = 3


def turn_marks(
    parts: Collection[Mapping[str, Any]], tags: Collection[str], intent: str | None
) -> TurnMarks:
    """Return what a turn shows by its parts, tags and intent."""
    named = {tag.lstrip("#").lower() for tag in tags}
    text = "".join(part["text"] or "" for part in parts)
    prose = "".join(part["text"] or "" for part in parts if part["content_class"] == "prose")
    bare = " ".join(_MARK.sub(" ", text).split()) if len(text) <= _BARE_MAX else ""
    said = " ".join(_WORD.findall(bare.lower()))
    thumb = _THUMBS.get(_TONES.sub("", bare), 0) or ("good" in named) - ("bad" in named)
    ack = "ack" in named or said in _THANKS
    return TurnMarks(
        thumb=thumb,
        report=("done" in named) - ("failed" in named),
        ack=ack,
        health=said == "hru",
        asks=prose.rstrip().endswith(("?", "\uff1f")),
        puzzled=bool(bare) and set(bare) <= {"?", "\uff1f", " "},
        error=intent == "ERROR",
        ends=intent == "TERMINATE",
        asked=None if thumb or ack else asked_key(prose),
    )


def asked_key(prose: str) -> bytes | None:
    """Return a short hash of the words of a prose text, None where they are too few to ask."""
    words = _WORD.findall(_MARK.sub(" ", prose).casefold())
    if len(words) < _ASKED_WORDS_MIN:
        return None
    return hashlib.blake2b(" ".join(words).encode(), digest_size=12).digest()
