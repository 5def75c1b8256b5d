"""A log of events with a schema registry, without one, and changed over in between."""

import json
from collections.abc import Sequence

import pytest
from tests.unit.counting import CONVERSATIONS, ORDERS, event_id, turn

from madlog.analytics.digest import digest
from madlog.analytics.tables import LogSource
from madlog.mads.ecosystem import Ecosystem
from madlog.processors import Engine, Router
from madlog.schemas import Turn
from madlog.schemas.codec import released_schemas, schema_events
from madlog.schemas.framing import confluent_head, schema_id
from madlog.topics import Damage, EventLog, IdempotencyConflict, NewEvent, Record
from madlog.topics.catalog import partition_for
from madlog.topics.errors import LogUnavailable
from madlog.topics.memory import MemoryLog

WRONG = {b"c1": (partition_for(b"c1", 4) + 1) % 4}


class Numbers:
    """A registry in memory that counts what it is asked, and can be away."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.subjects: dict[str, int] = {}
        self.asked: list[int] = []
        self.away = False

    async def register(self, subject: str, schema_text: str) -> int:
        self._answer()
        if schema_text not in self.texts:
            self.texts.append(schema_text)
        self.subjects[subject] = self.texts.index(schema_text) + 100
        return self.subjects[subject]

    async def schema_text(self, number: int) -> str | None:
        self._answer()
        self.asked.append(number)
        return self.texts[number - 100] if number - 100 < len(self.texts) else None

    def _answer(self) -> None:
        if self.away:
            raise LogUnavailable("the registry is away")


async def records(log: EventLog, topic: str) -> list[Record]:
    found: list[Record] = []
    async for batch in log.log.read(await log.log.start([topic]), await log.log.end([topic])):
        found += batch
    return found


async def texts(log: EventLog) -> tuple[list[str], list[Damage]]:
    found: list[str] = []
    damages: list[Damage] = []
    async for events in log.read_topics([CONVERSATIONS], on_damage=damages.append):
        found += [event.event_id for event in events]
    return sorted(found), damages


def said(number: int) -> Turn:
    return turn(number, "c1")


async def routed(events: Sequence[Sequence[Turn | NewEvent]], *logs: EventLog) -> EventLog:
    """Append a batch with each of the logs in turn, and run the router with the last."""
    for log, batch in zip(logs, events, strict=True):
        await log.append(batch)
    await Engine(logs[-1], [Router(ORDERS)]).run(until_idle=True)
    return logs[-1]


async def test_with_a_registry_all_but_the_schemas_names_them_by_id() -> None:
    registry, backend = Numbers(), MemoryLog()
    log = await EventLog.open(backend, registry)
    await routed([[said(1), NewEvent(said(2), partition=WRONG[b"c1"])]], log)
    framed = {}
    for topic in sorted(await backend.topics()):
        if not topic.startswith("mad.state."):
            framed[topic] = {schema_id(one.value) is not None for one in await records(log, topic)}
    assert framed.pop("mad.schemas") == {False}
    assert {"mad.conversations", "mad.decisions", "mad.dead-letters"} <= set(framed)
    assert set().union(*framed.values()) == {True}
    kinds = {event.subject_name for event in schema_events()} - {"SchemaRegistered"}
    assert set(registry.subjects) == {f"madlog.{kind}" for kind in kinds}


async def test_a_log_that_was_changed_over_twice_is_read_whole() -> None:
    registry, backend = Numbers(), MemoryLog()
    for number in range(1, 4):
        log = await EventLog.open(backend, registry if number == 2 else None)
        await log.append([said(number)])
    reader = await EventLog.open(backend, registry)
    assert await texts(reader) == ([event_id(number) for number in (1, 2, 3)], [])


async def test_the_registry_is_asked_for_an_id_once() -> None:
    registry, backend = Numbers(), MemoryLog()
    await (await EventLog.open(backend, registry)).append([said(1), said(2)])
    reader = await EventLog.open(backend, registry)
    await texts(reader)
    await texts(reader)
    assert registry.asked == [registry.subjects["madlog.Turn"]]


async def test_the_tables_of_one_conversation_ask_for_its_ids() -> None:
    registry, backend = Numbers(), MemoryLog()
    await (await EventLog.open(backend, registry)).append([said(1)])
    damages: list[Damage] = []
    reader = await EventLog.open(backend, registry)
    source = LogSource(reader, conversation="c1", on_damage=damages.append)
    tables = await source.tables(["Turn"], await backend.end([CONVERSATIONS]))
    assert (tables.kinds["Turn"].rows.num_rows, damages) == (1, [])
    assert tables.kinds["Turn"].rows["schema_version"].to_pylist() == [1]


async def test_a_conversation_with_a_registry_is_heard_without_its_ids_at_first() -> None:
    registry, backend = Numbers(), MemoryLog()
    # One log in memory under both: closing either would close it for the other.
    one = Ecosystem(await EventLog.open(backend, registry))
    order = await one.conversation("order", sender="ada")
    await order.join("shop")
    await order.say("@shop hello")
    other = Ecosystem(await EventLog.open(backend, registry))
    heard = await (await other.conversation("order", sender="shop", kind="mad")).history()
    assert [said.turn.text for said in heard.turns] == ["@shop hello"]
    await one.close()


async def test_without_a_registry_its_records_are_named_and_the_others_read() -> None:
    registry, backend = Numbers(), MemoryLog()
    await (await EventLog.open(backend)).append([said(1)])
    await (await EventLog.open(backend, registry)).append([said(2)])
    found, damages = await texts(await EventLog.open(backend))
    assert found == [event_id(1)]
    (damage,) = damages
    number = registry.subjects["madlog.Turn"]
    assert damage.offset == 1
    assert f"schema id {number} is unknown: set MADLOG_SCHEMA_REGISTRY_URL" in damage.reason


async def test_an_id_that_the_registry_does_not_know_stops_nothing_else() -> None:
    registry, backend = Numbers(), MemoryLog()
    log = await EventLog.open(backend, registry)
    await log.append([said(1)])
    stray = log.to_record(said(2))
    stray = stray._replace(value=confluent_head(7_000) + stray.value[5:])
    await backend.append([stray])
    found, damages = await texts(log)
    assert found == [event_id(1)]
    assert "schema id 7000 is unknown" in damages[0].reason


async def test_a_schema_of_no_event_is_asked_for_once_and_stops_nothing_else() -> None:
    registry, backend = Numbers(), MemoryLog()
    log = await EventLog.open(backend, registry)
    await log.append([said(1)])
    number = await registry.register("orders", '{"type": "record", "name": "Order", "fields": []}')
    stray = log.to_record(said(2))._replace(value=confluent_head(number))
    await backend.append([stray])
    for _ in range(2):
        found, damages = await texts(log)
        assert (found, len(damages)) == ([event_id(1)], 1)
    assert registry.asked == [number]


async def test_a_registry_that_is_away_makes_no_event_a_dead_letter() -> None:
    registry, backend = Numbers(), MemoryLog()
    worker = await EventLog.open(backend, registry)
    await worker.ensure_topics([CONVERSATIONS])
    same = {**released_schemas()["Turn"][-1], "doc": "as a stranger registered it"}
    number = await registry.register("strangers", json.dumps(same))
    turn = worker.to_record(said(1))
    await backend.append([turn._replace(value=confluent_head(number) + turn.value[5:])])
    registry.away = True
    with pytest.raises(LogUnavailable, match="away"):
        await Engine(worker, [Router(ORDERS)]).run(until_idle=True)
    assert "mad.dead-letters" not in await backend.topics()
    registry.away = False
    assert (await Engine(worker, [Router(ORDERS)]).run(until_idle=True)).dead_letters == 0
    assert len(await records(worker, "mad.decisions")) == 1


async def test_a_registry_that_is_away_lets_nothing_be_written() -> None:
    registry, backend = Numbers(), MemoryLog()
    registry.away = True
    log = await EventLog.open(backend, registry)
    with pytest.raises(LogUnavailable):
        await log.append([said(1)])
    assert await backend.topics() == {}
    registry.away = False
    await log.append([said(1)])
    assert await texts(log) == ([event_id(1)], [])


async def test_a_repeat_in_the_other_format_is_a_repeat_and_other_content_is_not() -> None:
    registry, backend = Numbers(), MemoryLog()
    keyed = said(1).model_copy(update={"idempotency_key": "k"})
    (first,) = await (await EventLog.open(backend)).append([keyed])
    log = await EventLog.open(backend, registry)
    (again,) = await log.append([keyed])
    assert (again.repeated, again.position) == (True, first.position)
    with pytest.raises(IdempotencyConflict):
        await log.append([keyed.model_copy(update={"tags": ("other",)})])


async def test_digests_are_equal_in_both_formats_and_in_a_mixture() -> None:
    registry = Numbers()
    # The first goes into the wrong partition, and so into a dead letter with its bytes.
    first: list[Turn | NewEvent] = [NewEvent(said(1), partition=WRONG[b"c1"]), said(2)]
    second: list[Turn | NewEvent] = [NewEvent(said(3), partition=WRONG[b"c1"]), said(4)]
    plain, framed, mixed = MemoryLog(), MemoryLog(), MemoryLog()
    await routed([first, second], *[await EventLog.open(plain) for _ in range(2)])
    await routed([first, second], *[await EventLog.open(framed, registry) for _ in range(2)])
    await routed([first, second], await EventLog.open(mixed), await EventLog.open(mixed, registry))
    wanted = await digest(await EventLog.open(plain))
    assert wanted["mad.dead-letters"].events == 2
    assert wanted["mad.decisions"].events == 2
    for backend in (framed, mixed):
        assert await digest(await EventLog.open(backend, registry)) == wanted
        # One topic alone: nothing else has told the ids of the records in its letters.
        alone = await digest(await EventLog.open(backend, registry), ["mad.dead-letters"])
        assert alone == {"mad.dead-letters": wanted["mad.dead-letters"]}
