"""A conversation on the screen: who, what, and in the margin which tier settled it and its cost."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from madlog.analytics.conversation_view import ConversationView
    from madlog.topics import LogEvent

    _Line = tuple[str, str, str, LogEvent]

__all__ = ("print_transcript",)

_LINES_MAX = 6


def _changes_together(lines: "Iterator[_Line]") -> "Iterator[_Line]":
    """Put changes of membership that follow each other into one line: the talk is what matters."""
    held: list[_Line] = []
    for line in lines:
        if line[3].kind == "ConversationChanged":
            held.append(line)
            continue
        yield from _one(held)
        held = []
        yield line
    yield from _one(held)


def _one(held: "list[_Line]") -> "Iterator[_Line]":
    if held:
        words: dict[str, list[str]] = {}
        for _, _, what, _ in held:
            change, _, subject = what.partition(" ")
            words.setdefault(change, []).extend([subject] if subject else [])
        told = "; ".join(f"{change} {', '.join(names)}".rstrip() for change, names in words.items())
        yield "", held[0][1], f"({told})", held[0][3]


def print_transcript(view: "ConversationView", *, width: int | None = None) -> None:
    """Print a conversation, its lines folded to the terminal's width."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    settled: dict[str, str] = {}
    for decision in view.decisions:
        fields = decision.fields
        label = {"dtr": "tree", "lppm": "process", "imperator": "llm"}[fields["tier"]]
        mode = "" if fields["mode"] == "live" else "?"
        settled[fields["turn_id"]] = f"{label}{mode} {fields['route']}"
    cost: dict[str, float] = {}
    for call in view.calls:
        fields = call.fields
        if fields["answer_id"] and fields["cost_usd"] is not None:
            cost[fields["answer_id"]] = cost.get(fields["answer_id"], 0.0) + fields["cost_usd"]
    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("who", overflow="fold", max_width=22)
    table.add_column("what", overflow="fold", ratio=1)
    table.add_column("settled by", overflow="fold", max_width=22)
    table.add_column("usd", justify="right", no_wrap=True)
    for number, who, what, event in _changes_together(view.lines()):
        lines = what.strip().splitlines() or [""]
        if len(lines) > _LINES_MAX:
            lines = [*lines[:_LINES_MAX], f"… {len(lines) - _LINES_MAX} more lines"]
        shown = "\n".join(line if len(line) <= 400 else line[:400] + " …" for line in lines)
        style = "" if event.kind == "Turn" else "dim"
        spent = cost.get(event.event_id)
        table.add_row(
            number,
            Text(who, style=style),
            Text(shown, style=style),
            settled.get(event.event_id, ""),
            "" if spent is None else f"{spent:.4f}",
        )
    console = Console(width=width)
    console.print(Text(view.conversation_id, style="bold"))
    console.print(table)
    if any(decision.fields["mode"] != "live" for decision in view.decisions):
        console.print("? = what would have been decided; the record itself is not changed")
    for outcome in view.outcomes:
        fields = outcome.fields
        quality = "" if fields["quality"] is None else f", quality {fields['quality']:g}"
        console.print(f"outcome: {fields['result']}{quality} (judged by {fields['judged_by']})")
    total = "unknown" if view.cost_usd is None else f"{view.cost_usd:.4f}"
    console.print(f"language model calls: {len(view.calls)}, cost in USD: {total}")
