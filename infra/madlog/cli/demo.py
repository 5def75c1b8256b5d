"""demo: the main job on scripted traffic, each screen made by the command that it shows."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from madlog.cli._context import JsonOption, State, note, print_object, run, state_of

__all__ = ("register",)

_WIDTH = 80
_SCREEN_LINES_MAX = 19
_REFUNDED_TWICE = """select arguments->>'order_id' as order_id, count(*) as refunds,
  max((arguments->>'amount_eur')::int) as eur
from tool_calls where action = 'refund'
group by 1 having count(*) > 1 order by 1"""


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("demo", short_help="the main job on scripted traffic: durable, ask, see, prove")(
        demo
    )


@dataclass
class _Show:
    """Prints the screens, or keeps what they found for --json."""

    state: State
    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)

    def screen(self, number: int, title: str) -> None:
        if not self.state.json:
            print(f"\n── {number}. {title} " + "─" * (_WIDTH - len(title) - 7))

    def say(self, text: str = "") -> None:
        if not self.state.json:
            print(text)
            sys.stdout.flush()

    def command(
        self, *arguments: str, log: Path | None = None, code: int = 0, lines_max: int | None = None
    ) -> str:
        """Run a real command, print it and what it printed; returns its stdout."""
        place = log or self.folder
        shown = " ".join(_quoted(argument) for argument in arguments)
        self.say(f"$ madlog {shown} --log {os.path.relpath(place)}")
        done = subprocess.run(
            [sys.executable, "-m", "madlog", *arguments, "--log", str(place)],
            capture_output=True,
            text=True,
            env={**os.environ, "COLUMNS": str(_WIDTH), "PYTHONIOENCODING": "utf-8"},
            check=False,
            timeout=120,
        )
        if done.returncode != code:
            note(done.stdout + done.stderr)
            note(f"madlog: the demo stopped: that command ended with {done.returncode}, not {code}")
            raise typer.Exit(1)
        lines = done.stdout.splitlines()
        most = lines_max or _SCREEN_LINES_MAX
        for line in lines[:most]:
            self.say(line[: _WIDTH - 1] + "…" if len(line) > _WIDTH else line)
        if len(lines) > most:
            self.say(f"… {len(lines) - most} more lines")
        return done.stdout


def _quoted(argument: str) -> str:
    return f'"{argument}"' if " " in argument or "\n" in argument else argument


def demo(
    ctx: typer.Context,
    turns: Annotated[int, typer.Option("--turns", min=200, help="How many turns.")] = 20_000,
    seed: Annotated[int, typer.Option("--seed", help="Another seed, other traffic.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Show the main job on a scripted refund team: durable, ask, see, prove.

    Needs no server, no key, no network. Writes a fresh folder below .madlog-demo, never your log.

    Example: madlog demo
    """
    state = state_of(ctx, None, as_json)
    show = _Show(state, _fresh_folder())
    show.say("madlog demo: a refund team of 6 agents and 2 people. Its traffic is scripted,")
    show.say("its models too; everything else on these screens is the real thing.")
    _durable(show, turns, seed)
    _ask(show)
    _see(show)
    _prove(show)
    _now_yours(show)
    if state.json:
        print_object(state, {"folder": str(show.folder), "seed": seed, **show.facts})


def _fresh_folder() -> Path:
    base = Path(".madlog-demo")
    base.mkdir(exist_ok=True)
    for number in range(1, 10_000):
        folder = base / f"run-{number:03}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise typer.BadParameter(f"{base} holds 9,999 runs: remove it")


def _durable(show: _Show, turns: int, seed: int) -> None:
    """Screen 1: a writer is killed with -9 in the middle; what it acknowledged is there."""
    from time import perf_counter

    show.screen(1, "Durable: a writer is killed with -9, nothing it acknowledged is lost")
    begun = perf_counter()
    # Each turn comes with tool calls, model calls and joins, so events outnumber turns.
    acknowledged = _write(show.folder, turns, seed, kill_after=turns // 2)
    stored, twice = run(_count(show.folder))
    lost = max(0, acknowledged - stored)
    show.say(f"writer killed with SIGKILL after {acknowledged:,} acknowledged events; log reopened")
    show.say(f"acknowledged {acknowledged:,}   stored {stored:,}   lost {lost}   twice {twice}")
    if stored > acknowledged:
        show.say(f"({stored - acknowledged:,} more were durable, their answer was under way)")
    _write(show.folder, turns, seed, kill_after=None)
    total, twice_all = run(_count(show.folder))
    seconds = perf_counter() - begun
    show.say(f"a second writer went on with the same ids: {total:,} events, twice {twice_all}")
    show.say(f"every acknowledgement synced to disk; {seconds:.1f} s in all")
    show.facts["durable"] = {
        "acknowledged": acknowledged,
        "stored": stored,
        "lost": lost,
        "twice": twice + twice_all,
        "events": total,
    }
    if lost or twice or twice_all:
        raise typer.Exit(1)


def _write(folder: Path, turns: int, seed: int, *, kill_after: int | None) -> int:
    """Run a writer process; returns the events that it said are durable."""
    from madlog.cli._context import progress_bar

    command = [sys.executable, "-m", "madlog.demo_writer", str(folder)]
    command += ["--seed", str(seed), "--turns", str(turns)]
    acknowledged = 0
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer,
        progress_bar("events, each synced") as bar,
    ):
        assert writer.stdout is not None
        for line in writer.stdout:
            acknowledged = int(line.split()[-1])
            bar(acknowledged)
            if kill_after is not None and acknowledged >= kill_after:
                writer.kill()
                break
        # What was in the pipe when it died was acknowledged too.
        for line in writer.stdout:
            if line.endswith("\n"):
                acknowledged = int(line.split()[-1])
    if kill_after is None and writer.returncode:
        note("madlog: the demo's writer failed; its message stands above")
        raise typer.Exit(1)
    return acknowledged


async def _count(folder: Path) -> tuple[int, int]:
    """Return (events stored, events stored twice), the log's own schemas apart."""
    from madlog.wiring import opened

    seen: set[str] = set()
    count = 0
    async with opened(str(folder), create=False) as log:
        names = [name for name in await log.log.topics() if name != "mad.schemas"]
        async for batch in log.read_topics(names):
            count += len(batch)
            seen.update(event.event_id for event in batch)
    return count, count - len(seen)


def _ask(show: _Show) -> None:
    show.screen(2, "Ask: was anything done twice?")
    # Its first record is order 4711; the others follow in the second command's table.
    show.command("ask", "duplicate-effects", lines_max=6)
    show.say()
    show.command("sql", _REFUNDED_TWICE)


def _see(show: _Show) -> None:
    show.screen(3, "See: one conversation, who said what, and what it cost")
    show.command("show", "latest")


def _prove(show: _Show) -> None:
    """Screen 5: replay from zero agrees; one flipped byte in a copy is named."""
    show.screen(5, "Prove: replay from offset zero agrees, one flipped byte is found")
    show.command("worker", "--until-idle", lines_max=2)
    show.command("replay", "rebuild", lines_max=8)
    copy = show.folder.with_name(show.folder.name + "-damaged")
    show.command("backup", str(os.path.relpath(copy)), lines_max=1)
    place = _flip_one_byte(copy)
    show.say(f"# one byte flipped at byte {place:,} of the copy's file")
    out = show.command("check", log=copy, code=1, lines_max=4)
    show.facts["damage"] = out.splitlines()[0] if out else ""


def _flip_one_byte(copy: Path) -> int:
    """Flip one byte of a customer's words in a log's file; returns where."""
    path = copy / "log.sqlite"
    data = path.read_bytes()
    place = data.index(b"refund", len(data) // 2)
    with path.open("r+b") as file:
        file.seek(place)
        file.write(bytes([data[place] ^ 1]))
    return place


def _now_yours(show: _Show) -> None:
    show.screen(8, "Now yours")
    lines: Sequence[str] = (
        "madlog import runs.jsonl --format openai-chat   # agents that you already run",
        "madlog worker --until-idle                      # who would have settled what",
        "madlog ask                                      # the questions with a name",
        'madlog sql "select sender, count(*) from turns group by 1"',
        f"madlog ask who-talks-to-whom --log {os.path.relpath(show.folder)}",
    )
    for line in lines:
        show.say(line)
