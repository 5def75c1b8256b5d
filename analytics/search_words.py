"""What a person looks for, read into an expression of SQLite's FTS5.

    refund late          both words
    "arrived broken"     a phrase
    refund*              words that begin so
    refund OR credit     either; OR binds less than words that stand together
    refund -late         without that word; so does NOT late

Nothing else has a meaning: what is neither letter nor digit parts words, as in the texts.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from madlog.analytics.errors import BadSearch

__all__ = ("CHARACTERS_MAX", "TERMS_MAX", "expression")

CHARACTERS_MAX = 1_000
TERMS_MAX = 32

_TERM = re.compile(r'\s*(?P<not>-?)(?:"(?P<phrase>[^"]*)"(?P<more>\*?)|(?P<word>[^\s"]+))')

Tokens = Callable[[str], Sequence[str]]


@dataclass(slots=True)
class _Group:
    """Terms that stand together: all of `wanted`, none of `unwanted`."""

    wanted: list[str] = field(default_factory=list)
    unwanted: list[str] = field(default_factory=list)

    def written(self) -> str:
        found = " AND ".join(self.wanted)
        return f"(({found}) NOT ({' OR '.join(self.unwanted)}))" if self.unwanted else f"({found})"


def expression(text: str, tokens: Tokens) -> str:
    """Return the expression of what is looked for; `tokens` parts a text as the index does.

    Raises BadSearch.
    """
    _check(text)
    groups, count = [_Group()], 0
    negated = False
    for match in _TERM.finditer(text.rstrip()):
        said = match["word"]
        if said == "OR":
            groups.append(_Group())
            continue
        if said in ("AND", "NOT"):
            negated = negated or said == "NOT"
            continue
        count += 1
        term = _written(match, tokens)
        if term is not None:
            group = groups[-1]
            (group.unwanted if negated or match["not"] else group.wanted).append(term)
        negated = False
    if count > TERMS_MAX:
        raise BadSearch(
            f"{count} words are looked for, and {TERMS_MAX} is the most: leave some out"
        )
    for group in groups:
        if not group.wanted:
            raise BadSearch(_why(groups, group))
    return " OR ".join(group.written() for group in groups)


def _check(text: str) -> None:
    if len(text) > CHARACTERS_MAX:
        raise BadSearch(
            f"what is looked for has {len(text):,} characters, and {CHARACTERS_MAX:,} is the most: "
            "look for a few words of it"
        )
    if "\x00" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise BadSearch("what is looked for holds a NUL or is not UTF-8: write words")
    if text.count('"') % 2:
        raise BadSearch(
            f"the quote at character {text.rindex(chr(34)) + 1} of {text[:80]!r} is not closed: "
            'write a phrase as "two words"'
        )


def _written(match: re.Match[str], tokens: Tokens) -> str | None:
    """Return a term as FTS5 reads it, None where it has no letter and no digit."""
    said = match["phrase"] if match["word"] is None else match["word"]
    begins = said.endswith("*") if match["word"] is not None else bool(match["more"])
    parts = tokens(said)
    if not parts:
        return None
    # A quote cannot stand in a token: it parts words.
    return f'"{" ".join(parts)}"' + (" *" if begins else "")


def _why(groups: Sequence[_Group], group: _Group) -> str:
    if group.unwanted:
        return (
            f"{group.unwanted[0]} is only to be left out, and nothing says what is to be found: "
            "add a word that turns have"
        )
    if len(groups) > 1:
        return "OR stands between two words or phrases, and one side has none: add it"
    return "nothing with a letter or a digit is looked for: name a word that turns have"
