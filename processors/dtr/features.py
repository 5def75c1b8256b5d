"""What the decision tree sees of a turn: its structure, its markers, its conversation's past.

Never the words of its prose. The one name it sees is the verb of a command, because a command's
form is fixed. All are integers (flags 0 or 1, -1 for "not known") or category names, so a decision
is the same on every machine.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from madlog.processors.errors import InvalidFeatures
from madlog.schemas.text import SHORTHAND

__all__ = (
    "FEATURES",
    "NO_HISTORY",
    "Feature",
    "check_features",
    "command_verb",
    "turn_features",
)


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature: int features have an order, str features are categories.

    `exact` is False for a size or a count: other values of it can mean the same form of turn.
    """

    name: str
    type: type[int] | type[str]
    meaning: str
    exact: bool = True


# Appending is free; renaming or removing one makes the published trees that use it invalid.
FEATURES: dict[str, Feature] = {
    feature.name: feature
    for feature in (
        Feature("chars", int, "length of the text in characters", exact=False),
        Feature("lines", int, "line breaks in the text, plus one", exact=False),
        Feature("parts", int, "number of parts", exact=False),
        Feature(
            "deterministic_pct", int, "share of commands and code in the text, percent", exact=False
        ),
        Feature("fixed_pct", int, "share of data by reference, percent", exact=False),
        Feature(
            "prose_pct",
            int,
            "share of natural language, mentions and tags apart, percent",
            exact=False,
        ),
        Feature("command", str, "none, command, code or several"),
        Feature("verb", str, "the verb of the turn's one command, else none"),
        Feature("shorthand", str, "the shorthand that the turn consists of, else none"),
        Feature("questions", int, "question marks in prose, 9 at most", exact=False),
        Feature("exclamations", int, "exclamation marks in prose, 9 at most", exact=False),
        Feature("links", int, "parts that refer to data", exact=False),
        Feature("verb_registered", int, "the verb is a registered action of the recipient"),
        Feature("mentions", int, "number of names mentioned"),
        Feature("mentioned", int, "the recipient is mentioned by name"),
        Feature("tags", int, "number of tags"),
        Feature("ack_tag", int, "tagged as an acknowledgement"),
        Feature("error_tag", int, "tagged as an error"),
        Feature("intent", str, "the intent that the turn states, in lower case, else none"),
        Feature("recipients", int, "number of recipients"),
        Feature("recipient", str, "the recipient"),
        Feature("sender_kind", str, "what kind of participant sent it"),
        Feature("turns_before", int, "turns of the conversation before this one", exact=False),
        Feature("same_sender", int, "the turn before was by the same sender, -1 if there is none"),
        Feature("last_ack", int, "the turn before was tagged #ack, -1 if there is none"),
        Feature("last_intent", str, "the intent of the turn before, else none"),
        Feature("last_tool_ok", int, "the newest tool result was a success, -1 if there is none"),
        Feature(
            "calls_before", int, "tool calls of the conversation before this turn", exact=False
        ),
        Feature("last_action", str, "the newest tool call's action, else none"),
    )
}

# A conversation's past, as the router keeps it: see router.py, which folds it.
NO_HISTORY: Mapping[str, Any] = {
    "turns": 0,
    "calls": 0,
    "sender": None,
    "ack": -1,
    "intent": "none",
    "tool_ok": -1,
    "action": "none",
}
_SHORTHAND = {word: word.rstrip("?").lower() for word in SHORTHAND}
_SHORT_MAX = 200
_CATEGORY_MAX = 64
# Beyond it a JSON reader may take integers for floats and round them.
_INT_MAX = 2**53
_COUNT_MAX = 9
_VERB_MAX = 64
_MARK = re.compile(r"[@#][A-Za-z][\w-]*[,:.!]?")
_COMMAND = re.compile(
    r"\s*(?:[@#][A-Za-z][\w-]*[,:]?\s+)*(?:(?P<prefix>EXECUTE|SQL|COMMAND):\s*)?"
    r"(?P<verb>[A-Za-z][A-Za-z0-9_.-]*)"
)
_CODE = re.compile(r" {0,3}`")


def check_features(
    features: Mapping[str, Any], table: Mapping[str, Feature] = FEATURES
) -> tuple[int | str, ...]:
    """Return the values in the table's order; raises InvalidFeatures for what could be prose."""
    if len(features) != len(table):
        odd = sorted(map(str, set(features) ^ set(table)))
        raise InvalidFeatures(f"unknown or missing features: {', '.join(odd)[:200]}")
    values = []
    for name, feature in table.items():
        try:
            value: int | str = features[name]
        except KeyError:
            raise InvalidFeatures(f"the feature {name} is missing") from None
        if type(value) is not feature.type:
            raise InvalidFeatures(f"{name} is {feature.type.__name__}, not {type(value).__name__}")
        if isinstance(value, int):
            if not -_INT_MAX < value < _INT_MAX:
                raise InvalidFeatures(f"{name} is out of the range of 53 bits")
        # A name without blanks is equal to its only word; this is the quickest such test.
        elif len(value) > _CATEGORY_MAX or value.split() != [value]:
            raise InvalidFeatures(
                f"{name} is no category name: 1 to {_CATEGORY_MAX} characters without blanks"
            )
        values.append(value)
    return tuple(values)


def command_verb(text: str) -> str | None:
    """Return the verb of a command's text as it stands there, None where it has none."""
    match = _COMMAND.match(text)
    if match is None:
        return None
    return "sql" if match["prefix"] == "SQL" else match["verb"][:_VERB_MAX]


def turn_features(
    fields: Mapping[str, Any],
    recipient: str,
    actions: Collection[str],
    history: Mapping[str, Any],
) -> dict[str, int | str]:
    """Return the features of a turn (its fields) for one recipient with these actions."""
    seen = _content(fields["parts"])
    tags = [tag.lstrip("#").lower() for tag in fields["tags"]]
    sender, last = fields["sender"], history["sender"]
    return {
        **seen,
        "verb_registered": int(seen["verb"] in actions),
        "mentions": len(fields["mentions"]),
        "mentioned": int(recipient in fields["mentions"]),
        "tags": len(tags),
        "ack_tag": int("ack" in tags),
        "error_tag": int("error" in tags),
        "intent": (fields["intent"] or "none").lower(),
        "recipients": len(fields["recipients"]),
        "recipient": recipient,
        "sender_kind": sender["kind"],
        "turns_before": history["turns"],
        "same_sender": -1 if last is None else int(last == sender["name"]),
        "last_ack": history["ack"],
        "last_intent": history["intent"],
        "last_tool_ok": history["tool_ok"],
        "calls_before": history["calls"],
        # Histories that were folded before there was this feature lack it.
        "last_action": history.get("action", "none"),
    }


def _content(parts: Sequence[Mapping[str, Any]]) -> dict[str, int | str]:
    """Return the features of what a turn says, which are the same for all its recipients."""
    size = {"deterministic": 0, "fixed": 0, "prose": 0}
    texts, prose, command, verb, links = [], "", "none", "none", 0
    for part in parts:
        text = part["text"] or ""
        kind = part["content_class"]
        texts.append(text)
        if kind == "prose":
            prose += text
            # Mentions and tags address and label; they are no language to understand.
            text = _MARK.sub("", text) if "@" in text or "#" in text else text
            size["prose"] += len(text.strip())
            continue
        size[kind] += len(text)
        if kind == "fixed":
            links += 1
        elif command != "none":
            command, verb = "several", "none"
        elif _CODE.match(text):
            command = "code"
        else:
            command, verb = "command", command_verb(text) or "none"
    whole = "".join(texts)
    shorthand = _shorthand(whole)
    if shorthand != "none" and command == "command":
        command, verb = "none", "none"
    scale = sum(size.values()) or 1
    return {
        "chars": len(whole),
        "lines": whole.count("\n") + 1,
        "parts": len(parts),
        "deterministic_pct": 100 * size["deterministic"] // scale,
        "fixed_pct": 100 * size["fixed"] // scale,
        # Rounded up, so that 0 means that there is none.
        "prose_pct": -(-100 * size["prose"] // scale),
        "command": command,
        "verb": verb,
        "shorthand": shorthand,
        "questions": min(prose.count("?"), _COUNT_MAX),
        "exclamations": min(prose.count("!"), _COUNT_MAX),
        "links": links,
    }


def _shorthand(text: str) -> str:
    if len(text) > _SHORT_MAX:
        return "none"
    words = [word for word in text.split() if not _MARK.fullmatch(word)]
    return _SHORTHAND.get(words[0].rstrip(".!").upper(), "none") if len(words) == 1 else "none"
