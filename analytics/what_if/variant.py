"""What is to be otherwise: another model, another promise, a tier switched off."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from madlog.analytics.what_if.errors import UnknownModel
from madlog.processors.dtr.tree import Tree
from madlog.processors.errors import InvalidModel
from madlog.processors.retrospect.models import read_model
from madlog.processors.tiers import Published, TierModels
from madlog.topics import EventLog

__all__ = ("Tier", "Variant", "find_model")

Tier = Literal["dtr", "lppm"]
_BYTES_MAX = 64 << 20
_SAW = "{} learned from conversations of this log: on those that it saw it errs less than on others"
_MAY_HAVE_SEEN = "nobody knows what {} learned from: on what it saw it errs less than on others"


@dataclass(frozen=True)
class Variant:
    """How decisions are made again; None and nothing: as the record says they were.

    `notes` are what a reader of the answer must know.
    """

    model: Published | None = None
    max_error: float | None = None
    without: frozenset[Tier] = frozenset()
    notes: tuple[str, ...] = ()

    @property
    def decides(self) -> bool:
        """Whether any decision can come out otherwise."""
        return self.model is not None or self.max_error is not None or bool(self.without)

    def as_json(self) -> dict[str, Any]:
        """Return what is otherwise, as one object."""
        return {
            "model": None if self.model is None else self.model.version,
            "model_id": None if self.model is None else self.model.event_id,
            "max_error": self.max_error,
            "without": sorted(self.without),
        }


async def find_model(
    log: EventLog, named: str, get_blob: Callable[[str], bytes]
) -> tuple[Published, tuple[str, ...]]:
    """Return the model of an event_id, of a version (the newest so called), or of a JSON file.

    With it comes what is to be known of it. A file is a model as mad.models has it: a decision
    tree, or the tiers of one round. Raises UnknownModel, InvalidModel.
    """
    found = None
    decides: list[str] = []
    async for events in log.read_topics(["mad.models"]):
        for event in events:
            if event.kind != "ModelPublished" or event.fields["component"] == "process":
                continue
            if event.fields["version"] not in decides:
                decides.append(str(event.fields["version"]))
            if named in (event.event_id, event.fields["version"]):
                found = event
    if found is not None:
        model = read_model(found.event_id, found.fields, get_blob)
        return model, (_SAW.format(model.version),) if found.fields["trained_on"] else ()
    if Path(named).is_file():
        return _from_file(Path(named)), (_MAY_HAVE_SEEN.format(named),)
    shown = ", ".join(decides[-8:]) or "none yet: `madlog worker --until-idle` learns them"
    raise UnknownModel(
        f"there is no model {named[:80]!r}: it is no version and no event_id on this log, and no "
        f"file; the newest versions are {shown}"
    )


def _from_file(path: Path) -> Published:
    try:
        with path.open("rb") as file:
            data = file.read(_BYTES_MAX + 1)
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UnknownModel(f"the model in {path} cannot be read: {why}") from error
    if len(data) > _BYTES_MAX:
        raise UnknownModel(f"{path} is larger than 64 MiB: this is no model")
    digest = hashlib.sha256(data).hexdigest()
    try:
        # A tree alone names its format otherwise than the tiers of a round do.
        try:
            models = TierModels.parse(text)
        except InvalidModel:
            models = TierModels(Tree.parse(text), None)
    except InvalidModel as error:
        raise InvalidModel(f"{path} is no model that decides: {error}") from error
    # Its own id, so that no decision is taken for one by a model of the log.
    event_id = f"{digest[:8]}-{digest[8:12]}-7{digest[13:16]}-8{digest[17:20]}-{digest[20:32]}"
    return Published(event_id, path.name, models)
