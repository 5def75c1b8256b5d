"""Decides the log again under a variant, by the router's own steps; nothing is called or appended.

A live turn is decided at its recorded past, by the model and the Control event that its Decision
names where the variant names none. What was brought in is decided as the retrospect does it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from madlog.analytics.decided_by import DecidedBy
from madlog.analytics.what_if.recorded import Recorded, RecordedDecisions, named
from madlog.analytics.what_if.variant import Variant
from madlog.processors.control import NOTHING, fold
from madlog.processors.ports import Registry
from madlog.processors.retrospect import Conversation, decide
from madlog.processors.router import Decides, Router
from madlog.processors.serving import CONTROL_KEY, CONTROLS_KEY, Serving
from madlog.processors.step import State
from madlog.processors.tiers import MODEL_KEY, Published, TierModels
from madlog.schemas import Decision
from madlog.topics import LogEvent

__all__ = ("Again", "Decided")

_MAX_ERROR = 0.05
_WHY = "what if it were off"
# What can set off a decision; all else changes the router's state alone.
_DECIDING = frozenset(("Turn", "ToolResult", "TimerFired"))


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision made again, and what the record has in its place (None: nothing).

    `right` is what the record says of it: None where nobody can tell.
    """

    made: Decision
    was: Recorded | None
    right: bool | None

    @property
    def differs(self) -> bool:
        """Whether another tier settled it, or by another act."""
        made, was = self.made, self.was
        return was is not None and (
            (was.tier, was.route, was.arguments) != (made.tier, made.route, made.arguments)
        )


class _Given(Serving):
    """Serves the model that it was given, whatever Control says."""

    model: Published

    def models(self, state: State, conversation_id: str) -> tuple[Published, Published | None]:
        """Return that model, and nothing beside it."""
        return self.model, None


@dataclass(frozen=True, eq=False)
class _Ruled(Published):
    """A model, and orders that hold where it decides."""

    orders: Mapping[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> dict[str, Any]:
        """The shared state of a router that decides by this tree, under these orders."""
        tree = self.models.tree.text
        entry = {"event_id": self.event_id, "version": self.version, "parameters": tree}
        return {MODEL_KEY: entry, **self.orders}


class Again:
    """Decides events of conversations again; the state of a partition is the caller's."""

    def __init__(self, by: DecidedBy, registry: Registry | None, variant: Variant) -> None:
        self._by = by
        self._registry = registry
        self._variant = variant
        self._given = _Given()
        self._routers: dict[tuple[Decides, float], Router] = {}
        self._ruled: dict[str, _Ruled] = {}
        self._controls: dict[str | None, Mapping[str, Any]] = {}
        # A conversation's past is kept for learned processes alone, and is most of the state.
        given = variant.model
        conducts = by.conducts if given is None else bool(given.models.processes)
        self._remembers = conducts and "lppm" not in variant.without
        self._idle = self._router("live", _MAX_ERROR)

    def live(
        self, state: State, event: LogEvent, decisions: RecordedDecisions
    ) -> Sequence[Decided]:
        """Fold an event as the router does, and return the live decisions that it makes of it."""
        if event.kind not in _DECIDING:
            self._idle.step(state, event)
            return ()
        recorded = decisions.of(event.fields["event_id"])
        was = next((one for one in recorded if one.mode == "live"), None)
        if was is not None:
            control_id, max_error = was.control_id, was.max_error
        else:
            control_id, max_error = self._by.newest_control, _MAX_ERROR
        if CONTROL_KEY not in state or state[CONTROL_KEY] != control_id:
            state.update(self._ordered(control_id))
        model = self._model(None if was is None else was.model_id)
        self._given.model = model or _NOBODYS
        if self._variant.max_error is not None:
            max_error = self._variant.max_error
        found = []
        for output in self._router("live", max_error).step(state, event):
            if not isinstance(output, Decision) or model is None:
                continue
            before = named(recorded, output.recipient, "live")
            if before is not None or self._variant.model is not None:
                found.append(Decided(output, before, _judged(output, before)))
        return found

    def past(self, conversation: Conversation, recorded: RecordedDecisions) -> Iterator[Decided]:
        """Decide a conversation that was brought in, by each model that decided of it."""
        places = {
            event.event_id: found
            for event in conversation.events
            if (found := recorded.of(event.event_id))
        }
        asked = dict.fromkeys(
            self._asked(one) for found in places.values() for one in found if _past(one)
        )
        if not asked and self._variant.model is not None:
            asked = dict.fromkeys([("", self._variant.max_error or _MAX_ERROR)])
        first = next(iter(asked), None)
        for model_id, max_error in asked:
            model = self._model(model_id)
            if model is None:
                continue
            for made, right in self._decided(conversation, model, max_error):
                was = named(places.get(made.turn_id, ()), made.recipient, "retrospective")
                # What the record lacks is decided once, where a model is given.
                mine = first if was is None else self._asked(was)
                if mine == (model_id, max_error) and (was or self._variant.model):
                    yield Decided(made, was, right)

    def _asked(self, recorded: Recorded) -> tuple[str, float]:
        """Return by which model, and for what promise, a recorded decision is made again."""
        max_error = self._variant.max_error
        return (
            "" if self._variant.model is not None else recorded.model_id,
            recorded.max_error if max_error is None else max_error,
        )

    def _decided(
        self, conversation: Conversation, model: Published, max_error: float
    ) -> Iterator[tuple[Decision, bool | None]]:
        """Yield the decisions of a conversation, with what the record says of each."""
        outputs = decide(conversation, self._router("all", max_error), model, max_error)
        for number, output in enumerate(outputs):
            if not isinstance(output, Decision):
                continue
            judged = outputs[number + 1] if number + 1 < len(outputs) else output
            right = None if isinstance(judged, Decision) else judged.result == "success"
            yield output, right

    def _model(self, model_id: str | None) -> Published | None:
        """Return what decides: the variant's model, else the one that is named."""
        model = self._variant.model
        if model is None:
            model = None if model_id is None else self._by.model(model_id)
        if model is None:
            return None
        if model.event_id not in self._ruled:
            models = model.models
            if "lppm" in self._variant.without:
                models = replace(models, steps=None, processes={})
            orders = self._ordered(None) if self._variant.without else {}
            self._ruled[model.event_id] = _Ruled(model.event_id, model.version, models, orders)
        return self._ruled[model.event_id]

    def _ordered(self, control_id: str | None) -> Mapping[str, Any]:
        """Return the shared state after a Control event, with the tiers switched off."""
        if control_id not in self._controls:
            shared = dict(self._by.controls(control_id))
            controls = shared.get(CONTROLS_KEY, NOTHING)
            for tier in sorted(self._variant.without):
                stop = {"command": "stop", "target": "all", "tier": tier, "reason": _WHY}
                controls = fold(controls, {**stop, "expires_at": None})
            self._controls[control_id] = {CONTROLS_KEY: controls, CONTROL_KEY: control_id}
        return self._controls[control_id]

    def _router(self, decides: Decides, max_error: float) -> Router:
        key = decides, max_error
        if key not in self._routers:
            serving = self._given if decides == "live" else None
            self._routers[key] = Router(
                self._registry,
                max_error=max_error,
                decides=decides,
                serving=serving,
                delivers=False,
                remembers=self._remembers,
            )
        return self._routers[key]


def _past(recorded: Recorded) -> bool:
    return recorded.mode == "retrospective"


def _judged(made: Decision, was: Recorded | None) -> bool | None:
    """Say whether a live decision is right: one that was audited and found right is the truth."""
    if was is None or made.tier == "imperator" or was.right is None:
        return None
    if (made.route, made.arguments) == (was.route, was.arguments):
        return was.right
    return False if was.right else None


# Where the record names no model nothing is decided, and the router folds all the same.
_NOBODYS = Published("00000000-0000-7000-8000-000000000000", "", TierModels.seed())
