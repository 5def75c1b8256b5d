"""append, tail, show: what reads and writes the log itself."""

import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from madlog.cli._context import (
    JsonOption,
    LogOption,
    State,
    fail,
    print_object,
    run,
    state_of,
)

if TYPE_CHECKING:
    from madlog.topics import EventLog, LogEvent, Vector

__all__ = ("register",)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("append", short_help="append one turn, or a turn a line of stdin")(append)
    app.command("tail", short_help="print a topic, and go on as events come")(tail)
    app.command("show", short_help="one conversation: transcript, tool calls, costs")(show)


def append(
    ctx: typer.Context,
    text: Annotated[str, typer.Argument(help="What is said; - reads JSON lines from stdin.")],
    conversation: Annotated[str | None, typer.Option("-c", "--conversation")] = None,
    sender: Annotated[str | None, typer.Option("-s", "--sender")] = None,
    to: Annotated[list[str] | None, typer.Option("-t", "--to", help="A recipient; repeat.")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse instead of creating and joining.")
    ] = False,
    key: Annotated[
        str | None, typer.Option("--key", help="Idempotency key: the same key appends once.")
    ] = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Append one turn, or with - one turn a line of stdin; durable when it answers.

    \b
    Examples:
      madlog append -c order-4711 -s ada -t shop "Where is my parcel?"
      madlog append - < turns.jsonl   # {"conversation_id", "sender", "text", "recipients"?, …}
    """
    state = state_of(ctx, log, as_json)
    run(_append(state, text, conversation, sender, to or [], strict, key))


async def _append(
    state: State,
    text: str,
    conversation: str | None,
    sender: str | None,
    to: list[str],
    strict: bool,
    key: str | None,
) -> None:
    from madlog.cli._stdin import append_lines
    from madlog.mads import append_turn
    from madlog.wiring import opened

    if text != "-" and (not conversation or not sender):
        raise typer.BadParameter("a turn needs -c CONVERSATION and -s SENDER")
    async with opened(state.url, state.settings) as log:
        if text == "-":
            code = await append_lines(log, conversation, sender, to, strict)
            raise typer.Exit(code)
        said = await append_turn(
            log,
            str(conversation),
            str(sender),
            text,
            to,
            strict=strict,
            idempotency_key=key,
        )
    answer: dict[str, Any] = {"event_id": said.event_id, "position": str(said.position)}
    if said.repeated:
        answer["repeated"] = True
    print_object(state, answer)


def tail(
    ctx: typer.Context,
    topic: Annotated[str, typer.Argument(help="A topic.")] = "mad.conversations",
    since: Annotated[
        str, typer.Option("--from", metavar="start|end|OFFSET|TIME", help="Where to begin.")
    ] = "start",
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as events come.")] = False,
    limit: Annotated[int | None, typer.Option("-n", "--limit", min=1)] = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a topic's events: readable on a terminal, JSON lines on a pipe.

    \b
    Examples:
      madlog tail --follow
      madlog tail mad.decisions --from 2026-01-01T00:00:00Z --limit 10
    """
    state = state_of(ctx, log, as_json)
    run(_tail(state, topic, since, follow, limit))


async def _tail(state: State, topic: str, since: str, follow: bool, limit: int | None) -> None:
    from madlog.topics import UnknownTopic
    from madlog.topics.catalog import topic as catalogued
    from madlog.wiring import opened

    catalogued(topic)
    readable = sys.stdout.isatty() and not state.json
    async with opened(state.url, state.settings, create=False) as log:
        if topic not in await log.log.topics():
            if not follow:
                raise UnknownTopic(f"this log holds nothing of {topic} yet")
            await log.ensure_topics([topic])
        start = await _begin(log, topic, since)
        count = 0
        events = _live(log, start) if follow else _merged(log, start)
        async for event in events:
            _print_event(event, readable)
            count += 1
            if limit and count >= limit:
                break


async def _begin(log: "EventLog", topic: str, since: str) -> "Vector":
    from madlog.analytics.as_of import parse_time
    from madlog.topics import Vector

    if since == "start":
        return await log.log.start([topic])
    end = await log.log.end([topic])
    if since == "end":
        return end
    if since.isdigit():
        low = await log.log.start([topic])
        return Vector({tp: min(max(int(since), low[tp]), end[tp]) for tp in end})
    return await log.log.at_time([topic], parse_time(since))


async def _live(log: "EventLog", start: "Vector") -> "AsyncIterator[LogEvent]":
    async for batch in log.subscribe(start):
        for event in batch:
            yield event
        sys.stdout.flush()


async def _merged(log: "EventLog", start: "Vector") -> "AsyncIterator[LogEvent]":
    """Merge a topic's partitions by append time, holding one batch of each."""
    import heapq

    from madlog.topics import Vector

    end = await log.log.end({tp.topic for tp in start})

    async def one(tp: Any) -> "AsyncIterator[LogEvent]":
        async for batch in log.read(Vector({tp: start[tp]}), Vector({tp: end[tp]})):
            for event in batch:
                yield event

    heap: list[tuple[int, int, LogEvent, AsyncIterator[LogEvent]]] = []
    for tp in sorted(start):
        stream = one(tp)
        first = await anext(stream, None)
        if first is not None:
            heapq.heappush(heap, (first.record.appended_at, tp.partition, first, stream))
    while heap:
        _, partition, event, stream = heap[0]
        yield event
        following = await anext(stream, None)
        if following is None:
            heapq.heappop(heap)
        else:
            entry = (following.record.appended_at, partition, following, stream)
            heapq.heapreplace(heap, entry)


def _print_event(event: "LogEvent", readable: bool) -> None:
    from madlog.cli._context import dump

    fields = event.fields
    if not readable:
        place = {"position": str(event.position), "appended_at": event.record.appended_at}
        print(dump({"kind": event.kind, **place, **fields}))
        return
    text = "".join(part["text"] or "" for part in fields.get("parts", ()))
    if event.kind != "Turn":
        skip = {"event_id", "conversation_id", "sender", "extra", "source", "principal", "cipher"}
        told = {k: v for k, v in fields.items() if k not in skip and v not in (None, [], {})}
        text = dump({k: v for k, v in told.items() if not k.endswith("_id")})[:160]
    who = fields["sender"]["name"]
    print(f"{event.position}  {fields['conversation_id']}  {who}  {event.kind}  {text[:400]}")


def show(
    ctx: typer.Context,
    conversation: Annotated[str, typer.Argument(help="A conversation's id, or latest.")],
    full: Annotated[bool, typer.Option("--full", help="Fold and cut nothing.")] = False,
    brief: Annotated[bool, typer.Option("--brief", help="A line for each thing said.")] = False,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a conversation: the transcript with tool calls, decisions and costs.

    In the margin: what settled it and how sure that was (? marks what would have been), and what
    the language model cost. Below: what the model was not shown, where the log says so.

    \b
    Examples:
      madlog show latest
      madlog show order-4711 --brief
    """
    state = state_of(ctx, log, as_json)
    if full and brief:
        raise fail("--full shows all and --brief a line of each: leave one out", 2)
    run(_show(state, conversation, full, brief))


async def _show(state: State, conversation: str, full: bool, brief: bool) -> None:
    from madlog.analytics.conversation_view import conversation_view
    from madlog.cli._transcript import Fold, print_transcript
    from madlog.wiring import opened

    async with opened(state.url, state.settings, create=False) as log:
        view = await conversation_view(log, conversation)
    if state.json:
        print_object(state, view.as_json())
    else:
        print_transcript(view, Fold.NONE if full else Fold.LINE if brief else Fold.SOME)
