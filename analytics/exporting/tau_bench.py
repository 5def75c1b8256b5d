"""τ-bench runs, one JSON line each: only what was imported from τ-bench can be one."""

import json
from collections.abc import Sequence
from typing import Any

from madlog.analytics.exporting._exporter import created_of
from madlog.analytics.exporting.messages import GetBlob, messages_from
from madlog.schemas import Event

__all__ = ("TauBench", "run_from")


def run_from(events: Sequence[Event], get_blob: GetBlob | None = None) -> dict[str, Any]:
    """Return the run that these events were imported from, field for field."""
    created = created_of(events)
    metadata = dict(created.metadata) if created else {}
    metadata.pop("tools", None)
    run: dict[str, Any] = json.loads(metadata.pop("other_fields", "{}"))
    run |= {name: json.loads(text) for name, text in metadata.items()}
    run["traj"] = messages_from(events, named_results=True, get_blob=get_blob)
    return run


class TauBench:
    """The exporter of τ-bench runs."""

    name = "tau-bench"

    def fits(self, events: Sequence[Event]) -> bool:
        """Tell whether the conversation came from a τ-bench file."""
        created = created_of(events)
        return bool(created and created.source and created.source.format == self.name)

    def text(self, events: Sequence[Event], get_blob: GetBlob | None) -> str:
        """Return the run as one JSON line."""
        return json.dumps(run_from(events, get_blob)) + "\n"
