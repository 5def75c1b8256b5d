"""Where a stopped replay was, in one file: its state so far and the position to go on from."""

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from madlog.analytics.replay_range import Range
from madlog.analytics.what_if.errors import BadSnapshot
from madlog.topics import Vector
from madlog.topics.errors import InvalidPosition

__all__ = ("Progressed", "load", "question_of", "store")

_FORMAT = 2


@dataclass
class Progressed:
    """How far a replay is.

    `partition` is being read, `offset` is next there; `state` is the router's of that partition,
    `held` the offset of the first event of each conversation that is not complete yet. `last` is
    the partition, offset and SHA-256 of the record that was read last, so that another log is not
    taken for this one; `rows` is what was told of what differs.
    """

    where: Range
    read_to: Vector
    done: list[int] = field(default_factory=list)
    partition: int | None = None
    offset: int = 0
    state: dict[str, Any] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    tally: dict[str, Any] | None = None
    events: int = 0
    last: tuple[int, int, str] | None = None
    rows: dict[str, Any] | None = None


def question_of(*parts: Any) -> str:
    """Return a digest of what a replay was asked, which must be equal to go on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def store(path: Path, question: str, now: Progressed) -> None:
    """Write a snapshot in place of the one before, whole or not at all."""
    document = {
        "format": _FORMAT,
        "question": question,
        "start": str(now.where.start),
        "end": str(now.where.end),
        "read_to": str(now.read_to),
        "done": now.done,
        "partition": now.partition,
        "offset": now.offset,
        # What is shared comes from the log again.
        "state": {key: value for key, value in now.state.items() if not key.startswith("@")},
        "held": now.held,
        "tally": now.tally,
        "events": now.events,
        "last": now.last,
        "rows": now.rows,
    }
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            json.dump(document, file, separators=(",", ":"))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load(path: Path, question: str) -> Progressed | None:
    """Return what a replay that was stopped left there; None: nothing. Raises BadSnapshot."""
    try:
        held = json.loads(path.read_bytes())
        if held["format"] != _FORMAT:
            raise BadSnapshot(f"{path} was written by another version: remove it to begin anew")
        if held["question"] != question:
            raise BadSnapshot(
                f"{path} is of a replay that was asked something else: ask the same (model, error, "
                "tiers, from and to), or remove it to begin anew"
            )
        last = held["last"]
        return Progressed(
            Range(Vector.parse(held["start"]), Vector.parse(held["end"])),
            Vector.parse(held["read_to"]),
            [int(number) for number in held["done"]],
            held["partition"],
            int(held["offset"]),
            dict(held["state"]),
            dict(held["held"]),
            held["tally"],
            int(held["events"]),
            None if last is None else (int(last[0]), int(last[1]), str(last[2])),
            held["rows"],
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadSnapshot(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, IndexError, InvalidPosition) as error:
        if isinstance(error, BadSnapshot):
            raise
        raise BadSnapshot(f"{path} is no snapshot of a replay: remove it to begin anew") from error
