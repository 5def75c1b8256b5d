"""The router's step: decisions and deliveries of single events, without any log."""

from typing import Any

import pytest

from madlog.processors import Agent, InvalidModel, NoModel, Registry, Router
from madlog.processors.dtr.seed_model import seed_model
from madlog.schemas import (
    ConversationChanged,
    Decision,
    Delivery,
    Event,
    ModelPublished,
    Schemas,
    Sender,
    Source,
    ToolCall,
    ToolResult,
    Turn,
    encode,
    fields_of,
)
from madlog.schemas.text import parse
from madlog.topics import LogEvent, Record

MARIA = Sender(name="maria", kind="human")
IMPORTED: dict[str, Any] = {
    "time_source": "synthetic",
    "source": Source(format="openai-chat", sha256="0" * 64, line=1),
}
SCHEMAS = Schemas()


class Bench:
    """A router with a state, fed with one event after the other."""

    def __init__(self, *agents: Agent, **settings: Any) -> None:
        self.router = Router(Registry(agents), **settings)
        self.state: dict[str, Any] = {}
        self.number = 0
        for event in self.router.prelude(self.state):
            self.router.share(self.state, self.log_event(event, "mad.models"))

    def log_event(self, event: Event, topic: str = "mad.conversations") -> LogEvent:
        value = encode(event)
        record = Record(topic, 0, self.number, b"", value, (), 0)
        return LogEvent(record, *SCHEMAS.decode_fields(value))

    def feed(self, model: type[Event], **fields: Any) -> list[Event]:
        self.number += 1
        event = model(
            **{
                "event_id": f"01890000-0000-7000-8000-{self.number:012x}",
                "conversation_id": "c",
                "sender": MARIA,
                "occurred_at": self.number,
                **fields,
            }
        )
        return list(self.router.step(self.state, self.log_event(event)))

    def join(self, name: str, kind: str = "mad", **fields: Any) -> None:
        changed = {"change": "joined", "participant": name, "participant_kind": kind, **fields}
        assert self.feed(ConversationChanged, **changed) == []

    def say(self, text: str, *to: str, **fields: Any) -> list[Event]:
        parsed = parse(text)
        content = {"parts": parsed.parts, "tags": parsed.tags, "mentions": parsed.mentions}
        return self.feed(Turn, recipients=to, **content, **fields)

    def decide(self, text: str, to: str = "orders", **fields: Any) -> Decision:
        decision = self.say(text, to, **fields)[0]
        assert isinstance(decision, Decision)
        return decision


ORDERS = Agent("orders", actions=frozenset({"get_order"}))


def test_a_live_turn_gives_a_valid_decision_and_a_delivery_of_its_bytes() -> None:
    bench = Bench(ORDERS)
    decision, delivery = bench.say("Where is it?", "orders", correlation_id="case-1")
    assert isinstance(decision, Decision)
    assert isinstance(delivery, Delivery)
    assert Decision.model_validate(fields_of(decision)) == decision
    assert Delivery.model_validate(fields_of(delivery)) == delivery
    assert (decision.mode, decision.tier, decision.route) == ("live", "imperator", "imperator")
    assert decision.turn_id == decision.causation_id == decision.seen
    assert decision.occurred_at == bench.number
    assert decision.correlation_id == "case-1"
    assert (decision.model_id, decision.model_version) == (seed_model().event_id, "seed-1")
    assert delivery.decision_id == delivery.causation_id == decision.event_id
    turn = SCHEMAS.decode(delivery.turn)
    assert isinstance(turn, Turn)
    assert turn.text == "Where is it?"


@pytest.mark.parametrize(
    ("text", "tier", "route"),
    [
        ("@orders get_order 4711", "dtr", "action:get_order"),
        ("EXECUTE: get_order 4711", "dtr", "action:get_order"),
        ("EXECUTE: delete_all", "imperator", "imperator"),
        ("HRU?", "dtr", "health"),
        ("@orders #ack", "dtr", "ack"),
        ("ACK", "dtr", "ack"),
        ("ok", "imperator", "imperator"),
        ("Please get_order 4711", "imperator", "imperator"),
        ("", "imperator", "imperator"),
    ],
)
def test_the_first_tree_routes_by_form(text: str, tier: str, route: str) -> None:
    decision = Bench(ORDERS).decide(text)
    assert (decision.tier, decision.route) == (tier, route)


def test_each_agent_among_the_recipients_gets_its_own_decision_and_people_get_none() -> None:
    bench = Bench(ORDERS)
    bench.join("payments")
    bench.join("helper", "emad")
    bench.join("jonas", "human")
    outputs = bench.say("get_order 1", "orders", "jonas", "payments", "helper", "stranger")
    decided = [event.recipient for event in outputs if isinstance(event, Decision)]
    delivered = [event.recipient for event in outputs if isinstance(event, Delivery)]
    assert decided == delivered == ["orders", "payments", "helper"]
    assert len({event.event_id for event in outputs}) == 6


def test_an_agent_named_twice_is_decided_once() -> None:
    assert len(Bench(ORDERS).say("hello", "orders", "orders")) == 2


def test_who_has_left_is_no_longer_an_agent_here() -> None:
    bench = Bench()
    bench.join("orders")
    bench.feed(ConversationChanged, change="left", participant="orders")
    assert bench.say("hello", "orders") == []


def test_a_live_router_leaves_what_was_brought_in_alone() -> None:
    bench = Bench(ORDERS)
    bench.join("orders", **IMPORTED)
    assert bench.say("EXECUTE: get_order 1", "orders") == []


def test_a_router_of_what_was_brought_in_leaves_what_is_lived_alone() -> None:
    bench = Bench(ORDERS, decides="imported")
    assert bench.say("EXECUTE: get_order 1", "orders") == []


def test_in_retrospect_a_lived_turn_is_decided_by_another_name_and_not_delivered() -> None:
    (decision,) = Bench(ORDERS, decides="all").say("EXECUTE: get_order 1", "orders")
    assert isinstance(decision, Decision)
    assert (decision.mode, decision.sender.name) == ("retrospective", "retrospect")
    assert decision.event_id != Bench(ORDERS).decide("EXECUTE: get_order 1").event_id


@pytest.mark.parametrize(
    ("text", "escalation"),
    [("HRU?", None), ("Please help", "left"), ("EXECUTE: get_order 1", None)],
)
def test_a_decision_says_why_it_went_up(text: str, escalation: str | None) -> None:
    assert Bench(ORDERS).decide(text).escalation == escalation


def test_a_promise_or_a_version_that_keeps_the_tree_out_is_named() -> None:
    assert Bench(ORDERS, max_error=0.0).decide("HRU?").escalation == "promise"
    early = Agent("orders", version="V1")
    assert Bench(early).decide("HRU?").escalation == "version"


def test_an_imported_turn_is_decided_in_retrospect_and_never_delivered() -> None:
    bench = Bench(ORDERS, decides="imported")
    bench.feed(
        ConversationChanged,
        change="created",
        metadata={"tools": '["cancel", "book"]'},
        **IMPORTED,
    )
    bench.join("agent", **IMPORTED)
    (decision,) = bench.say("EXECUTE: cancel 1", "agent", **IMPORTED)
    assert isinstance(decision, Decision)
    assert (decision.mode, decision.route) == ("retrospective", "action:cancel")
    assert (decision.time_source, decision.source) == ("synthetic", None)


def test_a_turn_said_later_in_an_imported_conversation_acts_on_nothing_either() -> None:
    bench = Bench(ORDERS, decides="imported")
    bench.join("orders", **IMPORTED)
    (decision,) = bench.say("EXECUTE: get_order 1", "orders")
    assert isinstance(decision, Decision)
    # The live registry does not count in a conversation that was brought in.
    assert (decision.mode, decision.tier) == ("retrospective", "imperator")


def test_without_a_tool_list_the_actions_seen_so_far_are_the_registry() -> None:
    bench = Bench(decides="imported")
    bench.join("agent", **IMPORTED)
    before = bench.decide("EXECUTE: book 1", "agent", **IMPORTED)
    bench.feed(ToolCall, action="book", arguments="{}", **IMPORTED)
    after = bench.decide("EXECUTE: book 1", "agent", **IMPORTED)
    assert (before.tier, after.tier) == ("imperator", "dtr")


@pytest.mark.parametrize("tools", ["", "not json", "7", '{"a": 1}'])
def test_a_tool_list_that_is_none_registers_nothing(tools: str) -> None:
    bench = Bench(decides="imported")
    bench.feed(ConversationChanged, change="created", metadata={"tools": tools}, **IMPORTED)
    bench.join("agent", **IMPORTED)
    assert bench.decide("EXECUTE: book 1", "agent", **IMPORTED).tier == "imperator"


def test_an_agent_without_a_tree_is_left_to_its_language_model() -> None:
    bench = Bench(Agent("orders", version="V1", actions=frozenset({"get_order"})))
    decision = bench.decide("EXECUTE: get_order 1")
    assert (decision.tier, decision.reason) == (
        "imperator",
        "orders is V1, which has no decision tree",
    )


def test_a_route_that_cannot_keep_the_promised_error_escalates() -> None:
    decision = Bench(ORDERS, max_error=0.001).decide("HRU?")
    assert (decision.tier, decision.max_error) == ("imperator", 0.001)
    assert "promised error" in decision.reason
    assert [candidate.route for candidate in decision.candidates] == ["imperator", "health"]


def test_a_tree_cannot_run_what_the_recipient_has_not_registered() -> None:
    bench = Bench(ORDERS)
    text = '{"format":"tree-1","root":{"route":"action:delete_all","confidence":1}}'
    learned = seed_model().model_copy(update={"parameters": text, "version": "2"})
    bench.router.share(bench.state, bench.log_event(learned, "mad.models"))
    decision = bench.decide("hello")
    assert (decision.tier, decision.model_version) == ("imperator", "2")
    assert decision.reason == "action:delete_all is not a registered action of orders"


def test_a_bad_model_is_refused_and_the_one_before_stays() -> None:
    bench = Bench(ORDERS)
    for parameters in ("{}", None):
        bad = seed_model().model_copy(update={"parameters": parameters, "version": "bad"})
        with pytest.raises(InvalidModel):
            bench.router.share(bench.state, bench.log_event(bad, "mad.models"))
    assert bench.decide("HRU?").model_version == "seed-1"


def test_another_component_s_model_is_not_the_router_s() -> None:
    bench = Bench(ORDERS)
    other = ModelPublished(**{**fields_of(seed_model()), "component": "lppm", "version": "9"})
    bench.router.share(bench.state, bench.log_event(other, "mad.models"))
    assert bench.decide("HRU?").model_version == "seed-1"


def test_without_a_model_nothing_is_decided() -> None:
    bench = Bench(ORDERS)
    bench.state.clear()
    with pytest.raises(NoModel):
        bench.decide("HRU?")


def test_the_last_control_event_is_named() -> None:
    bench = Bench(ORDERS)
    assert bench.decide("hello").control_id is None
    control = bench.log_event(seed_model(), "mad.control")
    bench.router.share(bench.state, control)
    assert bench.decide("hello").control_id == control.event_id


def test_a_fixed_share_of_what_the_tree_settles_is_audited() -> None:
    bench = Bench(ORDERS, audit_rate=0.25)
    decisions = [bench.decide("HRU?") for _ in range(400)]
    assert 60 <= sum(decision.audited for decision in decisions) <= 140
    assert {decision.propensity for decision in decisions} == {0.25}
    escalated = bench.decide("hello?")
    assert (escalated.audited, escalated.propensity) == (False, 1.0)


def test_the_conversation_s_past_is_counted() -> None:
    bench = Bench(ORDERS)
    first = bench.decide("hello").features
    bench.feed(ToolCall, action="get_order", arguments="{}")
    bench.feed(ToolResult, ok=False)
    bench.say("#ack", "maria")
    second = bench.decide("hello").features
    names = ("turns_before", "calls_before", "last_tool_ok", "last_ack", "same_sender")
    assert [first[name] for name in names] == [0, 0, -1, -1, -1]
    assert [second[name] for name in names] == [2, 1, 0, 1, 1]


def test_the_same_events_give_the_same_bytes() -> None:
    def run() -> list[bytes]:
        bench = Bench(ORDERS)
        bench.join("payments")
        texts = ("HRU?", "EXECUTE: get_order 1", "hello")
        return [encode(event) for text in texts for event in bench.say(text, "orders", "payments")]

    assert run() == run()


def test_a_conversation_cannot_name_itself_into_the_shared_state() -> None:
    bench = Bench(ORDERS)
    bench.feed(Turn, conversation_id="@model", recipients=("orders",))
    assert bench.decide("HRU?").model_version == "seed-1"


def test_state_values_are_replaced_and_never_changed_in_place() -> None:
    bench = Bench(ORDERS)
    bench.join("orders")
    bench.say("hello", "orders")
    before = dict(bench.state)
    bench.join("payments")
    bench.feed(ToolCall, action="get_order", arguments="{}")
    bench.say("hello", "orders")
    assert before["c/c"]["participants"] == {"orders": "mad"}
    assert before["h/c"]["turns"] == 1
