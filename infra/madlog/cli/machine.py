"""doctor, words, bench: this machine, the vocabulary, the measurements."""

from pathlib import Path
from typing import Annotated, Any

import typer

from madlog.cli._context import JsonOption, LogOption, State, fail, print_rows, run, state_of

__all__ = ("WORDS", "register")

# word, in plain words, what it is.
WORDS = (
    ("MAD", "agent", "Multipurpose Agentic Duo: an engine that decides and an engine that acts."),
    ("DTR", "decision tree", "Decision Tree Router: settles a turn by its form, in microseconds."),
    ("LPPM", "learned process", "Maps prose to a process learned from the log, in milliseconds."),
    ("Imperator", "language model", "The agent's own LLM: settles what needs meaning, in seconds."),
    ("CET", "context builder", "Builds what a language model is shown, inside a token budget."),
    ("Rogers", "the log", "The bus and keeper of every conversation; here, the log itself."),
)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("doctor", short_help="look at this machine")(doctor)
    app.command("words", short_help="what the words mean")(words)
    app.command("bench", short_help="measure against plain loops")(bench)


def words(ctx: typer.Context, as_json: JsonOption = False) -> None:
    """Say what the words mean.

    Example: madlog words
    """
    state = state_of(ctx, None, as_json)
    rows = [{"word": word, "plain": plain, "meaning": what} for word, plain, what in WORDS]
    print_rows(state, rows, ("word", "plain", "meaning"))


def doctor(ctx: typer.Context, log: LogOption = None, as_json: JsonOption = False) -> None:
    """Look at this machine: Python, SQLite, file system, sync speed, disk space, walls, Kafka.

    The brokers of --log kafka://… and of $MADLOG_KAFKA are asked. Exit code 1 when something
    would keep a log from working here.

    Example: madlog doctor
    """
    state = state_of(ctx, log, as_json)
    rows = _findings(state)
    print_rows(state, rows, ("what", "found", "ok", "advice"))
    if not all(row["ok"] for row in rows):
        raise typer.Exit(1)


def _findings(state: State) -> list[dict[str, Any]]:
    import os
    import platform
    import sys

    from madlog import __version__
    from madlog.cli._kafka_facts import broker_facts, tool_facts
    from madlog.cli.untrusted import wall_findings

    new_enough = sys.version_info >= (3, 11)
    rows = [
        _finding("madlog", __version__),
        _finding("python", platform.python_version(), new_enough, "use Python 3.11 or newer"),
    ]
    if state.url.startswith("kafka://"):
        # The address may hold a password: only the brokers are shown.
        rows += broker_facts("broker", state.url)
    else:
        rows += _folder_findings(state.url)
    # Where the tests find a broker.
    named = os.environ.get("MADLOG_KAFKA")
    if named:
        rows += broker_facts("MADLOG_KAFKA", f"kafka://{named}")
    return [*rows, _table_finding(), *wall_findings(), *tool_facts()]


def _table_finding() -> dict[str, Any]:
    """Return where the tables of `madlog worker --engine faust` would be kept here."""
    from madlog.processors.table_store import table_store

    store = table_store()
    row = _finding("faust tables", store.words)
    if store.url.startswith("memory"):
        row["advice"] = "pip install rocksdict keeps them on disk, so that a worker starts sooner"
    return row


def _folder_findings(url: str) -> list[dict[str, Any]]:
    """Return what matters to an embedded log; raises WrongUrl."""
    import shutil

    from madlog.topics.storage_facts import storage_facts
    from madlog.wiring import log_folder

    folder = log_folder(url).absolute()
    existing = folder
    while not existing.exists():
        existing = existing.parent
    facts = storage_facts(existing)
    free = shutil.disk_usage(existing).free
    sync_us = _sync_us(existing)
    synced = "not possible here" if sync_us is None else f"{sync_us} µs median of 20"
    unwritable = f"{existing} cannot be written: name another folder with --log"
    shared = "SQLite cannot lock safely over a network: name a local folder"
    file_system = f"{facts.file_system} at {existing}"
    newer = "install apsw 3.51.3 or newer"
    return [
        _finding("sqlite", facts.sqlite_version, facts.sqlite_safe, newer),
        _finding("file system", file_system, not facts.network, shared),
        _finding("free disk", f"{free / 2**30:.1f} GiB", free > 2**30, "free at least 1 GiB"),
        _finding("durable write", synced, sync_us is not None, unwritable),
        _finding("log", f"{folder}" + ("" if folder.exists() else " (none yet)")),
    ]


def _finding(what: str, found: str, ok: bool = True, advice: str = "") -> dict[str, Any]:
    return {"what": what, "found": found, "ok": ok, "advice": "" if ok else advice}


def _sync_us(folder: Any) -> int | None:
    """Return the median µs of writing 1 KiB and syncing it, None where that cannot be done."""
    import os
    import statistics
    import tempfile
    import time

    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            times = []
            for _ in range(20):
                begun = time.perf_counter_ns()
                file.write(bytes(1024))
                file.flush()
                os.fsync(file.fileno())
                times.append(time.perf_counter_ns() - begun)
    except OSError:
        return None
    return round(statistics.median(times) / 1000)


def bench(
    ctx: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]…")] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Rounds of each pair.")] = 5,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="FOLDER",
            help="The public data sets of routing (default ../shared/data of the checkout).",
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", min=1, help="Seeds of routing (default 5).")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE.svg", help="Where the drawing of month goes."),
    ] = None,
    turns: Annotated[
        int | None,
        typer.Option(
            "--turns",
            min=1000,
            help="Turns of search, what-if (200,000), null, retention (100,000), lake (1 M).",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure this machine against plain loops, run alternately; needs a source checkout.

    Those whose names begin with kafka run on the broker that MADLOG_KAFKA names (`make kafka`
    starts one), and only when they are asked for; `kafka` is all of them. So are those that begin
    with routing, on public data sets: accuracy, promises kept and times, means over seeds. `month`
    is a simulated one of 200,000 turns, some minutes long: what is learned, kept, and taken back.
    `search`, `what-if`, `lake` and `retention` run when asked for, over --turns; so do `evidence`
    and `sandbox`: what proofs cost, and walls; and `null`: lines of JSON with DuckDB, and a table
    in the Postgres that MADLOG_POSTGRES names, measured and put to the test beside a log.

    Examples:
      madlog bench --rounds 7
      madlog bench kafka-produce kafka-consume
      madlog bench routing --data ../shared/data
      madlog bench month --plot month.svg
      madlog bench search --turns 1000000
      MADLOG_POSTGRES=postgresql://me@127.0.0.1/postgres madlog bench null
    """
    state = state_of(ctx, None, as_json)
    module = _benchmarks()
    routing = set(names or ()) & set(module.ROUTING)
    wrong = _wrong_use(module, names or [], data, seeds, plot, turns)
    if wrong is not None:
        raise fail(wrong, 2)
    rows = run(module.measure(rounds, names, data or module.DATA, seeds or 5, plot, turns))
    # Routing and the month stand beside a data set, not beside a plain loop.
    ratio = not {*routing, module.MONTH}.issuperset(names or (None,))
    print_rows(state, rows, _columns(rows, ratio))


def _columns(rows: list[dict[str, Any]], ratio: bool) -> list[str]:
    """Return the columns that these rows have."""
    columns = ["what", "ours", "baseline", "unit", *["ratio"] * ratio, "spread", "reach", "met"]
    # cpu: client+broker, ours / the baseline's; postgres: what happened there.
    more = ("cpu", "published", "postgres")
    return columns + [name for name in more if any(name in row for row in rows)]


def _wrong_use(
    module: Any,
    names: list[str],
    data: Path | None,
    seeds: int | None,
    plot: Path | None,
    turns: int | None,
) -> str | None:
    """Return what is wrong with what was asked for, None where nothing is."""
    for name in set(names) - set(module.NAMES):
        return f"there is no benchmark {name[:60]!r}: {', '.join(module.NAMES)}"
    if not set(names) & set(module.ROUTING) and (data is not None or seeds is not None):
        return "--data and --seeds are for the routing ones: madlog bench routing"
    if plot is not None and module.MONTH not in names:
        return "--plot is for the month: madlog bench month --plot month.svg"
    over_turns = {module.SEARCH, module.WHAT_IF, module.LAKE, module.RETENTION, module.NULL}
    if turns is not None and not over_turns & set(names):
        return "--turns is for search, what-if, lake, retention and null: as in madlog bench lake"
    return None if data is None else str(module.wrong_folder(data) or "") or None


def _benchmarks() -> Any:
    """Return the module that measures: test code, named there and not shipped in the package."""
    import importlib.util
    import sys

    path = Path(__file__).resolve().parents[3] / "tests" / "bench" / "run.py"
    if not path.is_file():
        raise fail("the benchmarks stand in the source checkout: git clone, then make bench", 2)
    spec = importlib.util.spec_from_file_location("madlog_bench", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["madlog_bench"] = module
    spec.loader.exec_module(module)
    return module
