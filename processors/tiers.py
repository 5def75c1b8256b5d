"""The models of the cheap tiers, a decision tree and a next-step predictor, as one document.

One event publishes both, so a Decision names one model and comes out again from it alone.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from madlog.processors.dtr.seed_model import seed_tree
from madlog.processors.dtr.tree import Tree
from madlog.processors.errors import InvalidModel
from madlog.processors.lppm.next_step import NextStep
from madlog.processors.lppm.process import Process

__all__ = ("MODEL_KEY", "Published", "TierModels", "model_text")

# Where a router's shared state holds the tree that decides if no other model is served.
MODEL_KEY = "@model"
_FORMAT = "tiers-1"
_FORMAT_WITH_PROCESSES = "tiers-2"
_KEYS = {
    _FORMAT: {"format", "dtr", "lppm"},
    _FORMAT_WITH_PROCESSES: {"format", "dtr", "lppm", "processes"},
}


@dataclass(frozen=True, eq=False)
class TierModels:
    """What the cheap tiers decide by; `steps` is None before there was anything to learn from.

    `processes` holds each agent's process by the agent's name: what live turns are conducted by.
    """

    tree: Tree
    steps: NextStep | None
    processes: Mapping[str, Process] = field(default_factory=dict)

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
        if not isinstance(document, dict) or not isinstance(document.get("format"), str):
            raise InvalidModel("the model must be an object with a format")
        keys = _KEYS.get(document["format"])
        if keys is None:
            known = " or ".join(map(repr, _KEYS))
            raise InvalidModel(f"the model's format is {document['format']!r}, not {known}")
        if document.keys() != keys:
            raise InvalidModel(f"the model must have exactly {', '.join(sorted(keys))}")
        steps, processes = document["lppm"], document.get("processes", {})
        if not isinstance(processes, dict):
            raise InvalidModel("processes must be an object, by agent")
        return cls(
            Tree.from_document(document["dtr"]),
            None if steps is None else NextStep.from_document(steps),
            {name: Process.from_document(one) for name, one in processes.items()},
        )

    def text(self) -> str:
        """Return the canonical JSON."""
        document: dict[str, Any] = {
            "format": _FORMAT_WITH_PROCESSES if self.processes else _FORMAT,
            "dtr": json.loads(self.tree.text),
            "lppm": None if self.steps is None else self.steps.to_document(),
        }
        if self.processes:
            document["processes"] = {
                name: process.to_document() for name, process in self.processes.items()
            }
        return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True, eq=False)
class Published:
    """Models and the event that published them."""

    event_id: str
    version: str
    models: TierModels

    @property
    def state(self) -> dict[str, Any]:
        """The shared state of a router that decides by this tree."""
        tree = self.models.tree.text
        return {MODEL_KEY: {"event_id": self.event_id, "version": self.version, "parameters": tree}}


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
