"""The models of one round, a decision tree and a next-step predictor, as one event.

They are learned from conversations that are known to have ended well: half of what agents do in
real logs fails, and would be learned too. Only where nothing says how any ended, from all. What a
round publishes is of the component `retrospective`, which no live router takes up.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from madlog.processors.dtr.learner import Learner
from madlog.processors.dtr.seed_model import seed_tree
from madlog.processors.dtr.tree import PROCESS, Tree
from madlog.processors.errors import InvalidModel
from madlog.processors.lppm.next_step import NextStep
from madlog.processors.retrospect.conversation import Conversation, Done
from madlog.processors.retrospect.proposing import proposals
from madlog.processors.router import MODEL_KEY, Router
from madlog.schemas import ModelPublished, Sender, content_id_and_time

__all__ = (
    "COMPONENT",
    "SENDER",
    "TierModels",
    "learned_from",
    "model_event",
    "model_text",
    "published",
    "train",
)

COMPONENT = "retrospective"
SENDER = Sender(name="retrospect", kind="system")
_FORMAT = "tiers-1"
# A larger one is stored as a blob: a record has room for it and for its envelope.
_INLINE_MAX = 256 << 10
# Older ones teach little that these do not, and a fit over all would take ever longer.
_LEARNED_MAX = 300


@dataclass(frozen=True, eq=False)
class TierModels:
    """What one round decides by; `steps` is None before there was anything to learn from."""

    tree: Tree
    steps: NextStep | None

    @classmethod
    def seed(cls) -> "TierModels":
        """Return what there is before anything was learned."""
        return cls(seed_tree(), None)

    @classmethod
    def parse(cls, text: str) -> "TierModels":
        """Read and check a model file; raises InvalidModel."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidModel(f"the model is not JSON: {error}") from error
        if not isinstance(document, dict) or document.keys() != {"format", "dtr", "lppm"}:
            raise InvalidModel("the model must be an object with exactly dtr, format, lppm")
        if document["format"] != _FORMAT:
            raise InvalidModel(f"the model's format is {document['format']!r}, not {_FORMAT!r}")
        steps = document["lppm"]
        return cls(
            Tree.from_document(document["dtr"]),
            None if steps is None else NextStep.from_document(steps),
        )

    def text(self) -> str:
        """Return the canonical JSON."""
        steps = None if self.steps is None else self.steps.to_document()
        document = {"format": _FORMAT, "dtr": json.loads(self.tree.text), "lppm": steps}
        return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)


def train(seen: Sequence[Conversation], router: Router) -> TierModels:
    """Learn from the conversations that ended well; the router says what the tree sees of them."""
    good = learned_from(seen)
    learner = Learner()
    for conversation in good:
        for features, route in _examples(conversation, router):
            learner.learn(features, route)
    tree = _grafted(json.loads(seed_tree().text)["root"], json.loads(learner.frozen().text))
    families = {conversation.conversation_id: conversation.family for conversation in good}
    cases = [conversation.case for conversation in good]
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


def model_text(fields: Any, get_blob: Callable[[str], bytes]) -> str:
    """Return a published model's parameters, checked against their hash; raises InvalidModel."""
    text = fields["parameters"]
    if text is None:
        text = get_blob(fields["parameters_sha256"]).decode()
    digest = hashlib.sha256(text.encode()).hexdigest()
    if digest != fields["parameters_sha256"]:
        raise InvalidModel(
            f"model {fields['event_id']} has parameters of hash {digest[:12]}…, and says "
            f"{fields['parameters_sha256'][:12]}…: it is damaged, or was changed"
        )
    return str(text)
