"""The command line: the library's own verbs; each command imports what it needs when it runs.

Exit codes: 0 done, 1 a problem was found that the command looks for, 2 wrong use or bad input,
3 the log is unavailable or a limit was hit, 130 interrupted (what was acknowledged is kept).
"""

import gc
import os
import sys
from typing import Annotated, Any

import typer

from madlog import __version__
from madlog.cli import (
    ask,
    control,
    demo,
    evidence,
    integrity,
    lake,
    log,
    machine,
    moving,
    outcomes,
    processes,
    replay,
    report,
    retention,
    rollout,
    search,
    status,
    topics,
    tree,
    working,
)
from madlog.cli._context import JsonOption, LogOption, State, note

__all__ = ("app", "main")

_HELP = """Keep what your agents say in a log you can ask, prove and replay.

Import the conversations of agents that you already run, ask SQL about what was said, done, spent
and decided, replay it all from the start and see that nothing differs. No server needed.

\b
  madlog demo                                    the main job, scripted
  madlog import runs.jsonl --format openai-chat  your own logs
  madlog ask                                     questions with a name
"""

app = typer.Typer(
    name="madlog",
    help=_HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for module in (
    demo,
    topics,
    log,
    tree,
    moving,
    working,
    outcomes,
    control,
    rollout,
    ask,
    search,
    processes,
    report,
    status,
    replay,
    lake,
    retention,
    integrity,
    evidence,
    machine,
):
    module.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"madlog {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    ctx: typer.Context,
    log: LogOption = None,
    as_json: JsonOption = False,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Show the version.")
    ] = False,
) -> None:
    ctx.obj = State(log, as_json)


_OBJECTS_BETWEEN_COLLECTIONS = 50_000

# typer carries a click of its own, so its errors are found by way of one that typer exports.
_WRONG_USE: Any = next(
    base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException"
)
_INTERRUPTED = 130


def main() -> None:
    """Run the command line and exit with its code."""
    # A command that reads a log holds events by the hundred thousand, none of them in a circle: to
    # look through them for circles after each 700 new ones was a seventh of the work.
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    sys.exit(_run())


def _run() -> int:
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
        if code == _INTERRUPTED:  # typer makes that of Ctrl-C
            raise KeyboardInterrupt
    except typer.Exit as error:
        return error.exit_code
    except _WRONG_USE as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message())  # no command given: the help, and no complaint
            return 0
        error.show()
        return 2
    except (KeyboardInterrupt, typer.Abort, EOFError):
        note("madlog: interrupted; everything that was acknowledged is kept")
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader went away (head, less): that is not our failure, but nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _explain(error)
    return int(code or 0)


def _explain(error: Exception) -> int:
    """Say an error in one sentence; only what nobody foresaw keeps its traceback."""
    from pydantic import ValidationError

    from madlog.schemas import MadlogError

    if isinstance(error, MadlogError):
        note(f"madlog: {error}")
        return error.exit_code
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        note(f"madlog: {where}: {first['msg']} (given: {str(first.get('input'))[:80]!r})")
        return 2
    if isinstance(error, OSError) and error.filename:
        note(f"madlog: {error.filename}: {error.strerror}")
        return 2
    raise error
