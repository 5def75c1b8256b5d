"""Projections: what is folded from the log, thrown away at will and rebuilt from offset zero.

A fold is pure: no clock, no randomness, no I/O. It takes batches of one partition each, in the
partition's order; nothing depends on the order between partitions. State is JSON, so a snapshot
of it and the tail of the log give what the whole log gives.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from madlog.topics import CATALOG, LogEvent
from madlog.topics.catalog import kept_for_ever

__all__ = ("PROJECTIONS", "Projection", "State", "state_digest")

State = dict[str, Any]
Fold = Callable[[State, Sequence[LogEvent]], None]


@dataclass(frozen=True, slots=True)
class Projection:
    """One projection; `version` is raised when its fold changes, which voids older snapshots."""

    name: str
    topics: tuple[str, ...]
    fold: Fold
    version: int = 1


def state_digest(state: State) -> str:
    """Return the SHA-256 of a state's canonical JSON, in hex."""
    total = hashlib.sha256()
    # Entry by entry, so that no text of the whole state is ever in memory.
    for key in sorted(state):
        total.update(
            json.dumps([key, state[key]], sort_keys=True, separators=(",", ":")).encode() + b"\n"
        )
    return total.hexdigest()


_TURNS, _CALLS, _RESULTS, _FAILURES, _FIRST, _LAST = range(6)


def _conversations(state: State, events: Sequence[LogEvent]) -> None:
    """Count each conversation's turns, tool calls, results, failures; first and last time."""
    for event in events:
        fields = event.fields
        at = fields["occurred_at"]
        row = state.get(fields["conversation_id"])
        if row is None:
            row = state[fields["conversation_id"]] = [0, 0, 0, 0, at, at]
        kind = event.kind
        if kind == "Turn":
            row[_TURNS] += 1
        elif kind == "ToolCall":
            row[_CALLS] += 1
        elif kind == "ToolResult":
            row[_RESULTS] += 1
            if not fields["ok"]:
                row[_FAILURES] += 1
        if at < row[_FIRST]:
            row[_FIRST] = at
        if at > row[_LAST]:
            row[_LAST] = at


def _participants(state: State, events: Sequence[LogEvent]) -> None:
    """Keep who is in each conversation now, with what kind each is."""
    for event in events:
        if event.kind != "ConversationChanged":
            continue
        fields = event.fields
        name = fields["participant"]
        if fields["change"] == "joined" and name is not None:
            there = state.setdefault(fields["conversation_id"], {})
            there[name] = fields["participant_kind"]
        elif fields["change"] == "left":
            state.get(fields["conversation_id"], {}).pop(name, None)


def _tiers(state: State, events: Sequence[LogEvent]) -> None:
    """Count decisions by mode, recipient and tier."""
    for event in events:
        if event.kind == "Decision":
            fields = event.fields
            key = f"{fields['mode']}/{fields['recipient']}/{fields['tier']}"
            state[key] = state.get(key, 0) + 1


def _contents(state: State, events: Sequence[LogEvent]) -> None:
    """Chain a SHA-256 over every record of each partition: any change of the past shows.

    It hashes the stored bytes, which costs a tenth of decoding them; the digest that is equal on
    every backend is madlog.analytics.digest's.
    """
    record = events[0].record
    key = f"{record.topic}/{record.partition}"
    count, chained = state.get(key, (0, ""))
    link = bytes.fromhex(chained)
    sha256 = hashlib.sha256
    for event in events:
        record = event.record
        link = sha256(
            b"%s%d %d:%s%s" % (link, record.offset, len(record.key), record.key, record.value)
        ).digest()
    state[key] = [count + len(events), link.hex()]


_FOR_EVER = tuple(kept_for_ever(CATALOG.values()))

PROJECTIONS: tuple[Projection, ...] = (
    Projection("contents", _FOR_EVER, _contents),
    Projection("conversations", ("mad.conversations",), _conversations),
    Projection("participants", ("mad.conversations",), _participants),
    Projection("tiers", ("mad.decisions",), _tiers),
)
