"""What guards know: acts, their results, orders and spending, folded from the log up to its end.

The order in which topics are read does not matter; within a conversation it is the log's. Kept in
memory: the acts that are not settled, one entry for each settled act, for each pair of arguments
that a `once-per` rule remembers, and for each act of the last 31 days.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from madlog.processors.acting.budgets import Used
from madlog.processors.acting.orders import Orders
from madlog.processors.acting.proposal import Proposal, Tier, object_of
from madlog.processors.acting.rules import Happened, OnceKey, Rule, key_of, parse_rule
from madlog.processors.dtr.tree import ACTION_PREFIX, IMPERATOR
from madlog.processors.ports import Registry
from madlog.processors.router import is_imported
from madlog.topics import EventLog, LogEvent, Vector
from madlog.topics.log import OnDamage, log_damage

__all__ = (
    "CALL_KEY",
    "REFUSAL_KEY",
    "TOPICS",
    "UNKNOWN",
    "VOID",
    "WORKER",
    "Call",
    "Facts",
)

TOPICS = ("mad.control", "mad.decisions", "mad.outcomes", "mad.llm", "mad.conversations")
# How the acts of this package are told from those of others: keys CALL_KEY/ACT/ATTEMPT and
# REFUSAL_KEY/ACT; in `extra` of a result, that the call did not run, or that nobody knows.
CALL_KEY, REFUSAL_KEY = "act", "guard"
VOID, UNKNOWN = "void", "unknown"
# The record header that names the worker whose announcement of an act came first.
WORKER = "worker"
TIMEOUT_S = 60.0
_SECOND_US = 1_000_000


def _proposal(call: "Call") -> Proposal:
    fields, extra = call.event.fields, call.event.fields["extra"]
    return Proposal(
        decision_id=extra.get("decision", call.act_id or call.call_id),
        conversation_id=call.conversation_id,
        agent=call.agent,
        action=call.action,
        arguments=fields["arguments"],
        tier=cast(Tier, extra.get("tier", IMPERATOR)),
        occurred_at=fields["occurred_at"],
        correlation_id=fields["correlation_id"],
        number=int(extra.get("number", "0")),
        subject=fields["subject"],
        cause_id=fields["causation_id"],
        asker=extra.get("asker"),
    )


@dataclass(frozen=True, slots=True)
class Call:
    """A ToolCall whose result the log does not hold yet; `act_id` None: not made by an actor."""

    call_id: str
    act_id: str | None
    agent: str
    action: str
    given: Mapping[str, Any] | None
    conversation_id: str
    appended_at: int
    idempotent: bool
    worker: str
    event: LogEvent

    @property
    def proposal(self) -> Proposal:
        """What was proposed, as the call itself says it."""
        return _proposal(self)


class Facts:
    """The fold; `rules` holds the preconditions of each (agent, action); raises InvalidRule."""

    def __init__(self, registry: Registry) -> None:
        self.rules: dict[tuple[str, str], tuple[Rule, ...]] = {
            (agent.name, action): tuple(map(parse_rule, agent.contract(action).preconditions))
            for agent in registry.values()
            for action in agent.actions
        }
        self.orders = Orders()
        self.used = Used()
        self.decisions: dict[str, LogEvent] = {}
        self.calls: dict[str, Call] = {}
        self.settled: dict[str, Literal["ran", "refused"]] = {}
        # Announced and not run: how often, and the last call of those that are still to run.
        self.void: dict[str, int] = {}
        self.voided: dict[str, Call] = {}
        # The calls of which somebody said that nobody knows what they came to.
        self.unknown: set[str] = set()
        self._registry = registry
        self._read = Vector()
        self._claims: dict[str, Call] = {}
        # What registered agents did by themselves: (agent, action, the event that it was about).
        self._by_agents: set[tuple[str, str, str]] = set()
        self._succeeded: dict[str, set[str]] = defaultdict(set)
        self._done: dict[OnceKey, Happened] = {}
        self._named: set[str] = set()
        self._once: dict[str, set[tuple[str, ...]]] = defaultdict(set)
        for (_, action), rules in self.rules.items():
            for rule in rules:
                if rule.action is not None:
                    self._named.add(rule.action)
                if rule.once is not None:
                    self._once[action].add(rule.once)

    async def read(self, log: EventLog, on_damage: OnDamage = log_damage) -> None:
        """Read on to the log's end."""
        there = await log.log.topics()
        end = await log.log.end([name for name in TOPICS if name in there])
        async for events in log.read_topics(TOPICS, start=self._read, end=end, on_damage=on_damage):
            for event in events:
                self.fold(event)
        self._read = end

    def fold(self, event: LogEvent) -> None:
        """Take up one event."""
        fields = event.fields
        if event.kind == "Control":
            self.orders.fold(event)
        elif event.kind == "Decision":
            ours = _wants_to_act(fields) and fields["recipient"] in self._registry
            if ours and event.event_id not in self.settled:
                self.decisions[event.event_id] = event
        elif event.kind == "ToolCall":
            self._call(event)
        elif event.kind == "ToolResult":
            self._result(fields)
        elif event.kind == "LlmCall":
            # What a call cost that nobody knows cannot be counted, and is not taken for nothing.
            if fields["cost_usd"] is not None and not is_imported(fields):
                at = event.record.appended_at
                self.used.cost(fields["sender"]["name"], at, fields["cost_usd"])
        elif event.kind == "Outcome" and fields["judged_by"].startswith("guard-"):
            what, _, act_id = (fields["idempotency_key"] or "").partition("/")
            if what == REFUSAL_KEY:
                self._settle(act_id, "refused")

    def known(self, act_id: str) -> bool:
        """Tell whether the log holds anything about an act but what proposed it."""
        held = (self.settled, self._claims, self.void, self.orders.asks)
        return any(act_id in one for one in held)

    def done_otherwise(self, proposal: Proposal) -> bool:
        """Tell whether the agent did this by itself about the same turn; then it is settled."""
        about = (proposal.decision_id, proposal.turn_id)
        keys = ((proposal.agent, proposal.action, one or "") for one in about)
        if not any(key in self._by_agents for key in keys):
            return False
        self._settle(proposal.act_id, "ran")
        return True

    def claim(self, act_id: str) -> Call | None:
        """Return the call that was announced for an act and has no result yet."""
        return self._claims.get(act_id)

    def succeeded(self, conversation_id: str, action: str) -> bool:
        """Tell whether an action had success in a conversation."""
        return action in self._succeeded.get(conversation_id, ())

    def happened(self, key: OnceKey, now: int, except_call: str | None) -> Happened:
        """Tell what is known of the calls of an action with these values, but for one call."""
        found: Happened = self._done.get(key, "never")
        if found == "done":
            return found
        action, names, _ = key
        for call in self.calls.values():
            if call.call_id == except_call or call.action != action or call.given is None:
                continue
            if key_of(action, names, call.given) == key:
                # What has had its time and says nothing may have happened.
                if now > self.time_up(call):
                    return "perhaps"
                found = "under-way" if found == "never" else found
        return found

    def running_in(self, conversation_id: str, except_call: str | None) -> Call | None:
        """Return an act that is under way in a conversation."""
        for call in self._claims.values():
            if call.conversation_id == conversation_id and call.call_id != except_call:
                return call
        return None

    def time_up(self, call: Call) -> int:
        """Return when a call's time is up: after that nobody waits for it any more."""
        return call.appended_at + self.timeout_us(call)

    def timeout_us(self, call: Call) -> int:
        """Return how long a call may take, in µs."""
        agent = self._registry.get(call.agent)
        given = agent.contract(call.action).timeout_s if agent else None
        return int((TIMEOUT_S if given is None else given) * _SECOND_US)

    def _call(self, event: LogEvent) -> None:
        fields = event.fields
        what, _, rest = (fields["idempotency_key"] or "").partition("/")
        act_id = rest.partition("/")[0] if what == CALL_KEY else None
        agent, action = fields["sender"]["name"], fields["action"]
        if not is_imported(fields):
            self.used.act(agent, self._risk(agent, action), event.record.appended_at)
        if act_id is None and agent in self._registry:
            about = (fields["causation_id"], fields["seen"])
            self._by_agents.update((agent, action, one) for one in about if one is not None)
        if act_id is None and action not in self._named and action not in self._once:
            return
        call = Call(
            event.event_id,
            act_id,
            agent,
            action,
            object_of(fields["arguments"]),
            fields["conversation_id"],
            event.record.appended_at,
            bool(fields["idempotent"]),
            (event.header(WORKER) or b"").decode(),
            event,
        )
        self.calls[call.call_id] = call
        if act_id is not None:
            self._claims[act_id] = call

    def _risk(self, agent: str, action: str) -> Any:
        return self._registry[agent].contract(action).risk if agent in self._registry else "low"

    def _result(self, fields: Mapping[str, Any]) -> None:
        call = self.calls.pop(fields["call_id"] or "", None)
        if call is None:
            return
        if call.act_id is not None:
            self._claims.pop(call.act_id, None)
            if VOID in fields["extra"]:
                self.void[call.act_id] = self.void.get(call.act_id, 0) + 1
                if call.act_id not in self.settled:
                    self.voided[call.act_id] = call
                risk = self._risk(call.agent, call.action)
                self.used.undo(call.agent, risk, call.appended_at)
                return
            self._settle(call.act_id, "ran")
        if fields["ok"] and call.action in self._named:
            self._succeeded[call.conversation_id].add(call.action)
        perhaps = UNKNOWN in fields["extra"]
        if perhaps:
            self.unknown.add(call.call_id)
        if call.given is None or not (fields["ok"] or perhaps):
            return
        for names in self._once.get(call.action, ()):
            key = key_of(call.action, names, call.given)
            if key is not None and self._done.get(key) != "done":
                self._done[key] = "done" if fields["ok"] else "perhaps"

    def _settle(self, act_id: str, how: Literal["ran", "refused"]) -> None:
        self.settled.setdefault(act_id, how)
        self.voided.pop(act_id, None)
        self.decisions.pop(act_id, None)


def _wants_to_act(fields: Mapping[str, Any]) -> bool:
    return (
        fields["mode"] == "live"
        and fields["tier"] != IMPERATOR
        and str(fields["route"]).startswith(ACTION_PREFIX)
    )
