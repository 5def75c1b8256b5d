"""demo: the main job on scripted traffic, each screen made by the command that it shows.

On Kafka it writes topics under a prefix of its own, and leaves out what needs a log's files.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from madlog.cli._context import (
    JsonOption,
    LogOption,
    State,
    fail,
    note,
    print_object,
    run,
    state_of,
)
from madlog.cli._damage import flip_one_byte

__all__ = ("register",)

_WIDTH = 80
_SCREEN_LINES_MAX = 19
_AT_ONCE = 2
# Far more than a command takes on a busy machine: who reaches it, hangs.
_COMMAND_S_MAX = 600
_REFUNDED_TWICE = """select arguments->>'order_id' as order_id, count(*) as refunds,
  max((arguments->>'amount_eur')::int) as eur
from tool_calls where action = 'refund'
group by 1 having count(*) > 1 order by 1"""


# No earlier refund of this order.
_GUARD = """call.action = 'refund' and exists (
  from past where past.action = 'refund' and past.ok
    and past.arguments->>'order_id' = call.arguments->>'order_id'
)"""
_LEARNED = """select version as model, count(*) as decisions,
  round(avg((tier = 'dtr')::int), 3) as tree,
  round(avg((tier = 'lppm')::int), 3) as process,
  round(avg((o.result = 'failure')::int), 4) as wrong
from decisions d join models m on m.event_id = model_id
left join outcomes o on o.about_id = d.event_id and o.judged_by = 'record'
group by 1 order by min(m.appended_at)"""
_ASKED = ("ask", "duplicate-effects"), ("sql", _REFUNDED_TWICE)
_SHOWN = "show", "latest", "--brief"
_TRIED = "replay", "what-if", "--show", "1", "--guard", _GUARD
_REBUILT = "replay", "rebuild"
_SAVED = ("sql", _LEARNED), ("ask", "tiers", "--json")


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("demo", short_help="the main job on scripted traffic: durable, ask, see, prove")(
        demo
    )


@dataclass
class _Show:
    """Prints the screens, or keeps what they found for --json."""

    state: State
    log: str
    on_kafka: bool
    facts: dict[str, Any] = field(default_factory=dict)
    _pool: ThreadPoolExecutor = field(default_factory=partial(ThreadPoolExecutor, _AT_ONCE))
    _begun: dict[tuple[str, ...], "Future[subprocess.CompletedProcess[str]]"] = field(
        default_factory=dict
    )

    def screen(self, number: int, title: str) -> None:
        if not self.state.json:
            print(f"\n── {number}. {title} " + "─" * (_WIDTH - len(title) - 7))

    def say(self, text: str = "") -> None:
        if not self.state.json:
            print(text)
            sys.stdout.flush()

    def command(
        self,
        *arguments: str,
        log: str | None = None,
        code: int = 0,
        lines_max: int | None = None,
        told: Callable[[str], list[str]] | None = None,
    ) -> str:
        """Run a real command, print it and its answer, or what is told of it; return that.

        One that was begun before is waited for.
        """
        said = (*arguments, "--log", log or self.log)
        self.say(f"$ madlog {' '.join(map(_quoted, said))}")
        self.begin(*arguments, log=log)
        try:
            done = self._begun.pop(said).result()
        except subprocess.TimeoutExpired as error:
            text = f"the demo stopped: that command was not done after {_COMMAND_S_MAX} s"
            raise fail(text, 3) from error
        if done.returncode != code:
            note(done.stdout + done.stderr)
            ended = f"that command ended with {done.returncode}, not {code}"
            raise fail(f"the demo stopped: {ended}", 1)
        lines = done.stdout.splitlines() if told is None else told(done.stdout)
        most = lines_max or _SCREEN_LINES_MAX
        for line in lines[:most]:
            self.say(line[: _WIDTH - 1] + "…" if len(line) > _WIDTH else line)
        if len(lines) > most:
            self.say(f"… {len(lines) - most} more lines")
        return done.stdout

    def begin(self, *arguments: str, log: str | None = None) -> None:
        """Run a command whose screen comes later, beside what runs already."""
        said = (*arguments, "--log", log or self.log)
        if said not in self._begun:
            self._begun[said] = self._pool.submit(_ran, said)


def _ran(said: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "madlog", *said],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": str(_WIDTH), "PYTHONIOENCODING": "utf-8"},
        check=False,
        timeout=_COMMAND_S_MAX,
    )


def _quoted(argument: str) -> str:
    return f'"{argument}"' if set(argument) & set(" \n?&") else argument


def demo(
    ctx: typer.Context,
    turns: Annotated[int, typer.Option("--turns", min=200, help="How many turns.")] = 20_000,
    seed: Annotated[int, typer.Option("--seed", help="Another seed, other traffic.")] = 1,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the main job on a scripted refund team: durable, ask, see, what if, prove.

    Needs no server, no key, no network. Writes a fresh folder below .madlog-demo, never your log;
    with --log kafka://HOST:PORT fresh topics on that cluster.

    \b
    Examples:
      madlog demo
      madlog demo --log kafka://localhost:9092
    """
    state = state_of(ctx, log, as_json)
    show = _Show(state, *_fresh_log(state.log))
    show.say("madlog demo: a refund team of 6 agents and 2 people. Its traffic is scripted,")
    show.say("its models too; everything else on these screens is the real thing.")
    _durable(show, turns, seed)
    # These only read, so they run side by side; nothing is appended before all are done.
    before = run(_ends(show.log))
    for arguments in (*_ASKED, _SHOWN, _TRIED):
        show.begin(*arguments)
    _ask(show)
    _see(show)
    _what_if(show, before)
    _prove(show)
    _save(show)
    _now_yours(show)
    if state.json:
        print_object(state, {"log": show.log, "seed": seed, **show.facts})


def _fresh_log(named: str | None) -> tuple[str, bool]:
    """Return the address of a log that is not there yet, and whether it is on Kafka."""
    from secrets import token_hex

    from madlog.wiring import is_kafka, with_prefix

    if named is None:
        return os.path.relpath(_fresh_folder()), False
    if not is_kafka(named):
        raise typer.BadParameter(
            "the demo makes a folder of its own: leave --log out, or name a Kafka cluster"
        )
    return with_prefix(named, f"demo-{token_hex(3)}-"), True


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
    acknowledged = _write(show.log, turns, seed, kill_after=turns // 2)
    stored, twice = run(_count(show.log))
    lost = max(0, acknowledged - stored)
    show.say(f"writer killed with SIGKILL after {acknowledged:,} acknowledged events; log reopened")
    show.say(f"acknowledged {acknowledged:,}   stored {stored:,}   lost {lost}   twice {twice}")
    if stored > acknowledged:
        show.say(f"({stored - acknowledged:,} more were durable, their answer was under way)")
    _write(show.log, turns, seed, kill_after=None)
    total, twice_all = run(_count(show.log))
    seconds = perf_counter() - begun
    show.say(f"a second writer went on with the same ids: {total:,} events, twice {twice_all}")
    how = "by all in-sync replicas" if show.on_kafka else "after a sync to disk"
    show.say(f"every turn acknowledged {how}; {seconds:.1f} s in all")
    show.facts["durable"] = {
        "acknowledged": acknowledged,
        "stored": stored,
        "lost": lost,
        "twice": twice + twice_all,
        "events": total,
    }
    if lost or twice or twice_all:
        raise typer.Exit(1)


def _write(log: str, turns: int, seed: int, *, kill_after: int | None) -> int:
    """Run a writer process; returns the events that it said are durable."""
    from madlog.cli._context import progress_bar

    command = [sys.executable, "-m", "madlog.demo_writer", log]
    command += ["--seed", str(seed), "--turns", str(turns)]
    acknowledged = 0
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer,
        progress_bar("events, each durable") as bar,
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


async def _count(url: str) -> tuple[int, int]:
    """Return (events stored, events stored twice), the log's own schemas apart."""
    from madlog.wiring import opened

    seen: set[str] = set()
    count = 0
    async with opened(url, create=False) as log:
        names = [name for name in await log.log.topics() if name != "mad.schemas"]
        async for batch in log.read_topics(names):
            count += len(batch)
            seen.update(event.event_id for event in batch)
    return count, count - len(seen)


def _ask(show: _Show) -> None:
    show.screen(2, "Ask: was anything done twice?")
    # Its first record is order 4711; the others follow in the second command's table.
    show.command(*_ASKED[0], lines_max=6)
    show.say()
    show.command(*_ASKED[1])


def _see(show: _Show) -> None:
    """Screen 3: the newest conversation is the one that refunded twice, and the log says why."""
    show.screen(3, "See: how it happened, what it cost, what the model had not been shown")
    show.command(*_SHOWN)


def _what_if(show: _Show, before: dict[str, int]) -> None:
    """Screen 4: a guard on the record blocks what was done twice and nothing else."""
    show.screen(4, "What if: no refund of an order that has been refunded")
    show.command(*_TRIED)
    after = run(_ends(show.log))
    asked, appended = (
        after["mad.llm"] - before["mad.llm"],
        sum(after.values()) - sum(before.values()),
    )
    show.say(f"language model calls made: {asked}; events appended: {appended}")
    show.facts["what_if"] = {"llm_calls_made": asked, "appended": appended}


async def _ends(url: str) -> dict[str, int]:
    """Return by topic the sum of the offsets at which its partitions end."""
    from madlog.wiring import opened

    ends: dict[str, int] = {}
    async with opened(url, create=False) as log:
        for tp, offset in (await log.log.end(list(await log.log.topics()))).items():
            ends[tp.topic] = ends.get(tp.topic, 0) + offset
    return ends


def _prove(show: _Show) -> None:
    """Screen 5: replay from zero agrees; one flipped byte in a copy is named."""
    title = "Prove: replay from offset zero agrees"
    show.screen(5, title if show.on_kafka else f"{title}, one flipped byte is found")
    show.command("worker", "--until-idle", lines_max=2)
    copy = show.log + "-damaged"
    show.begin(*_REBUILT)
    if not show.on_kafka:
        show.begin("backup", copy)
    for arguments in _SAVED:
        show.begin(*arguments)
    show.command(*_REBUILT, lines_max=8)
    if show.on_kafka:
        show.command("check", lines_max=2)
        show.say("(the flipped byte needs a log's files: see it with `madlog demo`)")
        return
    show.command("backup", copy, lines_max=1)
    place = run(flip_one_byte(Path(copy), show.state.settings))
    show.say(f"# one byte flipped at byte {place:,} of the copy's file")
    out = show.command("check", log=copy, code=1, lines_max=4)
    show.facts["damage"] = out.splitlines()[0] if out else ""


def _save(show: _Show) -> None:
    """Screen 6: what the cheap tiers settle as they learn, and how often they are wrong."""
    show.screen(6, "Save: the tiers before and after learning, language model calls avoided")
    show.say("Each model learned from the conversations before those that it decides; right is")
    show.say("what the agent did then, with the same arguments. seed-1 had not learned.")
    show.command(*_SAVED[0])
    show.say()
    out = show.command(*_SAVED[1], told=_told_tiers)
    show.facts["tiers"] = [json.loads(line) for line in out.splitlines()]
    show.say("scripted traffic: expect less on yours")


def _told_tiers(out: str) -> list[str]:
    """Return a sentence for each cheap tier of the answer."""
    rows = [json.loads(line) for line in out.splitlines()]
    said = []
    for row in rows:
        if row["tier"] == "imperator" or not row["judged"]:
            continue
        low, high, error = (row[name] for name in ("error_low", "error_high", "delivered_error"))
        said.append(
            f"{row['settled_by']:<8}{row['share']:6.1%} of decisions; promised "
            f"{row['promised_error']:.0%} wrong, delivered {error:.1%} ({low:.1%} to {high:.1%})"
        )
    return said


def _now_yours(show: _Show) -> None:
    show.screen(8, "Now yours")
    lines: Sequence[str] = (
        "madlog import runs.jsonl --format openai-chat   # agents that you already run",
        "madlog worker --until-idle                      # who would have settled what",
        "madlog ask                                      # the questions with a name",
        'madlog sql "select sender, count(*) from turns group by 1"',
        f"madlog search refund EUR --log {_quoted(show.log)}",
        f"madlog report audit --out audit.html --log {_quoted(show.log)}",
    )
    for line in lines:
        show.say(line)
