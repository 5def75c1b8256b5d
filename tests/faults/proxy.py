"""A TCP proxy before a Kafka cluster that delays, drops and cuts what the test names.

Clients follow the addresses that brokers advertise, so the proxy puts ports of its own in their
place, one for each broker. It reads the protocol versions of aiokafka, without TLS.
"""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Literal

from aiokafka.protocol.coordination import FindCoordinatorResponse_v0, FindCoordinatorResponse_v1
from aiokafka.protocol.metadata import (
    MetadataResponse_v0,
    MetadataResponse_v1,
    MetadataResponse_v2,
    MetadataResponse_v3,
    MetadataResponse_v4,
    MetadataResponse_v5,
)
from tests.brokers.ports import ReservedPort, reserve

__all__ = (
    "END_TXN",
    "HEARTBEAT",
    "OFFSET_COMMIT",
    "PRODUCE",
    "TXN_OFFSET_COMMIT",
    "Frame",
    "Proxy",
    "proxied",
)

PRODUCE, OFFSET_COMMIT, HEARTBEAT, END_TXN, TXN_OFFSET_COMMIT = 0, 8, 12, 26, 28
_METADATA, _FIND_COORDINATOR = 3, 10
_REWRITTEN = {
    (_METADATA, 0): MetadataResponse_v0,
    (_METADATA, 1): MetadataResponse_v1,
    (_METADATA, 2): MetadataResponse_v2,
    (_METADATA, 3): MetadataResponse_v3,
    (_METADATA, 4): MetadataResponse_v4,
    (_METADATA, 5): MetadataResponse_v5,
    (_FIND_COORDINATOR, 0): FindCoordinatorResponse_v0,
    (_FIND_COORDINATOR, 1): FindCoordinatorResponse_v1,
}

Side = Literal["request", "response"]
_Server = tuple[str, int]
_ENDED = (asyncio.IncompleteReadError, OSError)


@dataclass(slots=True, eq=False)
class Frame:
    """A request as the proxy saw it; `answer` is the broker's, without length and header."""

    api_key: int
    api_version: int
    correlation: int
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    answer: bytes | None = None


@dataclass(slots=True, eq=False)
class _Rule:
    """What to do with `left` frames of an API key on one side after `skip`; None is all of them."""

    api_key: int | None
    side: Side
    drops: bool
    left: int | None
    skip: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)
    frames: list[Frame] = field(default_factory=list)


class Proxy:
    """The ports before the brokers; what it does to the traffic is changed while it runs.

    `requests` has the API key of each request so far, `errors` what the proxy could not read.
    """

    def __init__(self) -> None:
        self.requests: list[int] = []
        self.errors: list[str] = []
        self._rules: list[_Rule] = []
        self._changed = asyncio.Condition()
        self._opening = asyncio.Lock()
        self._ports: dict[_Server, ReservedPort] = {}
        self._listeners: dict[_Server, asyncio.Server] = {}
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Stand before one broker from now on, and return the host and port for clients."""
        server = (host, port)
        async with self._opening:
            if server not in self._ports:
                self._ports[server] = reserve()
                await self._accept(server)
        return "127.0.0.1", self._ports[server].port

    async def _accept(self, server: _Server) -> None:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._connections[task] = writer
            try:
                await self._serve(server, reader, writer)
            except asyncio.CancelledError:
                # By go_away; the stream's own callback would report it as an error.
                pass
            finally:
                del self._connections[task]
                writer.transport.abort()

        port = self._ports[server].port
        self._listeners[server] = await asyncio.start_server(connected, "127.0.0.1", port)

    def hold(
        self,
        api_key: int | None,
        *,
        first: int | None = None,
        after: int = 0,
        side: Side = "request",
    ) -> None:
        """Keep back the next frames of an API key, all until the release or the first so many.

        `after` so many that still go through. What follows on the same connection waits behind
        what is held, as it would in a slow network.
        """
        self._rules.append(_Rule(api_key, side, drops=False, left=first, skip=after))

    def drop(self, api_key: int | None, *, first: int | None = None, side: Side) -> None:
        """Swallow the next frame of an API key on each connection, all or the first so many.

        The connection is silent from there on, and cut at the release.
        """
        self._rules.append(_Rule(api_key, side, drops=True, left=first))

    async def held(self, count: int = 1, timeout_s: float = 30.0) -> list[Frame]:
        """Wait until so many frames were held or dropped, and return them."""
        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(lambda: len(self._caught()) >= count)
            return self._caught()

    def _caught(self) -> list[Frame]:
        return [frame for rule in self._rules for frame in rule.frames]

    async def release(self, timeout_s: float = 30.0) -> list[Frame]:
        """Let all through, and return what was held once the brokers have answered it."""
        rules, self._rules = self._rules, []
        frames = [frame for rule in rules if not rule.drops for frame in rule.frames]
        for rule in rules:
            rule.over.set()
        async with asyncio.timeout(timeout_s):
            for frame in frames:
                await frame.answered.wait()
        return frames

    def cut(self) -> None:
        """Cut the connections of all clients; what is held still reaches its broker later."""
        for writer in list(self._connections.values()):
            writer.transport.abort()

    async def go_away(self) -> None:
        """Refuse new connections and end all that there are, as a broker that died does."""
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def come_back(self) -> None:
        """Accept connections again, on the same ports."""
        for server in self._ports.keys() - self._listeners.keys():
            await self._accept(server)

    async def close(self) -> None:
        """Go away for good and let go of the ports."""
        await self.go_away()
        for port in self._ports.values():
            port.release()

    async def _serve(
        self, server: _Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            upstream_reader, upstream = await asyncio.open_connection(*server)
        except OSError:
            return
        waiting: dict[int, Frame] = {}
        answers = asyncio.create_task(self._pump_answers(upstream_reader, writer, waiting))
        try:
            with contextlib.suppress(*_ENDED):
                await self._pump_requests(reader, upstream, waiting)
            # The client is gone; what it sent before reaches the broker, and the test can tell.
            for frame in list(waiting.values()):
                asked = asyncio.create_task(frame.answered.wait())
                await asyncio.wait({asked, answers}, return_when=asyncio.FIRST_COMPLETED)
                asked.cancel()
        finally:
            answers.cancel()
            upstream.transport.abort()
            for frame in waiting.values():
                frame.answered.set()

    async def _pump_requests(
        self,
        reader: asyncio.StreamReader,
        upstream: asyncio.StreamWriter,
        waiting: dict[int, Frame],
    ) -> None:
        while True:
            body = await _read_frame(reader)
            api_key, api_version, correlation = struct.unpack_from(">hhi", body)
            frame = Frame(api_key, api_version, correlation)
            self.requests.append(frame.api_key)
            await self._pass(frame, "request")
            waiting[frame.correlation] = frame
            upstream.write(struct.pack(">i", len(body)) + body)
            await upstream.drain()

    async def _pump_answers(
        self,
        upstream: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        waiting: dict[int, Frame],
    ) -> None:
        try:
            while True:
                body = await _read_frame(upstream)
                frame = waiting[struct.unpack_from(">i", body)[0]]
                frame.answer = body[4:]
                await self._pass(frame, "response")
                body = await self._with_our_ports(frame, body)
                with contextlib.suppress(OSError):
                    writer.write(struct.pack(">i", len(body)) + body)
                    await writer.drain()
                del waiting[frame.correlation]
                frame.answered.set()
        except _ENDED:
            pass
        except Exception as error:
            self.errors.append(repr(error))
        finally:
            writer.transport.abort()

    async def _pass(self, frame: Frame, side: Side) -> None:
        """Return when a frame may go on; raises ConnectionAbortedError when it is dropped."""
        for rule in self._rules:
            if rule.side == side and rule.api_key in (None, frame.api_key) and rule.left != 0:
                if rule.skip:
                    rule.skip -= 1
                    continue
                rule.left = None if rule.left is None else rule.left - 1
                rule.frames.append(frame)
                async with self._changed:
                    self._changed.notify_all()
                try:
                    await rule.over.wait()
                except asyncio.CancelledError:
                    frame.answered.set()
                    raise
                if rule.drops:
                    raise ConnectionAbortedError
                return

    async def _with_our_ports(self, frame: Frame, body: bytes) -> bytes:
        if frame.api_key not in (_METADATA, _FIND_COORDINATOR):
            return body
        response = _REWRITTEN[frame.api_key, frame.api_version].decode(BytesIO(body[4:]))
        if frame.api_key == _METADATA:
            response.brokers = [
                (node, *await self.listen(host, port), *rest)
                for node, host, port, *rest in response.brokers
            ]
        elif response.port > 0:
            response.host, response.port = await self.listen(response.host, response.port)
        encoded: bytes = response.encode()
        return body[:4] + encoded


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(size)


@asynccontextmanager
async def proxied(bootstrap: str) -> AsyncIterator[tuple[Proxy, str]]:
    """Stand before the cluster at HOST:PORT for a block; yield the proxy and its HOST:PORT."""
    proxy = Proxy()
    host, _, port = bootstrap.split(",")[0].rpartition(":")
    our_host, our_port = await proxy.listen(host, int(port))
    try:
        yield proxy, f"{our_host}:{our_port}"
        assert proxy.errors == []
    finally:
        await proxy.close()
