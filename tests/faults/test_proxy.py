"""The proxy of the fault tests, before a broker of a few lines that answers all it is asked."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from io import BytesIO
from typing import ClassVar

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.protocol.coordination import FindCoordinatorResponse_v1
from aiokafka.protocol.metadata import MetadataResponse_v5
from tests.faults.proxy import END_TXN, HEARTBEAT, OFFSET_COMMIT, PRODUCE, Proxy, proxied

FETCH, METADATA, FIND_COORDINATOR, JOIN_GROUP = 1, 3, 10, 11


class Broker:
    """Answers each request with its API key and number; `got` has those that reached it."""

    def __init__(self) -> None:
        self.got: list[tuple[int, int]] = []
        self.bodies: dict[int, bytes] = {}
        self.connections = 0
        self._alone = asyncio.Event()

    async def left(self) -> None:
        """Wait until nobody is connected."""
        async with asyncio.timeout(10):
            await self._alone.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._alone.clear()
        try:
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                key, _, number = struct.unpack_from(">hhi", await reader.readexactly(size))
                self.got.append((key, number))
                body = struct.pack(">i", number) + self.bodies.get(key, struct.pack(">h", key))
                writer.write(struct.pack(">i", len(body)) + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            self.connections -= 1
            if self.connections == 0:
                self._alone.set()
            writer.close()


class Client:
    """A connection to the proxy that sends requests of a header only."""

    opened: ClassVar[list["Client"]] = []

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, address: str) -> "Client":
        host, _, port = address.partition(":")
        client = cls(*await asyncio.open_connection(host, int(port)))
        cls.opened.append(client)
        return client

    def send(self, key: int, number: int, version: int = 0) -> None:
        self.writer.write(struct.pack(">ihhi", 8, key, version, number))

    async def answer(self) -> tuple[int, bytes]:
        (size,) = struct.unpack(">i", await self.reader.readexactly(4))
        body = await self.reader.readexactly(size)
        return struct.unpack_from(">i", body)[0], body[4:]

    async def ask(self, key: int, number: int, version: int = 0) -> bytes:
        self.send(key, number, version)
        answered, body = await self.answer()
        assert answered == number
        return body

    async def ended(self) -> bool:
        try:
            return await self.reader.read(1) == b""
        except ConnectionError:
            return True


@pytest.fixture(autouse=True)
async def close_clients() -> AsyncIterator[None]:
    yield
    while Client.opened:
        writer = Client.opened.pop().writer
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


@asynccontextmanager
async def standing() -> AsyncIterator[tuple[Broker, Proxy, str]]:
    broker = Broker()
    server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with proxied(f"127.0.0.1:{port}") as (proxy, address):
        yield broker, proxy, address
    server.close()
    await broker.left()


async def test_what_nobody_asked_to_hold_goes_through() -> None:
    async with standing() as (broker, proxy, address):
        client = await Client.connect(address)
        assert await client.ask(PRODUCE, 1) == b"\0\0"
        assert await client.ask(END_TXN, 2) == b"\0\x1a"
        assert broker.got == [(PRODUCE, 1), (END_TXN, 2)]
        assert proxy.requests == [PRODUCE, END_TXN]


async def test_a_held_request_reaches_the_broker_at_the_release_and_is_answered() -> None:
    async with standing() as (broker, proxy, address):
        proxy.hold(END_TXN)
        client, other = await Client.connect(address), await Client.connect(address)
        client.send(HEARTBEAT, 1)
        client.send(END_TXN, 2)
        client.send(HEARTBEAT, 3)
        assert [frame.api_key for frame in await proxy.held()] == [END_TXN]
        assert await client.answer() == (1, b"\0\x0c")
        assert await other.ask(HEARTBEAT, 9) == b"\0\x0c"
        assert (END_TXN, 2) not in broker.got
        assert (HEARTBEAT, 3) not in broker.got
        assert [frame.answer for frame in await proxy.release()] == [b"\0\x1a"]
        assert [await client.answer(), await client.answer()] == [(2, b"\0\x1a"), (3, b"\0\x0c")]
        assert await client.ask(END_TXN, 4) == b"\0\x1a"


@pytest.mark.parametrize("how", ["closed", "cut"])
async def test_a_held_request_reaches_the_broker_when_its_client_is_gone(how: str) -> None:
    async with standing() as (broker, proxy, address):
        proxy.hold(END_TXN)
        client = await Client.connect(address)
        client.send(END_TXN, 1)
        await proxy.held()
        if how == "closed":
            client.writer.close()
            await client.writer.wait_closed()
        else:
            proxy.cut()
            assert await client.ended()
        assert broker.got == []
        assert broker.connections == 1
        assert [frame.answer for frame in await proxy.release()] == [b"\0\x1a"]
        assert broker.got == [(END_TXN, 1)]
        await broker.left()


async def test_only_the_first_requests_of_a_key_are_held_when_so_asked() -> None:
    async with standing() as (broker, proxy, address):
        proxy.hold(END_TXN, first=1)
        held, other = await Client.connect(address), await Client.connect(address)
        held.send(END_TXN, 1)
        await proxy.held()
        assert await other.ask(END_TXN, 2) == b"\0\x1a"
        await proxy.release()
        assert await held.answer() == (1, b"\0\x1a")
        assert broker.got == [(END_TXN, 2), (END_TXN, 1)]


async def test_the_requests_before_those_to_hold_go_through() -> None:
    async with standing() as (broker, proxy, address):
        proxy.hold(END_TXN, after=1)
        client = await Client.connect(address)
        assert await client.ask(END_TXN, 1) == b"\0\x1a"
        client.send(END_TXN, 2)
        await proxy.held()
        assert broker.got == [(END_TXN, 1)]
        await proxy.release()
        assert await client.answer() == (2, b"\0\x1a")


async def test_a_held_response_was_done_by_the_broker_and_comes_later() -> None:
    async with standing() as (broker, proxy, address):
        proxy.hold(END_TXN, side="response")
        client = await Client.connect(address)
        client.send(END_TXN, 1)
        assert [frame.answer for frame in await proxy.held()] == [b"\0\x1a"]
        assert broker.got == [(END_TXN, 1)]
        assert not client.reader.at_eof()
        await proxy.release()
        assert await client.answer() == (1, b"\0\x1a")


async def test_a_dropped_response_was_done_by_the_broker_and_never_comes() -> None:
    async with standing() as (broker, proxy, address):
        proxy.drop(END_TXN, side="response")
        client = await Client.connect(address)
        client.send(END_TXN, 1)
        assert [frame.answer for frame in await proxy.held()] == [b"\0\x1a"]
        assert await proxy.release() == []
        assert await client.ended()
        assert broker.got == [(END_TXN, 1)]


async def test_a_dropped_request_never_reaches_the_broker() -> None:
    async with standing() as (broker, proxy, address):
        proxy.drop(END_TXN, side="request")
        client = await Client.connect(address)
        client.send(END_TXN, 1)
        await proxy.held()
        assert await proxy.release() == []
        assert await client.ended()
        assert broker.got == []


async def test_a_broker_that_is_away_refuses_and_comes_back_at_the_same_address() -> None:
    async with standing() as (broker, proxy, address):
        client = await Client.connect(address)
        await client.ask(PRODUCE, 1)
        await proxy.go_away()
        assert await client.ended()
        await broker.left()
        with pytest.raises(ConnectionRefusedError):
            await Client.connect(address)
        await proxy.come_back()
        client = await Client.connect(address)
        assert await client.ask(PRODUCE, 2) == b"\0\0"


async def test_all_that_is_sent_can_be_held_as_by_a_silent_broker() -> None:
    async with standing() as (broker, proxy, address):
        proxy.hold(None)
        client, other = await Client.connect(address), await Client.connect(address)
        client.send(PRODUCE, 1)
        other.send(HEARTBEAT, 2)
        await proxy.held(2)
        assert broker.got == []
        await proxy.release()
        assert [await client.answer(), await other.answer()] == [(1, b"\0\0"), (2, b"\0\x0c")]


async def test_what_is_held_ends_when_the_broker_goes_away() -> None:
    async with standing() as (_, proxy, address):
        proxy.hold(END_TXN)
        proxy.hold(PRODUCE, side="response")
        client = await Client.connect(address)
        client.send(PRODUCE, 1)
        client.send(END_TXN, 2)
        await proxy.held(2)
        await proxy.go_away()
        assert [frame.answer for frame in await proxy.release()] == [None, b"\0\0"]


async def test_brokers_that_answers_name_are_given_ports_of_the_proxy() -> None:
    async with standing() as (broker, proxy, address):
        real = [(1, "broker.one", 9092, None), (2, "broker.two", 9093, "rack")]
        response = MetadataResponse_v5(0, real, "cluster", 1, [])
        broker.bodies[METADATA] = response.encode()
        found = FindCoordinatorResponse_v1(0, 0, None, 1, "broker.one", 9092)
        broker.bodies[FIND_COORDINATOR] = found.encode()
        client = await Client.connect(address)
        named = MetadataResponse_v5.decode(BytesIO(await client.ask(METADATA, 1, version=5)))
        assert [(node, host, rack) for node, host, _, rack in named.brokers] == [
            (1, "127.0.0.1", None),
            (2, "127.0.0.1", "rack"),
        ]
        ports = [port for _, _, port, _ in named.brokers]
        assert len({*ports, int(address.rpartition(":")[2])}) == 3
        body = await client.ask(FIND_COORDINATOR, 2, version=1)
        coordinator = FindCoordinatorResponse_v1.decode(BytesIO(body))
        assert (coordinator.host, coordinator.port) == ("127.0.0.1", ports[0])
        assert proxy.errors == []


async def test_an_answer_that_the_proxy_cannot_read_is_told() -> None:
    async with standing() as (_, proxy, address):
        client = await Client.connect(address)
        client.send(METADATA, 1, version=12)
        assert await client.ended()
        assert proxy.errors == ["KeyError((3, 12))"]
        proxy.errors.clear()


async def test_a_client_of_a_real_broker_stays_behind_the_proxy(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    topic = f"{kafka_prefix}.proxied"
    async with proxied(kafka_bootstrap) as (proxy, address):
        admin = AIOKafkaAdminClient(bootstrap_servers=address)
        await admin.start()
        await admin.create_topics([NewTopic(topic, 1, 1)])
        producer = AIOKafkaProducer(bootstrap_servers=address, transactional_id=f"{topic}.one")
        await producer.start()
        async with producer.transaction():
            await producer.send_and_wait(topic, b"value")
        await producer.stop()
        consumer = AIOKafkaConsumer(
            topic,
            bootstrap_servers=address,
            group_id=topic,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            enable_auto_commit=False,
        )
        await consumer.start()
        assert (await asyncio.wait_for(consumer.getone(), 30)).value == b"value"
        await consumer.commit()
        await consumer.stop()
        await admin.delete_topics([topic])
        await admin.close()
        assert {PRODUCE, FETCH, JOIN_GROUP, OFFSET_COMMIT, END_TXN} <= set(proxy.requests)
