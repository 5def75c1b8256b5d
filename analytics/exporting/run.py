"""Runs an exporter over the conversations of a log."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from madlog.analytics.exporting._errors import ExportError, UnknownExport
from madlog.analytics.exporting._exporter import Exporter
from madlog.analytics.exporting._read import conversations, spans
from madlog.analytics.exporting.messages import GetBlob
from madlog.analytics.exporting.openai_chat import OpenaiChat
from madlog.analytics.exporting.tau_bench import TauBench
from madlog.analytics.exporting.transcript import Transcript
from madlog.topics.event_log import EventLog

__all__ = ("EXPORTERS", "ExportProgress", "ExportReport", "export")

EXPORTERS: dict[str, Exporter] = {
    exporter.name: exporter for exporter in (OpenaiChat(), TauBench(), Transcript())
}
# Who imported by this name asks for the export by it too.
EXPORTERS["openai-chat"] = EXPORTERS["openai"]


@dataclass(frozen=True, slots=True)
class ExportProgress:
    """How far an export is."""

    conversations_done: int
    conversations_total: int


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export wrote; `skipped` conversations do not fit its form."""

    conversations: int
    events: int
    skipped: int


async def export(
    log: EventLog,
    fmt: str,
    out: TextIO,
    *,
    conversation: str | None = None,
    progress: Callable[[ExportProgress], None] | None = None,
    get_blob: GetBlob | None = None,
) -> ExportReport:
    """Write the conversations in first-seen order, or one of them, up to the log's present end.

    `get_blob` returns the content of a SHA-256; without it, content that stands in the blob
    store is written as `sha256:…`. Raises UnknownExport, UnknownConversation, ExportError.
    """
    exporter = EXPORTERS.get(fmt)
    if exporter is None:
        raise UnknownExport(
            f"{fmt[:80]!r} is no export: choose one of {', '.join(sorted(EXPORTERS))}"
        )
    order = await spans(log, conversation)
    written = events_written = skipped = 0
    async for span, events in conversations(log, order):
        if exporter.fits(events):
            out.write(exporter.text(events, get_blob))
            written += 1
            events_written += len(events)
        elif conversation is not None:
            raise ExportError(
                f"{span.conversation!r} was not imported from {fmt}: "
                "export it as openai-chat or transcript"
            )
        else:
            skipped += 1
        if progress is not None:
            progress(ExportProgress(written + skipped, len(order)))
    return ExportReport(written, events_written, skipped)
