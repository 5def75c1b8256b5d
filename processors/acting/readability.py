"""The constitution: what holds whatever anybody has learned, decided or configured.

Its first article is that traffic can be read by people: no text and no argument may hide content
or be noise to a reader. Each rule is a predicate over one text; nothing switches them off.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ("CONSTITUTION", "Article", "broken")

_JOINERS = "\u200c\u200d"
# What shows nothing, or shows text in another order than it stands in: soft hyphen, Arabic letter
# mark, Hangul fillers, zero-width space, direction marks and overrides, word joiner, invisible
# operators, BOM, interlinear annotation, variation selectors of the supplement.
_HIDDEN = re.compile(
    "[\u00ad\u061c\u115f\u1160\u3164\uffa0\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\U000e0100-\U000e01ef]"
)
_TAGS = re.compile("[\U000e0000-\U000e007f]")
# A flag of a region: the one place where tag characters are seen.
_FLAG = re.compile("\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{1,6}\U000e007f")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
# No word of a language written in Latin letters is that long, and no digest in hexadecimal.
_RUN_MAX = 128
_RUN = re.compile(rf"[A-Za-z0-9+/=_-]{{{_RUN_MAX // 2},}}")
_SOLID = re.compile(rf"[A-Za-z0-9]{{{_RUN_MAX + 1},}}")
_LOST = "\ufffd"
_LOST_MIN, _LOST_SHARE = 2, 50


@dataclass(frozen=True, slots=True)
class Article:
    """One rule: `broken` says in words how a text breaks it, None where it does not."""

    name: str
    meaning: str
    broken: Callable[[str], str | None]


def _hidden(text: str) -> str | None:
    if text.isascii() and text.isprintable():
        return None
    if match := _CONTROL.search(text):
        return f"there is a control character, U+{ord(match[0]):04X}"
    if match := _HIDDEN.search(text):
        return f"there is an invisible character, U+{ord(match[0]):04X}"
    if match := _TAGS.search(_FLAG.sub("", text)):
        return f"there is an invisible character, U+{ord(match[0]):04X}"
    for number, character in enumerate(text):
        if character in _JOINERS and not _joins(text, number):
            return f"there is an invisible character, U+{ord(character):04X}"
        if unicodedata.category(character) == "Co":
            return f"there is a character with no meaning of its own, U+{ord(character):04X}"
    return None


def _joins(text: str, number: int) -> bool:
    """Tell whether a joiner stands where writing needs one: within a script, within an emoji."""
    before, after = text[number - 1 : number], text[number + 1 : number + 2]
    return bool(before and after) and not (before + after).isascii() and before not in _JOINERS


def _encoded(text: str) -> str | None:
    if match := _SOLID.search(text):
        return f"{len(match[0])} letters and digits stand without a break"
    for match in _RUN.finditer(text):
        if _is_base64(match[0]):
            return f"{len(match[0])} characters look like base64"
    return None


def _is_base64(run: str) -> bool:
    # Encoded bytes mix capitals, small letters and digits evenly; paths and ids do not.
    size = len(run)
    capitals = sum(map(str.isupper, run))
    small = sum(map(str.islower, run))
    digits = sum(map(str.isdigit, run))
    return min(capitals, small) * 5 >= size and digits * 20 >= size


def _undecodable(text: str) -> str | None:
    lost = text.count(_LOST)
    if lost >= _LOST_MIN and lost * _LOST_SHARE >= len(text):
        return f"{lost} of {len(text)} characters could not be decoded"
    return None


CONSTITUTION = (
    Article(
        "readability-hidden",
        "nothing is invisible: no control or zero-width characters, no reversed text",
        _hidden,
    ),
    Article(
        "readability-encoded",
        "nothing is encoded: no base64, no long run without a break; data goes by reference",
        _encoded,
    ),
    Article(
        "readability-undecodable",
        "nothing is noise: what was decoded wrongly says nothing",
        _undecodable,
    ),
)


def broken(text: str, arguments: Any) -> tuple[str, str] | None:
    """Return (article's name, how it is broken) of a text and a JSON value, None where none is."""
    for where, one in (("the text", text), *(("an argument", item) for item in _texts(arguments))):
        for article in CONSTITUTION:
            if (how := article.broken(one)) is not None:
                return article.name, f"in {where} {how}"
    return None


def _texts(value: Any) -> Iterator[str]:
    """Yield each text of a JSON value, names included."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            yield from one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
