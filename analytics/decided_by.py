"""What the Decisions of a log were decided by: the models and the Control events that they name."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from madlog.processors.errors import ProcessorError
from madlog.processors.retrospect.models import read_model
from madlog.processors.serving import ROUTING, Serving
from madlog.processors.tiers import Published, TierModels
from madlog.topics import EventLog, LogEvent, Vector
from madlog.topics.errors import LogError
from madlog.topics.log import OnDamage

__all__ = ("DecidedBy", "decided_end", "read_decided_by")

_SEED = Published("", "", TierModels.seed())


class DecidedBy:
    """Models by id, and what held by mad.control after each of its events, by the event's id.

    `shared` is the state of a router that has taken up every model; `failed` says, by id, why a
    model cannot be read.
    """

    def __init__(
        self,
        models: Mapping[str, LogEvent],
        controls: Iterable[LogEvent],
        get_blob: Callable[[str], bytes],
    ) -> None:
        self._models = models
        self._get_blob = get_blob
        self._published: dict[str, Published] = {}
        self.failed: dict[str, str] = {}
        self.shared = dict(_SEED.state)
        self._controls: dict[str | None, Mapping[str, Any]] = {None: {}}
        self.newest_control: str | None = None
        serving = Serving(get_blob)
        for model in models.values():
            if model.fields["component"] == ROUTING:
                self._take_up(serving, model)
        held: dict[str, Any] = {}
        for control in controls:
            try:
                serving.share(held, control)
            except ProcessorError:
                continue  # the router refused it too
            self._controls[control.event_id] = dict(held)
            self.newest_control = control.event_id

    def _take_up(self, serving: Serving, model: LogEvent) -> None:
        try:
            serving.share(self.shared, model)
        except (ProcessorError, LogError) as error:
            self.failed[model.event_id] = str(error)

    def controls(self, control_id: str | None) -> Mapping[str, Any]:
        """Return what a router shared after a Control event; nothing where it is not there."""
        return self._controls.get(control_id, {})

    def rolled_out(self, model_id: str) -> bool:
        """Tell whether a model is one that Control lets decide step by step."""
        model = self._models.get(model_id)
        return model is not None and bool(model.fields["component"] == ROUTING)

    @property
    def conducts(self) -> bool:
        """Whether any model that was rolled out has processes that conduct live turns."""
        rolled_out = (model_id for model_id in self._models if self.rolled_out(model_id))
        return any(
            (model := self.model(model_id)) is not None and bool(model.models.processes)
            for model_id in rolled_out
        )

    def model(self, model_id: str) -> Published | None:
        """Return a published model; None, and `failed` says why, where it cannot be read."""
        if model_id not in self._published and model_id not in self.failed:
            model = self._models.get(model_id)
            try:
                self._published[model_id] = read_model(
                    model_id, None if model is None else model.fields, self._get_blob
                )
            except (ProcessorError, LogError) as error:
                self.failed[model_id] = str(error)
        return self._published.get(model_id)


async def decided_end(log: EventLog, topics: Collection[str]) -> Vector:
    """Return where the decisions and other topics end, missing ones left out.

    The decisions' end is taken first, and what a Decision rests on was appended before it: so
    nothing of it is missed on a log that is being written.
    """
    there = await log.log.topics()
    decisions = await log.log.end([name for name in ("mad.decisions",) if name in there])
    return decisions.with_offsets(await log.log.end([name for name in topics if name in there]))


async def read_decided_by(
    log: EventLog, end: Vector, get_blob: Callable[[str], bytes], on_damage: OnDamage
) -> DecidedBy:
    """Read the models and the Control events that decisions name."""
    models: dict[str, LogEvent] = {}
    controls: list[LogEvent] = []
    names = ["mad.models", "mad.control"]
    async for events in log.read_topics(names, end=end, on_damage=on_damage):
        for event in events:
            if event.kind == "ModelPublished":
                models[event.event_id] = event
            elif event.record.topic == "mad.control":
                controls.append(event)
    return DecidedBy(models, controls, get_blob)
