"""Phrases with places for values, parsed once each: the script says thousands of turns a second.

A phrase is parsed with a marker word in each place, which the values then take in every part, so
that a turn's parts are what parsing its text gives (a test compares them).
"""

from collections.abc import Sequence
from functools import lru_cache
from string import Formatter
from typing import Any, NamedTuple

from madlog.schemas.text import parse

__all__ = ("Spoken", "speak")


class Spoken(NamedTuple):
    """What was said, in the fields of a turn."""

    parts: list[dict[str, Any]]
    mentions: tuple[str, ...]
    tags: tuple[str, ...]
    size: int


class _Phrase(NamedTuple):
    parts: tuple[tuple[str, dict[str, Any]], ...]
    mentions: tuple[str, ...]
    tags: tuple[str, ...]


# Values are of two looks, so their markers are too; a parser classes them alike.
_NUMBERS = frozenset({"order", "amount", "days", "count", "ms", "cost"})


def _marker(name: str) -> str:
    return f"7{sum(map(ord, name)):05d}7" if name in _NUMBERS else f"zq{name}qz"


@lru_cache(maxsize=512)
def _phrase(template: str) -> _Phrase:
    names = sorted({name for _, name, _, _ in Formatter().parse(template) if name})
    parsed = parse(template.format(**{name: _marker(name) for name in names}))
    parts = []
    for part in parsed.parts:
        text = (part.text or "").replace("{", "{{").replace("}", "}}")
        for name in names:
            text = text.replace(_marker(name), f"{{{name}}}")
        parts.append((text, dict(part.__dict__)))
    return _Phrase(tuple(parts), tuple(parsed.mentions), tuple(parsed.tags))


def speak(template: str, values: dict[str, str], files: Sequence[dict[str, Any]] = ()) -> Spoken:
    """Return a phrase with its values, and files by reference after it."""
    phrase = _phrase(template)
    parts = [{**fields, "text": text.format_map(values)} for text, fields in phrase.parts]
    size = sum(len(part["text"]) for part in parts)
    return Spoken([*parts, *files], phrase.mentions, phrase.tags, size)
