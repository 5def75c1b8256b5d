"""The live learner: models from what was lived here and ended well, a round at a time.

A round is due after 20, 40, 80, 160, 320 and then each further 320 conversations that ended well.
Its version says so, and its key is the version: what is on the log is not learned again, and of two
learners the first counts. After a change (machine.SINCE) only what began since then counts.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from madlog.processors.ports import Registry
from madlog.processors.retrospect.conversation import Conversation, conversations_of
from madlog.processors.retrospect.models import model_event, published, train
from madlog.processors.retrospect.processes import conductible
from madlog.processors.rollout.canary import is_canary
from madlog.processors.rollout.facts import Facts
from madlog.processors.router import Router
from madlog.processors.serving import ROUTING
from madlog.processors.tiers import TierModels
from madlog.schemas import ModelPublished, Sender
from madlog.topics import EventLog, LogEvent, TopicPartition, Vector
from madlog.topics.log import OnDamage

__all__ = (
    "LEARNED_MAX",
    "LEARNER",
    "ROUND_MIN",
    "changes_and_round",
    "fitting",
    "learned",
    "model_of",
    "read_conversations",
    "round_of",
    "split",
    "version_of",
)

LEARNER = Sender(name="learner", kind="system")
ROUND_MIN = 20
# Older ones teach little that these do not; retrospect.models learns from no more.
LEARNED_MAX = 300
_STEP = 320
_VERSION = re.compile(r"lived-([0-9]{1,12})(?:-after-([0-9]{1,9}))?")
_CONVERSATIONS, _DECISIONS = "mad.conversations", "mad.decisions"


def round_of(count: int) -> int | None:
    """Return the last round that is due after so many conversations, None where none is."""
    if count < ROUND_MIN:
        return None
    if count >= _STEP:
        return count // _STEP * _STEP
    due = ROUND_MIN
    while 2 * due <= count:
        due *= 2
    return due


def version_of(count: int, changes: int) -> str:
    """Return the version of a round after so many changes."""
    return f"lived-{count}" + (f"-after-{changes}" if changes else "")


def changes_and_round(version: str) -> tuple[int, int] | None:
    """Return what `version_of` made a version from, None where it is no such version."""
    match = _VERSION.fullmatch(version)
    return None if match is None else (int(match[2] or 0), int(match[1]))


def split(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return those to learn from, and the canary cases."""
    return [name for name in names if not is_canary(name)], [*filter(is_canary, names)]


async def read_conversations(
    log: EventLog,
    facts: Facts,
    names: Collection[str],
    end: Vector,
    on_damage: OnDamage,
) -> list[Conversation]:
    """Read conversations that are known to be there, each live Decision behind its turn."""
    start: dict[TopicPartition, int] = {}
    for name in names:
        begun, decided = facts.begun[name], facts.lived[name].place
        for topic, (partition, offset) in (
            (_CONVERSATIONS, (begun.partition, begun.offset)),
            (_DECISIONS, decided),
        ):
            place = TopicPartition(topic, partition)
            start[place] = min(offset, start.get(place, offset))
    said: dict[str, list[LogEvent]] = {}
    decided_on: dict[str, list[LogEvent]] = {}
    until = Vector({place: end[place] for place in start if place in end})
    keys = {name.encode() for name in names}
    async for records in log.log.read(Vector(start), until, on_damage=on_damage):
        # Both topics are keyed by the conversation; to decode the others would cost the most.
        ours = [record for record in records if record.key in keys]
        for event in await log.decode_all(ours, on_damage):
            name = event.fields["conversation_id"]
            if event.kind != "Decision":
                said.setdefault(name, []).append(event)
            elif event.fields["mode"] == "live":
                decided_on.setdefault(event.fields["turn_id"], []).append(event)
    results = {name: facts.lived[name].result or "" for name in names}
    told = {name: list(_told(events, decided_on)) for name, events in said.items()}
    return conversations_of(told, results)


def _told(
    events: Iterable[LogEvent], decided_on: Mapping[str, Sequence[LogEvent]]
) -> Iterable[LogEvent]:
    for event in events:
        yield event
        yield from decided_on.get(event.event_id, ())


def fitting(conversation: Conversation, registry: Registry) -> bool:
    """Tell whether all that registered agents ran there is registered: else it cannot be served."""
    for event in conversation.events:
        if event.kind != "ToolCall":
            continue
        agent = registry.get(event.fields["sender"]["name"])
        if agent is not None and event.fields["action"] not in agent.actions:
            return False
    return True


def learned(conversations: Sequence[Conversation], router: Router) -> TierModels:
    """Learn from conversations that ended well, the processes that may go live with the rest.

    Raises ValueError where nobody did anything in them.
    """
    models = train(conversations, router)
    return TierModels(models.tree, models.steps, conductible(conversations))


def model_of(
    models: TierModels,
    conversations: Sequence[Conversation],
    version: str,
    code_version: str,
    put_blob: Callable[[bytes], str],
    since: int,
) -> ModelPublished:
    """Return the event that publishes a round's models; its id comes from what they are."""
    made = published(models, conversations, code_version, put_blob)
    return model_event(
        ROUTING,
        version,
        models.text(),
        code_version,
        parameters=made.parameters,
        parameters_uri=made.parameters_uri,
        trained_on=made.trained_on,
        metrics=made.metrics,
        hyper_parameters={"since": str(since)},
    ).model_copy(update={"sender": LEARNER, "idempotency_key": f"{ROUTING}/{version}"})
