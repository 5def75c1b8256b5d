"""The router: one Decision per agent that a turn is for, and live a Delivery to its inbox.

State, by conversation: `c/ID` who takes part and which actions were seen (changes seldom), `h/ID`
the counters of its past (changes with each event, so it is kept small). Shared: the newest decision
tree of mad.models and the last event of mad.control; each Decision names both.

`propensity` is the probability that the tier above also judges this decision: `audit_rate` where a
cheap tier settled it, drawn by a hash of the turn's id (`audited`), and 1.0 where the language
model settled it, because there is no tier above.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, TypeVar

from madlog.processors.dtr.features import NO_HISTORY, turn_features
from madlog.processors.dtr.seed_model import COMPONENT, seed_model
from madlog.processors.dtr.tree import ACTION_PREFIX, IMPERATOR, PROCESS, VERB_ROUTE, Leaf, Tree
from madlog.processors.errors import InvalidModel, NoModel
from madlog.processors.ports import Agent, Registry
from madlog.processors.step import State
from madlog.processors.tiers import MODEL_KEY
from madlog.schemas import Candidate, Decision, Delivery, Event, Sender, derived_event_id
from madlog.topics import LogEvent

__all__ = ("CONTROL_KEY", "MODEL_KEY", "Decides", "Router", "is_imported")

CONTROL_KEY = "@control"
_MODELS, _CONTROL = "mad.models", "mad.control"
_NO_AUDIT = {"propensity": 1.0, "audited": False}
_NO_CONVERSATION: Mapping[str, Any] = {
    "participants": {},
    "imported": False,
    "tools": None,
    "seen_actions": [],
}
_HASH_SPAN = 1 << 64
_ACTION_MAX = 64
# Which conversations a router decides: those that are lived now, those that were brought in from
# elsewhere, or all in retrospect.
Decides = Literal["live", "imported", "all"]
E = TypeVar("E", bound=Event)


def is_imported(fields: Mapping[str, Any]) -> bool:
    """Tell whether an event was brought in from a foreign log."""
    return fields["time_source"] != "observed" or fields["source"] is not None


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
    ) -> None:
        self._registry = registry or Registry()
        self._decides = decides
        # What is decided in retrospect never has the id of a decision that acted.
        self._sender = _LIVE if decides == "live" else Sender(name="retrospect", kind="system")
        self._max_error = max_error
        self._audit_rate = audit_rate
        # Parsed trees by their model's event_id: a cache, never state.
        self._trees: dict[str, Tree] = {}

    def share(self, shared: State, event: LogEvent) -> None:
        """Take up a published tree or the last Control event; raises InvalidModel."""
        fields = event.fields
        if event.record.topic == _CONTROL:
            shared[CONTROL_KEY] = event.event_id
        elif event.kind == "ModelPublished" and fields["component"] == COMPONENT:
            if fields["parameters"] is None:
                raise InvalidModel(
                    f"model {event.event_id} has no parameters in its event: the router reads "
                    "trees from the event itself"
                )
            self._trees[event.event_id] = Tree.parse(fields["parameters"])
            shared[MODEL_KEY] = {
                "event_id": event.event_id,
                "version": fields["version"],
                "parameters": fields["parameters"],
            }

    def prelude(self, shared: State) -> Sequence[Event]:
        """Return the first tree where the log has none."""
        return () if MODEL_KEY in shared else (seed_model(),)

    def step(self, state: State, event: LogEvent) -> Sequence[Event]:
        """Fold one event of a conversation; a turn gives its Decisions and Deliveries."""
        if event.kind == "Turn":
            return self._turn(state, event)
        if event.kind == "ConversationChanged":
            _fold_change(state, event.fields)
        elif event.kind == "ToolCall":
            _fold_call(state, event.fields)
        elif event.kind == "ToolResult":
            key, history = _history(state, event.fields)
            state[key] = {**history, "tool_ok": int(event.fields["ok"])}
        return ()

    def _turn(self, state: State, event: LogEvent) -> list[Event]:
        fields = event.fields
        conversation = state.get("c/" + fields["conversation_id"], _NO_CONVERSATION)
        key, history = _history(state, fields)
        imported = conversation["imported"] or is_imported(fields)
        outputs: list[Event] = []
        recipients = dict.fromkeys(fields["recipients"]) if self._covers(imported) else ()
        for number, name in enumerate(recipients):
            agent = self._agent(name, conversation, imported)
            if agent is None:
                continue
            decision = self._decide(state, fields, agent, history, 2 * number)
            outputs.append(decision)
            if self._decides == "live":
                outputs.append(_delivery(event, decision.event_id, name, 2 * number + 1))
        state[key] = {
            **history,
            "turns": history["turns"] + 1,
            "sender": fields["sender"]["name"],
            "ack": int(any(tag.lstrip("#").lower() == "ack" for tag in fields["tags"])),
            "intent": (fields["intent"] or "none").lower(),
        }
        return outputs

    def _covers(self, imported: bool) -> bool:
        return self._decides == "all" or imported == (self._decides == "imported")

    def answer(self, state: State, event: LogEvent, name: str) -> Decision | None:
        """Decide what an agent does when its tool has answered; None where it is no agent.

        The result must be folded already. Its features are those of data from the tools.
        """
        fields = event.fields
        _, history = _history(state, fields)
        conversation = state.get("c/" + fields["conversation_id"], _NO_CONVERSATION)
        agent = self._agent(name, conversation, conversation["imported"] or is_imported(fields))
        if agent is None:
            return None
        told = {"content_class": "fixed", "text": fields["result"] or fields["error"]}
        turn = {
            **fields,
            "parts": (told,),
            "recipients": (name,),
            "mentions": (),
            "tags": (),
            "intent": None,
        }
        return self._decide(state, turn, agent, history, 0)

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

    def _decide(
        self,
        state: State,
        fields: Mapping[str, Any],
        agent: Agent,
        history: Mapping[str, Any],
        index: int,
    ) -> Decision:
        model = state.get(MODEL_KEY)
        if model is None:
            raise NoModel
        turn_id = fields["event_id"]
        features = turn_features(fields, agent.name, agent.actions, history)
        leaf = self._tree(model).walk(features)
        route, reason, escalation = self._route(leaf, features["verb"], agent)
        tier = "imperator" if route == IMPERATOR else "dtr"
        return _copy(
            _DECISION,
            {
                **_derived(fields, turn_id, index, self._sender.name),
                "sender": self._sender,
                "turn_id": turn_id,
                "recipient": agent.name,
                "mode": "live" if self._decides == "live" else "retrospective",
                "tier": tier,
                "route": route,
                "confidence": leaf.confidence,
                "max_error": self._max_error,
                "features": features,
                "candidates": _candidates(leaf, route),
                "model_id": model["event_id"],
                "model_version": model["version"],
                "control_id": state.get(CONTROL_KEY),
                "reason": reason,
                **(self.audit(turn_id) if tier == "dtr" else _NO_AUDIT),
                "escalation": escalation,
            },
        )

    def _tree(self, model: Mapping[str, Any]) -> Tree:
        tree = self._trees.get(model["event_id"])
        if tree is None:
            tree = self._trees[model["event_id"]] = Tree.parse(model["parameters"])
        return tree

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


def _registered(route: str, actions: Collection[str]) -> bool:
    return route[len(ACTION_PREFIX) :] in actions


def _history(state: State, fields: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    key = "h/" + fields["conversation_id"]
    return key, state.get(key, NO_HISTORY)


def _fold_change(state: State, fields: Mapping[str, Any]) -> None:
    key = "c/" + fields["conversation_id"]
    old = state.get(key, _NO_CONVERSATION)
    new = {**old, "imported": old["imported"] or is_imported(fields)}
    name, kind = fields["participant"], fields["participant_kind"]
    if name is not None and fields["change"] == "left":
        new["participants"] = {
            who: what for who, what in old["participants"].items() if who != name
        }
    elif name is not None and kind is not None:
        new["participants"] = {**old["participants"], name: kind}
    tools = fields["metadata"].get("tools")
    if fields["change"] == "created" and tools is not None:
        new["tools"] = _names(tools)
    if new != old:
        state[key] = new


def _names(text: str) -> list[str]:
    try:
        value = json.loads(text)
    except ValueError:
        return []
    return sorted({item for item in value if isinstance(item, str)}) if type(value) is list else []


def _fold_call(state: State, fields: Mapping[str, Any]) -> None:
    key, history = _history(state, fields)
    # A category name has no blanks and is short; a foreign action may be neither.
    action = "_".join(fields["action"].split())[:_ACTION_MAX] or "none"
    state[key] = {**history, "calls": history["calls"] + 1, "action": action}
    key = "c/" + fields["conversation_id"]
    old = state.get(key, _NO_CONVERSATION)
    if old["tools"] is None and fields["action"] not in old["seen_actions"]:
        state[key] = {**old, "seen_actions": [*old["seen_actions"], fields["action"]]}


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
