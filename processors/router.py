"""The router: one Decision per agent that a turn is for, and live a Delivery to its inbox.

The decision tree goes first, a learned process takes what it leaves if it can, and the language
model has the rest. Control goes before all three: a kill switch, a route for all, a roll-out.

State, by conversation: `c/ID` who takes part and which actions were seen (changes seldom), `h/ID`
the counters of its past (changes with each event, so it is kept small); where registered agents
live also what a process is conducted by: see past.py and conducting/instance.py. Shared: the
published models and what holds by mad.control; each Decision names the model and the last Control.

`propensity` is the probability that the tier above also judges this decision: `audit_rate` where a
cheap tier settled it, drawn by a hash of the turn's id (`audited`), and 1.0 where the language
model settled it, because there is no tier above.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, TypeVar

from madlog.processors.conducting.instance import Conductor, Move, command_of
from madlog.processors.conducting.tier import conducted, directed
from madlog.processors.control import NOTHING, overridden, stopped
from madlog.processors.dtr.features import turn_features
from madlog.processors.dtr.seed_model import seed_model
from madlog.processors.dtr.tree import ACTION_PREFIX, IMPERATOR, PROCESS, VERB_ROUTE, Leaf
from madlog.processors.escalations import SWITCHED_OFF
from madlog.processors.history import (
    conversation_of,
    fold_call,
    fold_change,
    fold_result,
    history_of,
    is_imported,
)
from madlog.processors.past import forget, past_of, remember
from madlog.processors.ports import Agent, Registry
from madlog.processors.serving import CONTROL_KEY, Serving, controls_of
from madlog.processors.step import State
from madlog.processors.tiers import MODEL_KEY, Published
from madlog.schemas import Candidate, Decision, Delivery, Event, Sender, derived_event_id
from madlog.topics import LogEvent

__all__ = ("CONTROL_KEY", "MODEL_KEY", "Decides", "Router", "is_imported")

_MODELS, _CONTROL = "mad.models", "mad.control"
_NO_AUDIT = {"propensity": 1.0, "audited": False}
# Ids of the moves of the agents that a turn is for, and of the agent that sent it, lie apart.
_MOVES_MAX = 1_000
_OWN = 1_000_000
# So many of an agent's newest decisions are known again when it acts on one.
_DECIDED_MAX = 8
_HASH_SPAN = 1 << 64
# Which conversations a router decides: those that are lived now, those that were brought in from
# elsewhere, or all in retrospect.
Decides = Literal["live", "imported", "all"]
E = TypeVar("E", bound=Event)


class Router:
    """The processor that decides, for each agent, which tier settles a turn."""

    name = "router"
    inputs: tuple[str, ...] = ("mad.conversations",)
    shared: tuple[str, ...] = (_MODELS, _CONTROL)

    def __init__(
        self,
        registry: Registry | None = None,
        *,
        max_error: float = 0.05,
        audit_rate: float = 0.02,
        decides: Decides = "live",
        get_blob: Callable[[str], bytes] | None = None,
        serving: Serving | None = None,
        delivers: bool = True,
        remembers: bool = True,
    ) -> None:
        self._registry = registry or Registry()
        self._decides = decides
        # What is decided in retrospect never has the id of a decision that acted.
        self._sender = _LIVE if decides == "live" else Sender(name="retrospect", kind="system")
        self._max_error = max_error
        self._audit_rate = audit_rate
        self._serving = serving or Serving(get_blob)
        self._delivers, self._remembers = delivers, remembers
        # Only where agents live here is there anything to conduct.
        self._lives = decides == "live" and len(self._registry) > 0

    def share(self, shared: State, event: LogEvent) -> None:
        """Take up a model or a Control event; raises InvalidModel, InvalidControl."""
        self._serving.share(shared, event)

    def prelude(self, shared: State) -> Sequence[Event]:
        """Return the first tree where the log has none."""
        return () if MODEL_KEY in shared else (seed_model(),)

    def step(self, state: State, event: LogEvent) -> Sequence[Event]:
        """Fold one event of a conversation; a turn gives its Decisions and Deliveries."""
        fields = event.fields
        lives = self._lives and not (
            is_imported(fields) or conversation_of(state, fields)["imported"]
        )
        # What a person tells a process is no part of the work that it learned.
        if lives and self._remembers and not (event.kind == "Turn" and command_of(fields)):
            remember(state, event)
        if event.kind == "Turn":
            return [*(self._spoke(state, fields) if lives else ()), *self._turn(state, event)]
        if event.kind == "ConversationChanged":
            fold_change(state, fields)
            if lives and fields["change"] == "archived":
                forget(state, fields["conversation_id"])
        elif event.kind == "ToolCall":
            fold_call(state, fields)
            return self._called(state, fields) if lives else ()
        elif event.kind == "ToolResult":
            fold_result(state, fields)
            return self._answered(state, fields) if lives else ()
        elif event.kind == "TimerFired" and lives:
            return self._timed_out(state, fields)
        return ()

    def _turn(self, state: State, event: LogEvent) -> list[Event]:
        fields = event.fields
        conversation = conversation_of(state, fields)
        key, history = history_of(state, fields)
        imported = conversation["imported"] or is_imported(fields)
        outputs: list[Event] = []
        recipients = dict.fromkeys(fields["recipients"]) if self._covers(imported) else ()
        for number, name in enumerate(recipients):
            agent = self._agent(name, conversation, imported)
            if agent is None:
                continue
            decision, *more = self._decided(state, fields, agent, history, 2 * number)
            outputs.append(decision)
            if self._decides == "live":
                if self._delivers:
                    outputs.append(_delivery(event, decision.event_id, name, 2 * number + 1))
                outputs += more
        new = {
            **history,
            "turns": history["turns"] + 1,
            "sender": fields["sender"]["name"],
            "ack": int(any(tag.lstrip("#").lower() == "ack" for tag in fields["tags"])),
            "intent": (fields["intent"] or "none").lower(),
        }
        state[key] = new
        return outputs

    def _covers(self, imported: bool) -> bool:
        return self._decides == "all" or imported == (self._decides == "imported")

    def answer(self, state: State, event: LogEvent, name: str) -> Decision | None:
        """Decide what an agent does when its tool has answered; None where it is no agent.

        The result must be folded already. Its features are those of data from the tools.
        """
        fields = event.fields
        _, history = history_of(state, fields)
        conversation = conversation_of(state, fields)
        agent = self._agent(name, conversation, conversation["imported"] or is_imported(fields))
        if agent is None:
            return None
        model, _ = self._serving.models(state, fields["conversation_id"])
        return self._by(model, state, _as_turn(fields, name), agent, history, 0)

    def _agent(self, name: str, conversation: Mapping[str, Any], imported: bool) -> Agent | None:
        """Return the recipient as an agent; None where it is none, so that nothing is decided."""
        if not imported and name in self._registry:
            return self._registry[name]
        kind = conversation["participants"].get(name)
        if kind not in ("mad", "emad"):
            return None
        actions: Sequence[str] = ()
        if imported:
            tools = conversation["tools"]
            actions = conversation["seen_actions"] if tools is None else tools
        return Agent(name, kind, "V3", frozenset(actions))

    def _decided(
        self,
        state: State,
        turn: Mapping[str, Any],
        agent: Agent,
        history: Mapping[str, Any],
        index: int,
        conductor: Conductor | None = None,
        move: Move = "next",
    ) -> list[Event]:
        """Return the decision, what it moves, and what a candidate would have decided."""
        model, beside = self._serving.models(state, turn["conversation_id"])
        decision = self._by(model, state, turn, agent, history, index)
        if not self._lives or agent.name not in self._registry:
            return [decision]
        if conductor is None:
            conductor = Conductor(state, turn, agent, _MOVES_MAX * index)
        shadow = self._beside(beside, state, turn, agent, history, index)
        decision = directed(state, decision, turn, agent, model.models, conductor, move)
        if decision.tier == "lppm":
            decision = decision.model_copy(update=self.audit(decision.turn_id))
        if decision.tier != "dtr":
            key = _decided_key(turn, agent)
            state[key] = [*state.get(key, ())[1 - _DECIDED_MAX :], decision.event_id]
        return [decision, *conductor.moves, *shadow]

    def _beside(
        self,
        model: Published | None,
        state: State,
        turn: Mapping[str, Any],
        agent: Agent,
        history: Mapping[str, Any],
        index: int,
    ) -> list[Event]:
        if model is None:
            return []
        proposed = self._by(model, state, turn, agent, history, index, _SHADOW)
        decision = conducted(state, proposed, agent, model.models, None)
        # Whatever it says is judged, by what was done.
        return [decision.model_copy(update={"mode": "shadow", **_NO_AUDIT})]

    def _by(
        self,
        model: Published,
        state: State,
        fields: Mapping[str, Any],
        agent: Agent,
        history: Mapping[str, Any],
        index: int,
        sender: Sender | None = None,
    ) -> Decision:
        """Return what a model's decision tree says, Control before it."""
        sender = sender or self._sender
        turn_id = fields["event_id"]
        features = turn_features(fields, agent.name, agent.actions, history)
        leaf = model.models.tree.walk(features)
        route, reason, escalation = self._route(leaf, features["verb"], agent)
        controls = controls_of(state)
        if controls is not NOTHING:
            at = fields["occurred_at"]
            route, reason, escalation = _ruled(
                controls, agent, at, features["verb"], (route, reason, escalation)
            )
        tier = "imperator" if route == IMPERATOR else "dtr"
        return _copy(
            _DECISION,
            {
                **_derived(fields, turn_id, index, sender.name),
                "sender": sender,
                "turn_id": turn_id,
                "recipient": agent.name,
                "mode": "live" if self._decides == "live" else "retrospective",
                "tier": tier,
                "route": route,
                "confidence": leaf.confidence,
                "max_error": self._max_error,
                "features": features,
                "candidates": _candidates(leaf, route),
                "model_id": model.event_id,
                "model_version": model.version,
                "control_id": state.get(CONTROL_KEY),
                "reason": reason,
                **(self.audit(turn_id) if tier == "dtr" else _NO_AUDIT),
                "escalation": escalation,
            },
        )

    def _spoke(self, state: State, fields: Mapping[str, Any]) -> list[Event]:
        """Fold that an agent spoke: without a decision of ours it no longer waits for its act."""
        agent = self._registry.get(fields["sender"]["name"])
        if agent is None:
            return []
        conductor = Conductor(state, fields, agent, _OWN)
        waiting = conductor.waiting
        ours = _decision_of(fields) in state.get(_decided_key(fields, agent), ())
        if waiting is not None and waiting["call_id"] is None and not ours:
            conductor.left_alone()
        return list(conductor.moves)

    def _called(self, state: State, fields: Mapping[str, Any]) -> list[Event]:
        """Fold a call: the answer to one that we decided asks for the next decision."""
        agent = self._registry.get(fields["sender"]["name"])
        if agent is None:
            return []
        conductor = Conductor(state, fields, agent, 0)
        waiting, cause = conductor.waiting, _decision_of(fields)
        if cause in state.get(_decided_key(fields, agent), ()):
            state["k/" + fields["event_id"]] = agent.name
        if waiting is not None and waiting["call_id"] is None:
            if waiting["decision_id"] == cause:
                conductor.called(fields["event_id"])
            else:
                conductor.left_alone()
        return list(conductor.moves)

    def _answered(self, state: State, fields: Mapping[str, Any]) -> list[Event]:
        """Decide what comes after an answer that a process or the language model waits for."""
        call_id = fields["call_id"] or ""
        agent = self._registry.get(state.get("k/" + call_id, ""))
        if agent is None:
            return []
        del state["k/" + call_id]
        conductor = Conductor(state, fields, agent, 0)
        waiting = conductor.waiting
        move: Move = "next"
        if waiting is not None and waiting["call_id"] == call_id:
            model, _ = self._serving.models(state, fields["conversation_id"])
            past = past_of(state, fields["conversation_id"])
            act = next((act for act in reversed(past) if act.event_id == call_id), None)
            move = conductor.answered(act, model.models.processes.get(agent.name))
        elif waiting is not None:
            move = "none"
        return self._moved(state, fields, agent, conductor, move)

    def _timed_out(self, state: State, fields: Mapping[str, Any]) -> list[Event]:
        for agent in self._registry.values():
            conductor = Conductor(state, fields, agent, 0)
            move = conductor.timed_out(fields["about_id"])
            if move != "none":
                return self._moved(state, fields, agent, conductor, move)
        return []

    def _moved(
        self,
        state: State,
        fields: Mapping[str, Any],
        agent: Agent,
        conductor: Conductor,
        move: Move,
    ) -> list[Event]:
        if move in ("none", "paused"):
            return list(conductor.moves)
        _, history = history_of(state, fields)
        turn = _as_turn(fields, agent.name)
        return self._decided(state, turn, agent, history, 0, conductor, move)

    def _route(self, leaf: Leaf, verb: int | str, agent: Agent) -> tuple[str, str, str | None]:
        """Return where the turn goes, why, and why up: the tree proposes, the registry disposes."""
        route = f"{ACTION_PREFIX}{verb}" if leaf.route == VERB_ROUTE else leaf.route
        if route == IMPERATOR:
            return route, "the tree leaves such turns to the language model", "left"
        if agent.version in ("V1", "V2"):
            reason = f"{agent.name} is {agent.version}, which has no decision tree"
            return IMPERATOR, reason, "version"
        if leaf.confidence < 1.0 - self._max_error:
            reason = f"{route} at {leaf.confidence:g} cannot keep the promised error"
            return IMPERATOR, reason, "promise"
        if route == PROCESS:
            return IMPERATOR, "a process may settle it, and none is live", "process"
        if route.startswith(ACTION_PREFIX) and not _registered(route, agent.actions):
            reason = f"{route} is not a registered action of {agent.name}"
            return IMPERATOR, reason, "registry"
        return route, f"the tree settles such turns by {route}", None

    def audit(self, turn_id: str) -> dict[str, Any]:
        """Return what says whether the tier above also judges what a cheap tier settled."""
        return {"propensity": self._audit_rate, "audited": self._drawn(turn_id)}

    def _drawn(self, turn_id: str) -> bool:
        digest = hashlib.blake2b(turn_id.encode(), digest_size=8, person=b"audit").digest()
        return int.from_bytes(digest, "big") < self._audit_rate * _HASH_SPAN


def _decided_key(fields: Mapping[str, Any], agent: Agent) -> str:
    return f"d/{fields['conversation_id']}/{agent.name}"


def _decision_of(fields: Mapping[str, Any]) -> str | None:
    """Return the decision that an act follows, where its causation is not that one: in `extra`."""
    found: str | None = fields["extra"].get("decision", fields["causation_id"])
    return found


def _as_turn(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return an event that is no turn as one to an agent: data from a tool, or nothing."""
    text = fields.get("result") or fields.get("error")
    return {
        **fields,
        "parts": ({"content_class": "fixed", "text": text},),
        "recipients": (name,),
        "mentions": (),
        "tags": (),
        "intent": None,
    }


def _ruled(
    controls: Mapping[str, Any],
    agent: Agent,
    at: int,
    verb: int | str,
    said: tuple[str, str, str | None],
) -> tuple[str, str, str | None]:
    """Return what a tree said as far as Control lets it."""
    forced = overridden(controls, agent.name, at)
    if forced is not None:
        reason = f"Control gives {agent.name} the route {forced}"
        if forced == IMPERATOR:
            return IMPERATOR, reason, "override"
        if not forced.startswith(ACTION_PREFIX) or _registered(forced, agent.actions):
            return forced, reason, None
        return IMPERATOR, f"{reason}, which is no registered action", "override"
    if said[0] != IMPERATOR:
        off = stopped(controls, agent.name, "dtr", at)
        if off is not None:
            return IMPERATOR, off, SWITCHED_OFF
    return said


def _registered(route: str, actions: Collection[str]) -> bool:
    return route[len(ACTION_PREFIX) :] in actions


@lru_cache(maxsize=4096)
def _candidates(leaf: Leaf, route: str) -> tuple[Candidate, ...]:
    """Return the routes that were considered, the one taken first."""
    found = [Candidate(route=route, score=leaf.confidence)]
    if route != leaf.route and leaf.route != VERB_ROUTE:
        found.append(Candidate(route=leaf.route, score=leaf.confidence))
    if route != IMPERATOR:
        found.append(Candidate(route=IMPERATOR, score=1.0 - leaf.confidence))
    return tuple(found)


_LIVE = Sender(name=Router.name, kind="system")
_SHADOW = Sender(name="shadow", kind="system")
_NOBODY: dict[str, Any] = {
    "event_id": "00000000-0000-7000-8000-000000000000",
    "conversation_id": "c",
    "sender": _LIVE,
    "occurred_at": 0,
    "turn_id": "00000000-0000-7000-8000-000000000000",
    "recipient": "nobody",
}
_DECISION = Decision(
    **_NOBODY,
    mode="live",
    tier="imperator",
    route=IMPERATOR,
    confidence=1.0,
    max_error=0.0,
    model_id=_NOBODY["event_id"],
    model_version="",
    reason="",
    propensity=1.0,
    audited=False,
)
_DELIVERY = Delivery(**_NOBODY, decision_id=_NOBODY["event_id"], turn=b"")


def _copy(event: E, changes: dict[str, Any]) -> E:
    """Return a valid event with other valid values: `model_copy`, which costs three times this.

    What is put in comes from events that were validated when they were made.
    """
    made = event.__class__.__new__(event.__class__)
    object.__setattr__(made, "__dict__", {**event.__dict__, **changes})
    object.__setattr__(made, "__pydantic_fields_set__", event.__pydantic_fields_set__)
    object.__setattr__(made, "__pydantic_extra__", {})
    object.__setattr__(made, "__pydantic_private__", None)
    return made


def _derived(fields: Mapping[str, Any], causation_id: str, index: int, by: str) -> dict[str, Any]:
    """Return what the envelope of output number `index` has from its turn."""
    return {
        "event_id": derived_event_id(fields["event_id"], by, index),
        "conversation_id": fields["conversation_id"],
        "correlation_id": fields["correlation_id"],
        "causation_id": causation_id,
        "seen": fields["event_id"],
        "handler_step": index,
        "occurred_at": fields["occurred_at"],
        "time_source": fields["time_source"],
        "subject": fields["subject"],
    }


def _delivery(event: LogEvent, decision_id: str, recipient: str, index: int) -> Delivery:
    return _copy(
        _DELIVERY,
        {
            **_derived(event.fields, decision_id, index, Router.name),
            "recipient": recipient,
            "decision_id": decision_id,
            "turn_id": event.fields["event_id"],
            "turn": event.record.value,
        },
    )
