"""append -: turns as JSON lines, read ahead so that many share one sync of the disk."""

import asyncio
import json
import sys
from collections import deque
from typing import TYPE_CHECKING, Any

from madlog.cli._context import dump, note

if TYPE_CHECKING:
    from madlog.topics import EventLog

__all__ = ("append_lines",)

_AHEAD_MAX = 512
_FIELDS = frozenset(
    ("conversation_id", "sender", "text", "recipients", "idempotency_key", "occurred_at")
)


async def append_lines(
    log: "EventLog", conversation: str | None, sender: str | None, to: list[str], strict: bool
) -> int:
    """Append a turn for each line of stdin, answer a line each when durable; returns exit code.

    A line that cannot be appended is answered {"line", "error"}, the others go on; then 2.
    """
    lines: asyncio.Queue[bytes | None] = asyncio.Queue(_AHEAD_MAX)
    reader = asyncio.create_task(_read(lines))
    defaults = {"conversation_id": conversation, "sender": sender, "recipients": to}
    number, bad = 0, 0
    try:
        ended = False
        while not ended:
            # One wait, then whatever has arrived meanwhile: those turns share one sync.
            waiting: deque[bytes | None] = deque([await lines.get()])
            while not lines.empty():
                waiting.append(lines.get_nowait())
            if waiting[-1] is None:
                ended = True
                waiting.pop()
            raw = [line for line in waiting if line is not None]
            bad += await _answer(log, raw, number, defaults, strict)
            number += len(raw)
    finally:
        reader.cancel()
    if bad:
        note(f"madlog: {bad} of {number} lines were not appended, each answered with its reason")
    return 2 if bad else 0


async def _read(lines: "asyncio.Queue[bytes | None]") -> None:
    while True:
        line = await asyncio.to_thread(sys.stdin.buffer.readline)
        if not line:
            await lines.put(None)
            return
        if line.strip():
            await lines.put(line)
        else:
            await lines.put(b"")


async def _answer(
    log: "EventLog", raw: list[bytes], number: int, defaults: dict[str, Any], strict: bool
) -> int:
    from madlog.mads.conversation import append_many
    from madlog.schemas import MadlogError
    from madlog.topics import SystemClock, system_random

    answers: dict[int, str] = {}
    turns: list[tuple[int, dict[str, Any]]] = []
    bad = 0
    for at, line in enumerate(raw, start=number + 1):
        if not line:
            continue
        try:
            turns.append((at, _turn(line, defaults)))
        except (ValueError, UnicodeDecodeError) as error:
            answers[at] = dump({"line": at, "error": str(error)})
            bad += 1
    results = await append_many(
        log,
        [turn for _, turn in turns],
        strict=strict,
        clock=SystemClock(),
        random=system_random,
    )
    for (at, _), result in zip(turns, results, strict=True):
        if isinstance(result, MadlogError):
            answers[at] = dump({"line": at, "error": str(result)})
            bad += 1
        elif isinstance(result, BaseException):
            raise result
        else:
            answer = {"event_id": result.event_id, "position": str(result.position)}
            answers[at] = dump({**answer, "repeated": True} if result.repeated else answer)
    for at in sorted(answers):
        print(answers[at])
    sys.stdout.flush()
    return bad


def _turn(line: bytes, defaults: dict[str, Any]) -> dict[str, Any]:
    """Return the turn that a line describes; raises ValueError saying what is wrong with it."""
    try:
        given = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} is not UTF-8: send the line as UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"column {error.colno} is not JSON: {error.msg}") from None
    if not isinstance(given, dict):
        raise ValueError('a turn is a JSON object: {"conversation_id", "sender", "text"}')
    unknown = sorted(given.keys() - _FIELDS)
    if unknown:
        raise ValueError(f"unknown field {unknown[0]!r}: a turn has {', '.join(sorted(_FIELDS))}")
    turn = {**{name: value for name, value in defaults.items() if value}, **given}
    for name in ("conversation_id", "sender", "text"):
        if not isinstance(turn.get(name), str):
            raise ValueError(f"{name} is missing or not a string")
    return turn
