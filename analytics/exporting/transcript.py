"""Conversations as text for people: who said what to whom, which tools were called and answered."""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from madlog.analytics.exporting._exporter import created_of
from madlog.analytics.exporting.messages import GetBlob
from madlog.schemas import ConversationChanged, Event, Part, ToolCall, ToolResult, Turn

__all__ = ("Transcript", "transcript_lines")

# A transcript is shown on terminals: what a text could do to one is shown, not done.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def _shown(text: str, indent: str = "    ") -> str:
    clean = _CONTROLS.sub(lambda match: f"\\x{ord(match[0]):02x}", text.replace("\r\n", "\n"))
    return "\n".join(indent + line for line in clean.split("\n"))


def _time(event: Event) -> str:
    if event.time_source == "synthetic":
        return ""
    at = datetime.fromtimestamp(event.occurred_at // 1_000_000, UTC)
    return f"  {at:%Y-%m-%d %H:%M:%SZ}"


def _part(part: Part) -> str:
    if part.text is not None:
        return part.text
    where = part.uri if part.uri and len(part.uri) <= 200 else f"sha256:{part.sha256}"
    size = f", {part.size} bytes" if part.size is not None else ""
    return f"[{part.media_type or 'data'} {where}{size}]"


def _changed(event: ConversationChanged) -> str:
    who = f" {event.participant}" if event.participant else ""
    kind = f" ({event.participant_kind})" if event.participant_kind else ""
    return f"--{who}{kind} {event.change}{_time(event)}\n"


def transcript_lines(events: Sequence[Event]) -> Iterator[str]:
    """Yield the transcript of one conversation piece by piece, each with its line end."""
    created = created_of(events)
    head = events[0].conversation_id if events else ""
    title = f" · {created.title}" if created and created.title else ""
    source = created.source if created else None
    origin = f" · from {source.format}, line {source.line}" if source else ""
    yield _shown(f"== {head}{title}{origin}", "") + "\n"
    number = 0
    for event in events:
        if isinstance(event, ConversationChanged):
            if event is not created:
                yield _changed(event)
        elif isinstance(event, Turn):
            number += 1
            to = f" → {', '.join(event.recipients)}" if event.recipients else ""
            tags = f"  {' '.join('#' + tag for tag in event.tags)}" if event.tags else ""
            yield f"\n[{number}] {event.sender.name}{to}{_time(event)}{_shown(tags, '')}\n"
            yield _shown("".join(_part(part) for part in event.parts)) + "\n"
        elif isinstance(event, ToolCall):
            yield f"\n    {event.sender.name} calls {_shown(event.action, '')}\n"
            yield _shown(event.arguments, "      ") + "\n"
        elif isinstance(event, ToolResult):
            yield f"    {'answered' if event.ok else 'FAILED'}{_time(event)}\n"
            content = event.result if event.error is None else event.error
            yield _shown(content or "", "      ") + "\n"
    yield "\n"


class Transcript:
    """The exporter for people."""

    name = "transcript"

    def fits(self, events: Sequence[Event]) -> bool:
        """Tell that every conversation can be read."""
        return True

    def text(self, events: Sequence[Event], get_blob: GetBlob | None) -> str:
        """Return the conversation as it would be read aloud."""
        return "".join(transcript_lines(events))
