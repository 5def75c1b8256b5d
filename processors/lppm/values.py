"""Values in words and in answers: tokens, dates, shapes, paths, and their canonical form."""

import json
import re
from collections.abc import Iterator, Mapping
from json.encoder import encode_basestring
from typing import Any

__all__ = ("canonical", "dates", "flattened", "is_shape", "shapes", "tokens", "year_of")

# An answer beyond this is read as far as this: paths of longer lists repeat those before.
_VALUES_MAX = 2_000
_DEPTH_MAX = 8
_TOKEN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_@+:/.-]*[A-Za-z0-9])?")
_YEAR = re.compile(r"(?<!\d)((?:19|20)\d\d)-\d\d-\d\d(?!\d)")
_RUN = re.compile(r"[a-z]+|[A-Z]+|[0-9]+|[^A-Za-z0-9]")
# One run after another of the same kind could be cut in many ways, hence no such two.
_SHAPE = re.compile(
    r"(?!.*(\[a-z\]\+|\[A-Z\]\+|\\d\+)\1)"
    r"(?:(?:\[a-z\]|\[A-Z\]|\\d)(?:\+|\{\d{1,4}\})|\[A-Z0-9\]\{\d{1,4}\}"
    r"|\\[^A-Za-z0-9]|[^A-Za-z0-9\\\[\](){}*+?|.^$])+"
)
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_MONTH = rf"({'|'.join(_MONTHS)})[a-z]*\.?"
_DAY = r"(\d{1,2})(?:st|nd|rd|th)?"
_SPELT = re.compile(rf"\b(?:{_MONTH}\s+{_DAY}|{_DAY}\s+(?:of\s+)?{_MONTH})\b(?:,?\s+(\d{{4}}))?")


# Made once: json.dumps makes a new encoder at each call.
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode
# How Python writes a float without a fraction: 330.0, 1e+16. Texts may look like it too.
_MAY_BE_WHOLE = re.compile(r"\d(?:\.0|e)")


def canonical(value: Any) -> str:
    """Return the one JSON text of a value; JSON has one kind of number, so 330.0 is 330."""
    if type(value) is str:
        return encode_basestring(value)
    text = _encode(value)
    return _encode(_whole(value)) if _MAY_BE_WHOLE.search(text) else text


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list | tuple) else value


def tokens(text: str) -> tuple[str, ...]:
    """Return the words, numbers and ids of a text in order."""
    return tuple(_TOKEN.findall(text))


def dates(text: str, year: str | None) -> list[str]:
    """Return the dates that a text spells with a month's name, as YYYY-MM-DD, in order.

    `year` stands in where the text names none.
    """
    found = []
    for match in _SPELT.finditer(text.lower()):
        month, day = match[1] or match[4], match[2] or match[3]
        if match[5] or year:
            number = _MONTHS.index(month) + 1
            found.append(f"{match[5] or year}-{number:02d}-{int(day):02d}")
    return found


def year_of(text: str) -> str | None:
    """Return the newest year that the full dates of a text name."""
    return max(_YEAR.findall(text), default=None)


def shapes(token: str) -> tuple[str, ...]:
    """Return what a token looks like, as regular expressions from loose to close.

    Runs of one kind of character are generalised, to any length and to their own; an id that
    mixes capitals and digits is one run.
    """
    loose, close = [], []
    for run in _RUN.findall(token):
        kind = _kind(run)
        loose.append(kind + "+" if kind else re.escape(run))
        close.append(f"{kind}{{{len(run)}}}" if kind else re.escape(run))
    found = ["".join(loose), "".join(close)]
    if token.isalnum() and token.isascii() and token == token.upper():
        found.append(f"[A-Z0-9]{{{len(token)}}}")
    return tuple(dict.fromkeys(found))


def is_shape(text: str) -> bool:
    """Say whether a text is a shape: no other expression is run, since one can take for ever."""
    return _SHAPE.fullmatch(text) is not None


def _kind(run: str) -> str:
    if run.isascii() and run.islower():
        return "[a-z]"
    if run.isascii() and run.isupper():
        return "[A-Z]"
    return r"\d" if run.isascii() and run.isdigit() else ""


def flattened(value: Any) -> dict[str, list[Any]]:
    """Return the values of a JSON value by path, each path's in their order."""
    found: dict[str, list[Any]] = {}
    for count, (path, one) in enumerate(_walk(value, "$", 0)):
        if count == _VALUES_MAX:
            break
        found.setdefault(path, []).append(one)
    return found


def _walk(value: Any, path: str, depth: int) -> Iterator[tuple[str, Any]]:
    yield path, value
    if depth == _DEPTH_MAX:
        return
    if isinstance(value, dict):
        for key, one in value.items():
            # A key that holds a digit is data, such as the id of what stands under it.
            name = "*" if any(map(str.isdigit, key)) else key
            if name == "*":
                yield f"{path}.*~", key
            yield from _walk(one, f"{path}.{name}", depth + 1)
    elif isinstance(value, list):
        for one in value:
            yield from _walk(one, f"{path}[*]", depth + 1)
