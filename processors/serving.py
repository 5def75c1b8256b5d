"""Which models decide a conversation: what was published, as far as Control lets it be served.

Both stand in a processor's shared state as plain JSON: the published models' texts by event_id,
and what holds by mad.control. Parsed models are a cache, never state.
"""

from collections.abc import Callable, Mapping
from typing import Any

from madlog.processors.control import NOTHING, fold, serving
from madlog.processors.dtr.seed_model import COMPONENT as TREE
from madlog.processors.dtr.tree import Tree
from madlog.processors.errors import InvalidModel, NoModel
from madlog.processors.step import State
from madlog.processors.tiers import MODEL_KEY, Published, TierModels, model_text
from madlog.topics import LogEvent

__all__ = ("CONTROLS_KEY", "CONTROL_KEY", "ROUTING", "Serving", "controls_of")

# The component of the models that live turns may be decided by.
ROUTING = "routing"
CONTROL_KEY = "@control"
CONTROLS_KEY = "@controls"
_MODELS_KEY = "@models"
_CONTROL = "mad.control"


def controls_of(state: State) -> Mapping[str, Any]:
    """Return what holds by mad.control."""
    found: Mapping[str, Any] = state.get(CONTROLS_KEY, NOTHING)
    return found


class Serving:
    """Takes up models and Control events, and says which model decides."""

    def __init__(self, get_blob: Callable[[str], bytes] | None = None) -> None:
        self._get_blob = get_blob or _no_blobs
        self._parsed: dict[str, Published] = {}

    def share(self, shared: State, event: LogEvent) -> None:
        """Take up an event of mad.models or mad.control; raises InvalidModel, InvalidControl."""
        fields = event.fields
        if event.record.topic == _CONTROL:
            if event.kind == "Control":
                shared[CONTROLS_KEY] = fold(controls_of(shared), fields)
            shared[CONTROL_KEY] = event.event_id
        elif event.kind != "ModelPublished":
            return
        elif fields["component"] == TREE:
            if fields["parameters"] is None:
                raise InvalidModel(
                    f"model {event.event_id} has no parameters in its event: the router reads "
                    "trees from the event itself"
                )
            tree = Tree.parse(fields["parameters"])
            self._keep(event.event_id, fields["version"], TierModels(tree, None))
            shared[MODEL_KEY] = {
                "event_id": event.event_id,
                "version": fields["version"],
                "parameters": fields["parameters"],
            }
        elif fields["component"] == ROUTING:
            text = model_text(fields, self._get_blob)
            self._keep(event.event_id, fields["version"], TierModels.parse(text))
            entry = {"version": fields["version"], "parameters": text}
            shared[_MODELS_KEY] = {**shared.get(_MODELS_KEY, {}), event.event_id: entry}

    def models(self, state: State, conversation_id: str) -> tuple[Published, Published | None]:
        """Return what decides a conversation, and what decides beside it; raises NoModel.

        A model that Control names and that could not be read is passed over: the one before goes
        on.
        """
        controls, published = controls_of(state), state.get(_MODELS_KEY, {})
        served, beside = serving(controls, ROUTING, conversation_id)
        shadow = self._published(published, beside)
        model = self._published(published, served)
        if model is None and served is not None:
            before = reversed(controls["rollouts"][ROUTING]["served"])
            found = (self._published(published, event_id) for event_id in before)
            model = next((one for one in found if one is not None), None)
        return model or self._first(state), shadow

    def _published(self, published: Mapping[str, Any], event_id: str | None) -> Published | None:
        if event_id is None or event_id not in published:
            return None
        found = self._parsed.get(event_id)
        if found is None:
            entry = published[event_id]
            found = self._keep(event_id, entry["version"], TierModels.parse(entry["parameters"]))
        return found

    def _first(self, state: State) -> Published:
        entry = state.get(MODEL_KEY)
        if entry is None:
            raise NoModel
        found = self._parsed.get(entry["event_id"])
        if found is None:
            models = TierModels(Tree.parse(entry["parameters"]), None)
            found = self._keep(entry["event_id"], entry["version"], models)
        return found

    def _keep(self, event_id: str, version: str, models: TierModels) -> Published:
        made = self._parsed[event_id] = Published(event_id, version, models)
        return made


def _no_blobs(sha256: str) -> bytes:
    raise InvalidModel(
        f"the model's parameters are blob {sha256[:12]}…, and this router was given no blobs"
    )
