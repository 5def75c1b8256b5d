"""A conversation on the screen: who, what, and in the margin which tier settled it and its cost."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from madlog.analytics.conversation_view import ConversationView

__all__ = ("print_transcript",)

_LINES_MAX = 6


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
    for number, who, what, event in view.lines():
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
