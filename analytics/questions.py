"""Questions with names: files of one SELECT each, with typed parameters, in analytics/sql.

A file begins with `-- one sentence.`, then comes `-- group NAME`, one of `GROUPS`, then
`-- param NAME: TYPE = DEFAULT` lines (no default: it must be given; a time or number `any`: NULL).
`-- reads one conversation` says that nothing outside `$conversation` matters, so that the other
conversations need not be decoded. The conversation `latest` is the one that was appended to last.
`-- waits for KINDS events` names what no program writes yet; until then there is nothing to show.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import SequenceMatcher
from functools import cache
from importlib import resources
from typing import Any

from madlog.analytics.as_of import parse_time
from madlog.analytics.conversation_view import NoConversation, latest_conversation
from madlog.analytics.errors import BadParameter, UnknownEvent, UnknownQuestion
from madlog.analytics.prices import NO_PRICES, PriceList
from madlog.analytics.sql import MEMORY_LIMIT, Result, query
from madlog.analytics.tables import LogSource, Source
from madlog.topics import EventLog, Vector
from madlog.topics.log import OnDamage, log_damage

__all__ = (
    "GROUPS",
    "Parameter",
    "Question",
    "ask",
    "nearest",
    "question",
    "questions",
)

_PARAM = re.compile(
    r"-- param ([a-z_]+): (text|integer|number|boolean|time|one of [a-z, ]+?)(?: = (.*))?"
)
# More than anybody counts, and so little that no sum of days or seconds with it overflows.
_COUNT_MAX = 1_000_000
_ONE_OF = "one of "
_ONE = "-- reads one conversation"
_GROUP = "-- group "
_WAITS = "-- waits for "
# In the order in which they are listed.
GROUPS = ("conversations", "agents", "routing", "learning", "cost", "faults", "security", "proof")
_WORD = re.compile(r"[a-z]+")
# Words that say nothing about a question, and how many letters of the others are compared: approved
# and approvals are of one stem.
_COMMON = re.compile(
    r"an?|the|of|in|on|to|by|and|or|i|its?|was|is|are|were|be|who|what|which|how|why|when|where|each"
    r"|that|this|there|for|with|from|did|do|does|has|have|had|one"
)
_STEM = 5


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a question; without a default it must be given."""

    name: str
    type: str
    default: str | None

    def value(self, text: str) -> Any:
        """Return the value that a text stands for; raises BadParameter."""
        if self.type.startswith(_ONE_OF):
            if text.strip() not in self.type.removeprefix(_ONE_OF).split(", "):
                raise BadParameter(f"{self.name}={text[:80]!r} is not {self.type}")
            return text.strip()
        read, what = _TYPES[self.type]
        try:
            return read(text.strip())
        except ValueError as error:
            raise BadParameter(f"{self.name}={text[:80]!r} is not {what}") from error


@dataclass(frozen=True, slots=True)
class Question:
    """A named question: what it answers in one sentence, its parameters, its SELECT.

    `waits_for` names the events without which it has nothing to show, and that nobody writes yet.
    """

    name: str
    sentence: str
    group: str
    parameters: tuple[Parameter, ...]
    sql: str
    one_conversation: bool
    waits_for: str | None = None


def _boolean(text: str) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in words:
        raise ValueError(text)
    return words[text.lower()]


def _moment(text: str) -> datetime | None:
    if text == "any":
        return None
    # The views' times have no zone and are UTC.
    return datetime.fromtimestamp(parse_time(text) / 1_000_000, UTC).replace(tzinfo=None)


def _text(text: str) -> str:
    if not text:
        raise ValueError(text)
    return text


def _count(text: str) -> int:
    if not 0 <= int(text) <= _COUNT_MAX:
        raise ValueError(text)
    return int(text)


def _number(text: str) -> float | None:
    if text == "any":
        return None
    if not math.isfinite(float(text)):
        raise ValueError(text)
    return float(text)


# How a text of each type is read, and what it must be.
_TYPES: dict[str, tuple[Callable[[str], Any], str]] = {
    "text": (_text, "a text of at least one letter"),
    "integer": (_count, f"a whole number from 0 to {_COUNT_MAX:,}"),
    "number": (_number, "a number"),
    "boolean": (_boolean, "true or false"),
    "time": (_moment, "a time: write it as 2026-11-24T12:00:00, in UTC, or `any`"),
}


def _parse(name: str, text: str) -> Question:
    lines = text.splitlines()
    matches = [match for line in lines[1:] if (match := _PARAM.fullmatch(line))]
    return Question(
        name,
        lines[0].removeprefix("-- "),
        _after(_GROUP, lines) or "",
        tuple(Parameter(match[1], match[2], match[3]) for match in matches),
        text,
        _ONE in lines,
        _after(_WAITS, lines),
    )


def _after(beginning: str, lines: list[str]) -> str | None:
    found = [line.removeprefix(beginning) for line in lines if line.startswith(beginning)]
    return found[0] if found else None


@cache
def questions() -> Mapping[str, Question]:
    """Return every question by name, in alphabetical order."""
    folder = resources.files("madlog.analytics").joinpath("sql")
    files = [path for path in folder.iterdir() if path.name.endswith(".sql")]
    made = (_parse(path.name[:-4], path.read_text(encoding="utf-8")) for path in files)
    return {question.name: question for question in sorted(made, key=lambda made: made.name)}


def nearest(text: str, count: int = 3) -> list[Question]:
    """Return the questions nearest to a free text, best first: by shared words, then spelling."""
    words = _stems(text)

    def score(question: Question) -> tuple[float, float]:
        names, told = _stems(question.name), _stems(question.sentence)
        spelling = SequenceMatcher(None, text.lower(), question.name).ratio()
        return 3 * len(words & names) + len(words & told) + 2 * spelling, spelling

    return sorted(questions().values(), key=score, reverse=True)[:count]


def _stems(text: str) -> set[str]:
    words = _WORD.findall(text.lower())
    return {word.removesuffix("s")[:_STEM] for word in words if not _COMMON.fullmatch(word)}


def question(name: str) -> Question:
    """Return the question of that name; raises UnknownQuestion, which offers the nearest."""
    found = questions().get(name)
    if found is None:
        offers = ", ".join(near.name for near in nearest(name))
        raise UnknownQuestion(
            f"there is no question {name[:80]!r}; the nearest are {offers} (`madlog ask` lists all)"
        )
    return found


def _given(asked: Question, given: Mapping[str, str]) -> dict[str, Any]:
    known = {parameter.name: parameter for parameter in asked.parameters}
    unknown = sorted(set(given) - set(known))
    if unknown:
        takes = ", ".join(known) or "no parameters"
        raise BadParameter(f"{asked.name} does not take {unknown[0][:80]!r}: it takes {takes}")
    values = {}
    for name, parameter in known.items():
        text = given.get(name, parameter.default)
        if text is None:
            raise BadParameter(f"{asked.name} needs {name}: give it with -p {name}=VALUE")
        values[name] = parameter.value(text)
    return values


async def ask(
    log: EventLog,
    name: str,
    params: Mapping[str, str] | None = None,
    *,
    as_of: Vector | None = None,
    memory_limit: str = MEMORY_LIMIT,
    on_damage: OnDamage = log_damage,
    prices: PriceList = NO_PRICES,
    source: Source | None = None,
) -> Result:
    """Answer a named question from the log up to `as_of`, by default its end now.

    `source` gives the tables of a caller who has them already.

    Raises UnknownQuestion, BadParameter, NoConversation, UnknownEvent.
    """
    asked = question(name)
    values = _given(asked, params or {})
    one: str | None = None
    if "conversation" in values:
        if values["conversation"] == "latest":
            values["conversation"] = await latest_conversation(log, as_of, on_damage=on_damage)
        one = str(values["conversation"]) if asked.one_conversation else None
    source = source or LogSource(log, conversation=one, on_damage=on_damage)
    result = await query(
        log,
        asked.sql,
        as_of=as_of,
        memory_limit=memory_limit,
        parameters=values,
        source=source,
        prices=prices,
    )
    if one is not None and result.table.num_rows == 0:
        await _require(log, one, as_of, source)
    if "event" in values and result.table.num_rows == 0:
        raise UnknownEvent(
            f"the log holds no event {values['event'][:80]!r}: name one by its event_id, as "
            '`madlog sql "select event_id from events"` shows them'
        )
    return result


async def _require(log: EventLog, name: str, at: Vector | None, source: Source) -> None:
    sql = "SELECT 1 FROM conversations WHERE conversation_id = $name"
    found = await query(log, sql, as_of=at, parameters={"name": name}, source=source)
    if found.table.num_rows == 0:
        raise NoConversation(
            f"the log holds no conversation {name[:80]!r}: "
            '`madlog sql "select conversation_id from conversations"` lists them'
        )
