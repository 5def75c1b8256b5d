"""append -: turns as JSON lines, read ahead so that many share one sync of the disk."""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING

from madlog.cli._context import dump, note

if TYPE_CHECKING:
    from madlog.mads import TurnRequest
    from madlog.schemas import MadlogError
    from madlog.topics import EventLog

__all__ = ("append_lines",)

_CHUNK_BYTES = 64 << 10


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

    async for line in _lines(sys.stdin.fileno()):
        if not line.strip():
            continue
        try:
            request = TurnRequest.parse(line, conversation_id=conversation, sender=sender)
        except MadlogError as error:
            yield error
        else:
            yield request if request.recipients else replace(request, recipients=to)


async def _lines(fd: int) -> AsyncIterator[bytes]:
    rest = b""
    while chunk := await _chunk(fd):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
    if rest:
        yield rest


async def _chunk(fd: int) -> bytes:
    """Read what there is, in a thread that an interrupted program does not wait for."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[bytes] = loop.create_future()

    def tell(chunk: bytes) -> None:
        if not told.done():
            told.set_result(chunk)

    def read() -> None:
        chunk = os.read(fd, _CHUNK_BYTES)
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(tell, chunk)

    threading.Thread(target=read, daemon=True).start()
    return await told
