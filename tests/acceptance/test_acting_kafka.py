"""Acting on a real broker: two workers, each act once, each order refunded once."""

import asyncio
from collections import Counter

from tests.unit.acting_scene import FakeEngine, Scene

from madlog.topics.clock import SystemClock
from madlog.wiring import open_event_log


async def test_two_workers_on_kafka_do_each_act_once_and_refund_each_order_once(
    kafka_url: str, kafka_prefix: str
) -> None:
    url = f"{kafka_url}?prefix={kafka_prefix}-"
    one, two = await open_event_log(url), await open_event_log(url)
    try:
        here, there = Scene(log=one), Scene(log=two)
        here.clock.us = SystemClock().now_us()
        engines = [FakeEngine(), FakeEngine()]
        for number in range(12):
            order = {"order_id": number // 3, "amount_eur": 5}
            await here.decide("refund", order, conversation=f"c{number}")
        actors = [here.another(engines[0]), there.another(engines[1])]
        for _ in range(6):
            await asyncio.gather(*(actor.run() for actor in actors))
        orders = Counter(arguments for engine in engines for _, arguments, _ in engine.did)
        assert sorted(orders.values()) == [1, 1, 1, 1]
        assert await here.refusals() == ["once-per:order_id"] * 8
        await here.control("stop", "all")
        await here.decide("refund", {"order_id": 99, "amount_eur": 5})
        assert (await actors[1].run()).refused == 1
    finally:
        await one.close()
        await two.close()
