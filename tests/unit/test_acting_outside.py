"""Acting with what stands around it: an engine over HTTP, the Imperator's job, router and judge."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.unit.acting_scene import ANN, FakeEngine, Scene, agent
from tests.unit.counting import run
from tests.unit.imperator_scene import Told
from tests.unit.test_verify import missing

from madlog.analytics.verify import verify
from madlog.processors import Router
from madlog.processors.acting import Actor, Answer
from madlog.processors.acting.for_imperator import GuardedActs
from madlog.processors.imperator import Answer as Said
from madlog.processors.imperator import Escalations
from madlog.processors.outcomes import Judge, judge_log
from madlog.processors.ports import Action
from madlog.schemas import Turn
from madlog.schemas.text import parse


class Bank:
    """An HTTP server on the loopback that pays once for each key, and may cut the line after."""

    def __init__(self) -> None:
        self.paid: Counter[str] = Counter()
        self.cuts = False
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        key = next(line.split(": ")[1] for line in head.split("\r\n") if "Idempotency-Key" in line)
        length = next(int(line.split(": ")[1]) for line in head.split("\r\n") if "Length" in line)
        body = json.loads(await reader.readexactly(length))
        self.paid[key] += 1
        if self.cuts:
            writer.transport.abort()
            return
        status = b"200 OK" if body["amount"] <= 50 else b"422 Unprocessable"
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()
        await writer.wait_closed()


class HttpEngine:
    """Runs an action as a POST: 2xx is a result, another answer an error, no answer unknown."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def run(self, agent: str, action: str, arguments: str, key: str) -> Answer:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        body = arguments.encode()
        head = f"POST /{agent}/{action} HTTP/1.1\r\nIdempotency-Key: {key}\r\n"
        writer.write(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        try:
            status = (await reader.readuntil(b"\r\n")).split()[1]
        finally:
            writer.close()
        if status == b"200":
            return Answer(True, "{}")
        return Answer(False, error=f"HTTP {status.decode()}")


@asynccontextmanager
async def bank() -> AsyncIterator[Bank]:
    made = Bank()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made


async def test_an_engine_over_http_pays_once_and_tells_what_it_does_not_know() -> None:
    scene = Scene(agent(Action("pay", "medium", ("once-per:order",))))
    async with bank() as there:
        actor = scene.another(HttpEngine(there.port))
        paid = await scene.decide("pay", {"order": 1, "amount": 5})
        await scene.decide("pay", {"order": 2, "amount": 51}, conversation="d")
        done = await actor.run()
        assert (done.succeeded, done.failed) == (1, 1)
        there.cuts = True
        cut = await scene.decide("pay", {"order": 3, "amount": 5}, conversation="e")
        assert (await actor.run()).unknown == 1
        # Nobody knows of this order, so that no second payment for it is risked.
        await scene.decide("pay", {"order": 3, "amount": 5}, conversation="f")
        assert (await actor.run()).refused == 1
    assert (there.paid[paid], there.paid[cut]) == (1, 1)
    assert sum(there.paid.values()) == 3


def turn_to_shop(scene: Scene, text: str) -> Turn:
    return Turn(**scene.envelope(ANN), recipients=("shop",), parts=parse(text).parts)


async def test_a_command_goes_from_its_turn_through_router_and_guards_to_its_outcome() -> None:
    scene = Scene()
    turns = [turn_to_shop(scene, "COMMAND: refund || order_id=17 || amount_eur=5")]
    turns.append(turn_to_shop(scene, "COMMAND: refund || order_id=17 || amount_eur=5"))
    await scene.log.append(turns)
    await run(scene.log, Router(scene.registry))
    done = await scene.run()
    assert (done.succeeded, done.refused) == (1, 1)
    await judge_log(scene.log, Judge())
    first, second = sorted(
        (one for one in await scene.of("Decision") if one["tier"] == "dtr"),
        key=lambda one: one["turn_id"],
    )
    said = {(one["about_id"], one["judged_by"]): one["result"] for one in await scene.of("Outcome")}
    assert said[second["event_id"], "guard-once-per:order_id"] == "failure"
    assert said[first["event_id"], "tool"] in ("success", "partial")


def imperator(scene: Scene, actor: Actor, answer: Said) -> Escalations:
    told = Told(lambda _: answer)
    return Escalations(scene.log, scene.registry, {"shop": told}, acts=GuardedActs(actor))


async def test_what_a_language_model_decides_is_run_refused_or_asked_about() -> None:
    scene = Scene()
    await scene.log.append([turn_to_shop(scene, "I want my money back, order 17")])
    await run(scene.log, Router(scene.registry))
    said = Said.acts("refund", {"order_id": 17, "amount_eur": 5})
    assert (await imperator(scene, scene.actor, said).run()).failed == 0
    assert scene.engine.actions == ["refund"]
    await scene.log.append([turn_to_shop(scene, "And once more for order 17, please")])
    await run(scene.log, Router(scene.registry))
    await imperator(scene, scene.actor, said).run()
    assert scene.engine.actions == ["refund"]
    # The first is told; the model also answered the tool's result, and was refused there too.
    told, *_ = (one for one in await scene.of("Turn") if one["intent"] == "ERROR")
    assert list(told["recipients"]) == ["ann"]
    assert "was done before" in "".join(part["text"] for part in told["parts"])
    await scene.log.append([turn_to_shop(scene, "Then close my account for me")])
    await run(scene.log, Router(scene.registry))
    await imperator(scene, scene.actor, Said.acts("close_account", {})).run()
    (ask,) = await scene.of("Control")
    await scene.control("approve", about_id=ask["about_id"])
    engine = FakeEngine()
    assert (await scene.another(engine).run()).succeeded == 1
    assert engine.actions == ["close_account"]


async def test_an_act_of_a_language_model_over_its_budget_is_kept_and_run_later() -> None:
    scene = Scene()
    await scene.control("budget", name="none", value='{"acts": 0}')
    await scene.log.append([turn_to_shop(scene, "Where is the parcel of order 17?")])
    await run(scene.log, Router(scene.registry))
    job = imperator(scene, scene.actor, Said.acts("lookup_order", {"order_id": 17}))
    assert (await job.run()).failed == 1
    assert scene.engine.did == []
    await scene.control("budget", name="none")
    scene.clock.move(10)
    report: Any = await job.run()
    assert report.failed == 0
    assert scene.engine.actions == ["lookup_order"]


async def test_what_guards_let_go_up_is_verified_as_any_decision() -> None:
    scene = Scene()
    texts = ("COMMAND: refund || order_id=17 || amount_eur=500", "EXECUTE: lookup_order", "HRU?")
    await scene.log.append([turn_to_shop(scene, text) for text in texts])
    await run(scene.log, Router(scene.registry))
    await scene.control("flag", name="another", value="on")
    assert (await scene.run()).refused == 1
    await run(scene.log, Router(scene.registry))
    report = await verify(scene.log, missing, registry=scene.registry)
    assert (report.decisions, report.differences) == (4, [])
    (up,) = [
        one for one in await scene.read("mad.decisions") if one.fields["escalation"] == "guard"
    ]
    for changes in (
        {"reason": "it was nothing"},
        {"tier": "lppm"},
        {"causation_id": up.fields["turn_id"]},
    ):
        other = up.event.model_copy(update={**changes, "idempotency_key": str(changes)})
        await scene.log.append([other])
    report = await verify(scene.log, missing, registry=scene.registry)
    assert [sorted(one.fields) for one in report.differences] == [
        ["idempotency_key", "reason"],
        ["idempotency_key", "tier"],
        ["causation_id", "idempotency_key"],
    ]
