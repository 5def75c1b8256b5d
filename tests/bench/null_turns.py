"""What the null products and ours keep alike: a seeded stream of turns, tool calls and results.

Words are as often as words are (by rank), drawn anew for each turn, so texts compress worse than
what people write, on all sides alike.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from random import Random
from typing import Any, NamedTuple

from madlog.schemas import Event, Part, Sender, SenderKind, ToolCall, ToolResult, Turn, new_event_id

__all__ = ("Said", "content_bytes", "event", "json_line", "stream")

_START_US = 1_767_225_600_000_000
_DAYS = 10
_PEOPLE = ("ada", "bob", "eva", "kim")
_ACTIONS = ("find_order", "get_order", "pay_back", "send_again")
_CALL_EVERY = 8
_FAILS_OF_20 = (1, 2, 3, 4)
_TURNS_A_CONVERSATION = 50
_WORDS, _WORDS_A_TURN = 20_000, 90
_Fields = dict[str, Any]


class Said(NamedTuple):
    """One event as any program has it before it is stored; `fields` beside those of all kinds."""

    event_id: str
    conversation_id: str
    sender: str
    occurred_at_us: int
    kind: str
    fields: _Fields

    @property
    def at(self) -> datetime:
        """When it occurred."""
        return datetime.fromtimestamp(self.occurred_at_us // 1_000_000, UTC) + timedelta(
            microseconds=self.occurred_at_us % 1_000_000
        )


def stream(turns: int, seed: int = 1) -> Iterator[Said]:
    """Yield turns for ever, some 800 bytes each, and after each eighth a call and its result.

    `turns` is how many ten days of some 50 a conversation are to hold.
    """
    random = Random(seed)
    words = _words(random)
    weights = list(accumulate(1 / (rank + 2.7) for rank in range(_WORDS)))
    step_us = int(timedelta(days=_DAYS) / timedelta(microseconds=1)) // turns
    at, number = _START_US, 0
    conversations = max(1, turns // _TURNS_A_CONVERSATION)
    while True:
        number, at = number + 1, at + step_us
        conversation = f"order-{random.randrange(conversations):07}"
        text = " ".join(random.choices(words, cum_weights=weights, k=_WORDS_A_TURN))
        who = random.choice(_PEOPLE)
        fields: _Fields = {"recipients": ["shop"], "tags": ["parcel"], "text": text}
        yield Said(_id(random, at), conversation, who, at, "turn", fields)
        if number % _CALL_EVERY:
            continue
        action = random.randrange(len(_ACTIONS))
        arguments = json.dumps({"id": random.randrange(10**6)})
        call_id = _id(random, at + 1)
        fields = {"action": _ACTIONS[action], "arguments": arguments}
        yield Said(call_id, conversation, "shop", at + 1, "call", fields)
        ok = random.randrange(20) >= _FAILS_OF_20[action]
        fields = {"call_id": call_id, "ok": ok, "result" if ok else "error": "sent" if ok else "no"}
        yield Said(_id(random, at + 2), conversation, "shop", at + 2, "result", fields)


def _words(random: Random) -> list[str]:
    syllables = [begin + end for begin in "bcdfghklmnprstvwz" for end in (*"aeiou", "ai", "ou")]
    made: dict[str, None] = {}
    while len(made) < _WORDS:
        made["".join(random.choices(syllables, k=random.choice((2, 2, 3, 3, 4))))] = None
    return list(made)


def _id(random: Random, at_us: int) -> str:
    return new_event_id(at_us, random.randbytes(10))


def event(said: Said, **more: Any) -> Event:
    """Return it as an event of ours, with its id as the key that lets it be appended again."""
    kind: SenderKind = "mad" if said.sender == "shop" else "human"
    common: _Fields = {
        "event_id": said.event_id,
        "conversation_id": said.conversation_id,
        "sender": Sender(name=said.sender, kind=kind),
        "occurred_at": said.occurred_at_us,
        "idempotency_key": said.event_id,
        **more,
    }
    if said.kind == "call":
        return ToolCall(**common, **said.fields)
    if said.kind == "result":
        return ToolResult(**common, **said.fields)
    own: _Fields = {name: tuple(said.fields[name]) for name in ("recipients", "tags")}
    part = Part(content_class="prose", text=said.fields["text"])
    return Turn(**common, **own, parts=(part,))


def json_line(said: Said) -> bytes:
    """Return it as a line of JSON, as who writes such a log by hand would."""
    line = {
        "id": said.event_id,
        "conversation_id": said.conversation_id,
        "sender": said.sender,
        "occurred_at": said.at.replace(tzinfo=None).isoformat(timespec="microseconds"),
        "kind": said.kind,
        **said.fields,
    }
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def content_bytes(said: Sequence[Said]) -> int:
    """Return how many bytes they are as lines of JSON, which is what must be kept of them."""
    return sum(len(json_line(one)) for one in said)
