"""Which published models are not served, whatever they say of themselves, and why.

A model is read, checked against its hash, and searched for routes that no registered agent may
take and for a place on the log that is not there. A model that was refused stays refused; one
whose parameters cannot be fetched now is looked at again.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from madlog.processors.dtr.seed_model import COMPONENT as TREE
from madlog.processors.dtr.tree import ACTION_PREFIX, VERB_ROUTE
from madlog.processors.errors import InvalidModel
from madlog.processors.ports import Registry
from madlog.processors.retrospect.models import COMPONENT as RETROSPECTIVE
from madlog.processors.retrospect.processes import PROCESS
from madlog.processors.serving import ROUTING
from madlog.processors.tiers import TierModels, model_text
from madlog.schemas.ids import event_id_ms
from madlog.topics import EventLog, LogEvent, Vector
from madlog.topics.errors import BlobDamaged

__all__ = ("COMPONENTS", "missing_places", "read_model", "strange")

# What is published on purpose; of these only ROUTING is rolled out.
COMPONENTS = (ROUTING, TREE, RETROSPECTIVE, PROCESS)
_CLOCKS_APART_US = 3_600_000_000


def strange(event: LogEvent) -> str | None:
    """Return why a published model is of no component that there is, None where it is of one."""
    component = event.fields["component"]
    if component in COMPONENTS:
        return None
    return f"there is no component {component[:60]!r}: {', '.join(COMPONENTS)}"


def read_model(event: LogEvent, get_blob: Callable[[str], bytes], registry: Registry) -> TierModels:
    """Read a published model; raises InvalidModel saying why it must not be served.

    Raises BlobMissing where its parameters are not in this machine's blob store.
    """
    try:
        text = model_text(event.fields, get_blob)
        json.loads(text, parse_constant=_no_number)
        models = TierModels.parse(text)
    except BlobDamaged as error:
        raise InvalidModel(str(error)) from error
    except UnicodeDecodeError as error:
        raise InvalidModel(f"the model's parameters are not UTF-8: {error.reason}") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, InvalidModel):
            raise
        raise InvalidModel(f"the model's parameters are not JSON: {error}") from error
    known = {action for agent in registry.values() for action in agent.actions}
    for route in sorted(set(_routes(models))):
        action = route[len(ACTION_PREFIX) :]
        if route.startswith(ACTION_PREFIX) and route != VERB_ROUTE and action not in known:
            raise InvalidModel(f"{route[:120]} is a registered action of no agent")
    return models


def _no_number(name: str) -> Any:
    raise InvalidModel(f"the model holds {name}, which is no number to decide by")


def _routes(models: TierModels) -> Iterator[str]:
    document = json.loads(models.tree.text)
    yield from _routes_of(document["root"])
    for row in document.get("memo", {}).get("rows", ()):
        yield row[1]
    if models.steps is not None:
        yield from models.steps.actions.labels
    for agent, process in models.processes.items():
        yield from (step.what for step in process.steps if step.actor == agent)


def _routes_of(node: Mapping[str, Any]) -> Iterator[str]:
    if "route" in node:
        yield node["route"]
    else:
        yield from _routes_of(node["yes"])
        yield from _routes_of(node["no"])


async def missing_places(log: EventLog, trained_on: Mapping[str, str]) -> list[str]:
    """Return what a model says that it was trained on and the log does not hold, as "PLACE@ID".

    Reads from where they should stand, by the time in their ids, and else the whole of the topics.
    """
    missing = dict(trained_on)
    for topic in sorted({place.rpartition("/")[0] for place in trained_on}):
        ids = [one for place, one in trained_on.items() if place.rpartition("/")[0] == topic]
        there = topic in await log.log.topics()
        near = await log.log.at_time([topic], min(map(_appended_after, ids))) if there else Vector()
        for start in (near, Vector()):
            await _find(log, topic, start, missing)
    return [f"{place}@{event_id}" for place, event_id in sorted(missing.items())]


async def _find(log: EventLog, topic: str, start: Vector, missing: dict[str, str]) -> None:
    """Take out of `missing` what a topic holds from `start` on."""
    wanted = {place for place in missing if place.rpartition("/")[0] == topic}
    if not wanted:
        return
    async for events in log.read_topics([topic], start=start):
        for event in events:
            place = f"{topic}/{event.record.partition}"
            if missing.get(place) == event.event_id:
                del missing[place]
                wanted.discard(place)
        if not wanted:
            return


def _appended_after(event_id: str) -> int:
    """Return a time (µs) after which an event was appended, if its id was made when it occurred."""
    try:
        return max(0, event_id_ms(event_id) * 1000 - _CLOCKS_APART_US)
    except ValueError:
        return 0
