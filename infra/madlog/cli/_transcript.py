"""A conversation on the screen: who, what, and in the margin which tier settled it and its cost."""

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from madlog.analytics.tool_text import parsed, told

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from madlog.analytics.conversation_view import ConversationView, Entry, LeftOut
    from madlog.topics import LogEvent

__all__ = ("Fold", "print_transcript")

_LINES_MAX = 6
_LINE_CHARACTERS_MAX = 400
_ARGUMENTS_MAX = 160
_LEFT_OUT_MAX = 5
# Narrower than this, columns would leave a word a line.
_NARROW = 64
_TIERS = {"dtr": "tree", "lppm": "process", "imperator": "llm"}
# Shown after a decision that did not act.
_MODES = {"live": "", "shadow": "~", "retrospective": "?"}
_COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "bright_cyan", "bright_magenta")


class Fold(Enum):
    """How much of a long text is shown: a line, some lines, or all."""

    LINE = "line"
    SOME = "some"
    NONE = "none"


@dataclass
class _Margin:
    """What was recorded about each event: who settled it, whether that was wrong, its cost."""

    decisions: dict[str, list["LogEvent"]] = field(default_factory=dict)
    wrong: set[str] = field(default_factory=set)
    cost: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, view: "ConversationView") -> "_Margin":
        made = cls()
        for decision in view.decisions:
            made.decisions.setdefault(decision.fields["turn_id"], []).append(decision)
        for outcome in view.outcomes:
            if outcome.fields["about"] == "decision" and outcome.fields["result"] == "failure":
                made.wrong.add(outcome.fields["about_id"])
        for call in view.calls:
            answer, cost = call.fields["answer_id"], call.fields["cost_usd"]
            if answer and cost is not None:
                made.cost[answer] = made.cost.get(answer, 0.0) + cost
        return made

    def settled(self, entry: "Entry") -> "Text":
        from rich.text import Text

        made = Text()
        said: set[str] = set()
        for event_id in entry.event_ids:
            for decision in self.decisions.get(event_id, ()):
                label, style = self._label(decision)
                if label not in said:
                    made.append("\n" if said else "").append(label, style=style)
                    said.add(label)
        return made

    def _label(self, decision: "LogEvent") -> tuple[str, str]:
        fields = decision.fields
        name = _TIERS[fields["tier"]] + _MODES[fields["mode"]]
        if fields["tier"] == "imperator":
            return f"{name} {fields['escalation'] or ''}".rstrip(), "dim"
        route = fields["route"].removeprefix("action:")
        wrong = decision.event_id in self.wrong
        label = f"{name} {route} {fields['confidence']:.0%}{' ✗' if wrong else ''}"
        return label, "red" if wrong else "green"

    def told(self, entry: "Entry", between: str) -> "Text":
        """Return who settled it, and the cost of the model's call that it answers."""
        made = self.settled(entry)
        known = [self.cost[name] for name in entry.event_ids if name in self.cost]
        if known:
            made.append(between if made.plain else "").append(f"${sum(known):.4f}", style="bold")
        return made


def print_transcript(
    view: "ConversationView", fold: Fold = Fold.SOME, *, width: int | None = None
) -> None:
    """Print a conversation, its lines folded to the terminal's width."""
    from rich.console import Console

    console = Console(width=width, highlight=False)
    entries, margin = view.entries(), _Margin.of(view)
    colours = _colours(entries)
    _print_head(console, view)
    if console.width < _NARROW:
        _print_stacked(console, entries, margin, colours, fold)
    else:
        _print_columns(console, entries, margin, colours, fold)
    _print_left_out(console, view, fold)
    _print_foot(console, view)


def _colours(entries: "list[Entry]") -> dict[str, str]:
    """Give each speaker a colour, in the order in which they speak."""
    names = dict.fromkeys(
        entry.event.fields["sender"]["name"] for entry in entries if entry.event.kind == "Turn"
    )
    return {name: _COLOURS[at % len(_COLOURS)] for at, name in enumerate(names)}


def _print_head(console: "Console", view: "ConversationView") -> None:
    from rich.text import Text

    from madlog.cli._times import span, utc

    made = Text(view.conversation_id, style="bold")
    first, last = view.said[0].fields, view.said[-1].fields
    # The times of an imported record that had none are made up: they say nothing.
    if first["source"] is None or first["time_source"] != "synthetic":
        made.append(f"  {utc(first['occurred_at'])}", style="not bold dim")
        lasted = span(last["occurred_at"] - first["occurred_at"])
        made.append(f", {lasted}", style="not bold dim")
    title = next(
        (event.fields.get("title") for event in view.said if event.fields.get("title")), ""
    )
    made.append(f"  {title}" if title else "", style="not bold")
    console.print(made, soft_wrap=True)


def _print_columns(
    console: "Console",
    entries: "list[Entry]",
    margin: _Margin,
    colours: dict[str, str],
    fold: Fold,
) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False, expand=True)
    one_line = fold is Fold.LINE
    overflow: Any = "ellipsis" if one_line else "fold"
    table.add_column(justify="right", no_wrap=True, style="dim")
    side = max(12, min(24, console.width // 4))
    table.add_column(overflow=overflow, no_wrap=one_line, max_width=side)
    table.add_column(overflow=overflow, no_wrap=one_line, ratio=1)
    table.add_column(justify="right", overflow=overflow, no_wrap=one_line, max_width=side)
    for entry in entries:
        number = "" if entry.number is None else str(entry.number)
        beside = margin.told(entry, " " if one_line else "\n")
        who = _who(entry, colours, to=not one_line)
        table.add_row(number, who, _what(entry, fold), beside)
        for step in _steps(entry.steps, fold):
            table.add_row("", "", step, "")
    console.print(table)


def _print_stacked(
    console: "Console",
    entries: "list[Entry]",
    margin: _Margin,
    colours: dict[str, str],
    fold: Fold,
) -> None:
    from rich.padding import Padding
    from rich.text import Text

    for entry in entries:
        head = Text("" if entry.number is None else f"{entry.number} ", style="dim")
        head.append_text(_who(entry, colours, to=True))
        beside = Text(" ").join(margin.told(entry, "\n").split("\n"))
        console.print(head.append("  ").append_text(beside) if beside.plain else head)
        what = _what(entry, fold)
        what.no_wrap, what.overflow = fold is Fold.LINE, "ellipsis"
        for text in (what, *_steps(entry.steps, fold)):
            console.print(Padding(text, (0, 0, 0, 2), expand=False))


def _who(entry: "Entry", colours: dict[str, str], *, to: bool) -> "Text":
    from rich.text import Text

    fields = entry.event.fields
    name = fields["sender"]["name"]
    if entry.changes:
        return Text()
    made = Text(name, style=colours.get(name, ""))
    for number, one in enumerate(fields.get("recipients", ()) if to else ()):
        made.append(", " if number else " → ", style="dim").append(one, style=colours.get(one, ""))
    return made


def _what(entry: "Entry", fold: Fold) -> "Text":
    from rich.text import Text

    event = entry.event
    if entry.changes:
        return Text(_changes(entry.changes), style="dim")
    if event.kind == "Turn":
        return Text(_folded("".join(p["text"] or "" for p in event.fields["parts"]), fold))
    if event.kind == "ToolResult":
        return _result(event, None, fold)
    given = parsed(event.fields["arguments"])
    made = Text(event.fields["action"], style="bold")
    made.append(f"({_fields(event.fields['arguments'], fold)})", style="not bold")
    if entry.result is None:
        return made.append("  no result", style="not bold dim")
    made.append(" " if fold is Fold.LINE else "\n")
    return made.append_text(_result(entry.result, given, fold))


def _result(event: "LogEvent", given: Any, fold: Fold) -> "Text":
    """Return what a tool answered; folded, without the values that it was given and repeats."""
    from rich.text import Text

    fields = event.fields
    text = (fields["result"] if fields["ok"] else fields["error"] or fields["result"]) or ""
    answer = parsed(text)
    if fold is not Fold.NONE and isinstance(answer, dict) and isinstance(given, dict):
        fresh = {name: one for name, one in answer.items() if (name, one) not in given.items()}
        answer = fresh or answer
    sign, style = ("=", "not bold dim") if fields["ok"] else ("✗", "not bold red")
    return Text(f"{sign} {_fields(text, fold, answer)}", style=style)


def _fields(text: str, fold: Fold, value: Any = None) -> str:
    """Return what a tool takes or gives as names and values, cut where it is long."""
    return told(text, None if fold is Fold.NONE else _ARGUMENTS_MAX, value=value)


def _changes(events: "list[LogEvent]") -> str:
    """Put changes of membership into one line: the talk is what matters."""
    words: dict[str, list[str]] = {}
    for event in events:
        subject = event.fields["participant"]
        words.setdefault(event.fields["change"], []).extend([subject] if subject else [])
    return "; ".join(f"{change} {', '.join(names)}".rstrip() for change, names in words.items())


def _steps(events: "list[LogEvent]", fold: Fold) -> "list[Text]":
    """Put the moves of each process into a line; unfolded, each move into its own, with why."""
    from rich.text import Text

    lines: dict[str, list[str]] = {}
    for event in events:
        fields = event.fields
        name = f"process {fields['process']} of {fields['mad']}"
        move = " ".join(filter(None, (fields["state"], fields["action"])))
        if fold is not Fold.NONE:
            lines.setdefault(name, []).append(move)
            continue
        given = f"({_fields(fields['arguments'], fold)})" if fields["arguments"] else ""
        why = f": {fields['reason']}" if fields["reason"] else ""
        lines[f"{name} {len(lines)}"] = [f"{name}: {move}{given}{why}"]
    return [
        Text(
            moves[0] if fold is Fold.NONE else f"{name}: {', '.join(moves)}",
            style="dim",
            no_wrap=fold is Fold.LINE,
            overflow="ellipsis" if fold is Fold.LINE else "fold",
        )
        for name, moves in lines.items()
    ]


def _folded(text: str, fold: Fold) -> str:
    text = text.strip()
    if fold is Fold.NONE:
        return text
    if fold is Fold.LINE:
        return " ".join(text.split())
    lines = text.splitlines() or [""]
    more = len(lines) - _LINES_MAX
    cut = [line if len(line) <= _LINE_CHARACTERS_MAX else _cut(line) for line in lines[:_LINES_MAX]]
    return "\n".join([*cut, f"… {more} lines more"] if more > 0 else cut)


def _cut(line: str) -> str:
    more = len(line) - _LINE_CHARACTERS_MAX
    return f"{line[:_LINE_CHARACTERS_MAX]} … {more:,} characters more"


def _print_left_out(console: "Console", view: "ConversationView", fold: Fold) -> None:
    """Say what each language model was not shown: often that is why it did what it did."""
    from rich.text import Text

    missing = list(view.left_out())
    for one in missing if fold is Fold.NONE else missing[-_LEFT_OUT_MAX:]:
        fields = one.call.fields
        what = "its answer" if one.before is None else _named(one.before)
        budget = fields["parameters"].get("token_budget") or ""
        most = f" of {int(budget):,}" if budget.isdigit() else ""
        taken = (
            "" if fields["tokens_in"] is None else f", {fields['tokens_in']:,}{most} tokens taken"
        )
        said = f"not shown to {fields['sender']['name']}'s model before {what}{taken}:"
        console.print(Text(said, style="yellow"))
        console.print(Text(f"  {_kept(one)}"))
    if fold is not Fold.NONE and len(missing) > _LEFT_OUT_MAX:
        console.print(f"and so in {len(missing) - _LEFT_OUT_MAX} calls before: --full shows all")


def _named(entry: "Entry") -> str:
    if entry.number is not None:
        return f"#{entry.number}"
    fields = entry.event.fields
    return f"{fields.get('action')}({_fields(fields.get('arguments') or '', Fold.LINE)})"


def _kept(one: "LeftOut") -> str:
    """Name what was left out: turns by their numbers, calls with what came of them."""
    numbers = [entry.number for entry in one.entries if entry.number is not None]
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    named = [f"#{run[0]}" if len(run) == 1 else f"#{run[0]} to #{run[-1]}" for run in runs]
    for entry in one.entries:
        if entry.number is None:
            named.append(_what(entry, Fold.LINE).plain)
    return "; ".join(named)


def _print_foot(console: "Console", view: "ConversationView") -> None:
    modes = {decision.fields["mode"] for decision in view.decisions}
    signs = {"retrospective": "? = what would have been decided", "shadow": "~ = a model on trial"}
    said = [text for mode, text in signs.items() if mode in modes]
    if said:
        console.print(f"{'; '.join(said)}; it did not act", style="dim")
    ended: dict[str, None] = {}
    judged: Counter[str] = Counter()
    for outcome in view.outcomes:
        fields = outcome.fields
        if fields["about"] == "decision":
            judged[fields["result"]] += 1
            continue
        quality = "" if fields["quality"] is None else f", quality {fields['quality']:g}"
        ended[f"{fields['result']}{quality} (judged by {fields['judged_by']})"] = None
    if ended:
        console.print(f"outcome: {'; '.join(ended)}")
    if judged:
        counted = ", ".join(f"{count} {result}" for result, count in judged.most_common())
        console.print(f"decisions judged: {counted}")
    console.print(_costs(view))


def _costs(view: "ConversationView") -> str:
    calls = view.calls
    if not calls:
        return "language model calls: none recorded"
    unknown = sum(call.fields["cost_usd"] is None for call in calls)
    if view.cost_usd is None:
        cost = "cost unknown"
    else:
        cost = f"${view.cost_usd:.4f}"
        cost += f" and {unknown} of unknown cost" if unknown else ""
    ways = [
        (call.fields["tokens_in"] or 0, call.fields["tokens_out"] or 0)
        for call in calls
        if call.fields["tokens_in"] is not None
    ]
    tokens = ""
    if ways:
        tokens = f", {sum(one for one, _ in ways):,} tokens in, {sum(two for _, two in ways):,} out"
    return f"language model calls: {len(calls)}, {cost}{tokens}"
