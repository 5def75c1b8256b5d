"""append -: turns as JSON lines, read ahead so that many share one sync of the disk."""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from madlog.cli._context import dump, note

if TYPE_CHECKING:
    from madlog.mads import TurnRequest
    from madlog.schemas import MadlogError
    from madlog.topics import EventLog

__all__ = ("append_lines",)


async def append_lines(
    log: "EventLog", conversation: str | None, sender: str | None, to: list[str], strict: bool
) -> int:
    """Append a turn for each line of stdin, answer a line each when durable; returns exit code.

    A line that cannot be appended is answered {"error"}, the others go on; then 2.
    """
    from madlog.mads import append_many

    bad = count = 0
    requests = _requests(conversation, sender, tuple(to))
    async for answer in append_many(log, requests, strict=strict):
        count += 1
        if answer.error is not None:
            bad += 1
            print(dump({"line": count, "error": str(answer.error)}))
        else:
            told = {"event_id": answer.event_id, "position": str(answer.position)}
            print(dump({**told, "repeated": True} if answer.repeated else told))
        sys.stdout.flush()
    if bad:
        note(f"madlog: {bad} of {count} lines were not appended, each answered with its reason")
    return 2 if bad else 0


async def _requests(
    conversation: str | None, sender: str | None, to: tuple[str, ...]
) -> "AsyncIterator[TurnRequest | MadlogError]":
    from dataclasses import replace

    from madlog.mads import TurnRequest
    from madlog.schemas import MadlogError

    while line := await asyncio.to_thread(sys.stdin.buffer.readline):
        if not line.strip():
            continue
        try:
            request = TurnRequest.parse(line, conversation_id=conversation, sender=sender)
        except MadlogError as error:
            yield error
        else:
            yield request if request.recipients else replace(request, recipients=to)
