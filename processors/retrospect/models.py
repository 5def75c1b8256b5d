"""The models of one round, a decision tree and a next-step predictor, as one event.

They are learned from conversations that are known to have ended well: half of what agents do in
real logs fails, and would be learned too. Only where nothing says how any ended, from all. What a
round publishes is of the component `retrospective`, which no live router takes up.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from madlog.processors.dtr.learner import Learner
from madlog.processors.dtr.seed_model import COMPONENT as TREE
from madlog.processors.dtr.seed_model import seed_tree
from madlog.processors.dtr.tree import PROCESS, Tree
from madlog.processors.errors import InvalidModel
from madlog.processors.lppm.next_step import NextStep
from madlog.processors.retrospect.conversation import Conversation, Done
from madlog.processors.retrospect.proposing import proposals
from madlog.processors.router import Router
from madlog.processors.serving import ROUTING
from madlog.processors.tiers import MODEL_KEY, Published, TierModels, model_text
from madlog.schemas import ModelPublished, Sender, content_id_and_time

__all__ = (
    "COMPONENT",
    "SENDER",
    "learned_from",
    "model_event",
    "published",
    "read_model",
    "train",
)

COMPONENT = "retrospective"
SENDER = Sender(name="retrospect", kind="system")
# A larger one is stored as a blob: a record has room for it and for its envelope.
_INLINE_MAX = 256 << 10
# Older ones teach little that these do not, and a fit over all would take ever longer.
_LEARNED_MAX = 300


def train(seen: Sequence[Conversation], router: Router) -> TierModels:
    """Learn from the conversations that ended well; the router says what the tree sees of them."""
    good = learned_from(seen)
    learner = Learner()
    for conversation in good:
        for features, route in _examples(conversation, router):
            learner.learn(features, route)
    tree = _grafted(json.loads(seed_tree().text)["root"], json.loads(learner.frozen().text))
    families = {conversation.conversation_id: conversation.family for conversation in good}
    cases = [conversation.case.mended for conversation in good]
    steps = NextStep.learn(cases, families=families) if len(set(families.values())) > 1 else None
    return TierModels(tree, steps)


def learned_from(seen: Sequence[Conversation]) -> list[Conversation]:
    """Return the newest that ended well; of all, where of none it is known how it ended."""
    good = [conversation for conversation in seen if conversation.result == "success"]
    unknown = all(conversation.result is None for conversation in seen)
    return list(seen if unknown else good)[-_LEARNED_MAX:]


def _examples(conversation: Conversation, router: Router) -> list[tuple[dict[str, Any], str]]:
    """Return what the tree saw before each decision, and the route that was taken."""
    return [
        (dict(decision.features), _route(trigger.done))
        for decision, trigger in proposals(conversation, router, _SEED_STATE)
        if trigger.done is not None
    ]


def _route(done: Done) -> str:
    # A tree gives no arguments, so an action that takes some is left to the processes.
    return PROCESS if done.act.arguments else done.route


def _grafted(seed: Any, learned: dict[str, Any]) -> Tree:
    """Put what was learned where the first tree leaves a turn to the language model."""

    def graft(node: Any) -> Any:
        if "feature" in node:
            return {**node, "yes": graft(node["yes"]), "no": graft(node["no"])}
        return learned["root"] if node["route"] == "imperator" else node

    return Tree.from_document({**learned, "root": graft(seed)})


_SEED_STATE = {
    MODEL_KEY: {
        "event_id": "00000000-0000-7000-8000-000000000000",
        "version": "seed",
        "parameters": seed_tree().text,
    }
}


def published(
    models: TierModels,
    seen: Sequence[Conversation],
    code_version: str,
    put_blob: Callable[[bytes], str],
) -> ModelPublished:
    """Return the event that publishes a round's models; the same bytes for the same log."""
    text = models.text()
    inline = len(text) <= _INLINE_MAX
    digest = hashlib.sha256(text.encode()).hexdigest()
    if not inline:
        put_blob(text.encode())
    ended: dict[str, tuple[int, str]] = {}
    for conversation in seen:
        last = conversation.events[-1]
        place = f"{last.record.topic}/{last.record.partition}"
        ended[place] = max(ended.get(place, (-1, "")), (last.record.offset, last.event_id))
    return model_event(
        COMPONENT,
        f"first-{len(seen)}",
        text,
        code_version,
        parameters=text if inline else None,
        parameters_uri=None if inline else f"sha256:{digest}",
        trained_on={place: event for place, (_, event) in sorted(ended.items())},
        metrics={
            "conversations": float(len(seen)),
            "conversations_learned": float(len(learned_from(seen))),
            "conversations_judged": float(sum(one.result is not None for one in seen)),
        },
    )


def model_event(
    component: str, version: str, text: str, code_version: str, **more: Any
) -> ModelPublished:
    """Return the event of a model of history; its id, time and key come from what it is."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    of = more.get("mad") or ""
    event_id, occurred_at = content_id_and_time("ModelPublished", component, of, version, text)
    return ModelPublished(
        event_id=event_id,
        conversation_id="mad.models",
        sender=SENDER,
        occurred_at=occurred_at,
        time_source="synthetic",
        idempotency_key="/".join(filter(None, (component, of, version, digest))),
        component=component,
        version=version,
        parameters_sha256=digest,
        code_version=code_version,
        **more,
    )


def read_model(
    model_id: str, fields: Mapping[str, Any] | None, get_blob: Callable[[str], bytes]
) -> Published:
    """Return what an event of mad.models published, whichever decides: a tree, or all tiers.

    Raises InvalidModel, and what `get_blob` raises.
    """
    if fields is None:
        raise InvalidModel(f"the log holds no model {model_id}")
    text = model_text(fields, get_blob)
    if fields["component"] == TREE:
        models = TierModels(Tree.parse(text), None)
    elif fields["component"] in (COMPONENT, ROUTING):
        models = TierModels.parse(text)
    else:
        raise InvalidModel(f"model {model_id} is a {fields['component']!r}, which decides nothing")
    return Published(model_id, fields["version"], models)
