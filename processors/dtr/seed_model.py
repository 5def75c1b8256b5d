"""The first decision tree: hand-made, so that a log has a model before anything was learned.

It settles only what has one right answer by its form: acks, health queries, and a turn that is
nothing but one command which its recipient has registered. All else goes to the language model.
"""

import hashlib
import json
from typing import Any

from madlog.processors.dtr.tree import FORMAT, Tree
from madlog.schemas import ModelPublished, Sender, content_id_and_time

__all__ = ("COMPONENT", "seed_model", "seed_tree")

COMPONENT = "dtr"
_VERSION = "seed-1"


def _if(feature: str, op: str, value: int | str, yes: Any, no: Any) -> dict[str, Any]:
    return {"feature": feature, "op": op, "value": value, "yes": yes, "no": no}


def _leaf(route: str, confidence: float) -> dict[str, Any]:
    return {"route": route, "confidence": confidence}


def _document() -> dict[str, Any]:
    imperator = _leaf("imperator", 1.0)
    command = _if(
        "verb_registered",
        "==",
        1,
        _leaf("action:{verb}", 0.99),
        _if("verb", "==", "health", _leaf("health", 0.98), imperator),
    )
    one_command = _if(
        "prose_pct", "<=", 0, _if("fixed_pct", "<=", 0, command, imperator), imperator
    )
    # Only a bare ack is settled: one that brings prose or a command asks for more.
    bare_ack = _if("prose_pct", "<=", 0, _leaf("ack", 0.99), imperator)
    root = _if(
        "shorthand",
        "==",
        "hru",
        _leaf("health", 0.99),
        _if(
            "shorthand",
            "==",
            "ack",
            _leaf("ack", 0.99),
            _if(
                "command",
                "==",
                "command",
                one_command,
                _if(
                    "command",
                    "==",
                    "none",
                    _if("ack_tag", "==", 1, bare_ack, imperator),
                    imperator,
                ),
            ),
        ),
    )
    return {"format": FORMAT, "root": root}


def seed_tree() -> Tree:
    """Return the first decision tree."""
    return Tree.parse(json.dumps(_document()))


def seed_model() -> ModelPublished:
    """Return the event that publishes the first tree; the same bytes on every log."""
    text = seed_tree().text
    event_id, occurred_at = content_id_and_time("ModelPublished", COMPONENT, _VERSION, text)
    return ModelPublished(
        event_id=event_id,
        conversation_id="mad.models",
        sender=Sender(name="madlog", kind="system"),
        occurred_at=occurred_at,
        time_source="synthetic",
        idempotency_key=f"{COMPONENT}/{_VERSION}",
        component=COMPONENT,
        version=_VERSION,
        parameters_sha256=hashlib.sha256(text.encode()).hexdigest(),
        parameters=text,
    )
