"""evidence: keys, signed checkpoints, bundles: the proof that nothing was altered."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from madlog.cli._context import (
    JsonOption,
    LogOption,
    State,
    fail,
    note,
    print_object,
    print_rows,
    progress_bar,
    run,
    state_of,
)

if TYPE_CHECKING:
    from madlog.topics import EventLog
    from madlog.topics.evidence import Kept, SigningKey, Tiles

__all__ = ("register",)

evidence_app = typer.Typer(help="proof that nothing was altered", no_args_is_help=True)

_KeyOption = Annotated[
    str | None,
    typer.Option("--key", metavar="NAME+HASH+KEY", help="The verifier key that you trust."),
]


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.add_typer(evidence_app, name="evidence")


@evidence_app.command("key", short_help="make the signing key, show the one that verifies")
def key(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Option("--name", help="The log's name on checkpoints, such as example.com/agents."),
    ] = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the log's signing key if it has none, and show the key that verifies.

    From then on a worker signs checkpoints. Give the verifier key to those who are to check them.

    \b
    Examples:
      madlog evidence key
      madlog evidence key --name example.com/agents
    """
    state = state_of(ctx, log, as_json)
    run(_key(state, name))


async def _key(state: State, name: str | None) -> None:
    from madlog.topics import system_random
    from madlog.topics.evidence import BadKey, make_key, read_key
    from madlog.wiring import evidence_key_file, opened

    file = evidence_key_file(state.url, state.settings)
    async with opened(state.url, state.settings, create=False):
        found = read_key(file)
        made = found is None
        signing = make_key(file, system_random, name) if found is None else found
    if name is not None and signing.name != name:
        raise BadKey(
            f"{file} holds the key of {signing.name} already: a log keeps its name and key, so "
            "move the file away first if you mean to begin anew"
        )
    if made:
        note(f"made {file}: who can read it can sign in this log's name, so keep it to yourself")
    if state.json:
        print_object(
            state, {"file": str(file), "verifier_key": str(signing.verifier), "made": made}
        )
    else:
        print(signing.verifier)


@asynccontextmanager
async def _signed(state: State) -> "AsyncIterator[tuple[EventLog, Tiles, SigningKey, Kept]]":
    """Open a log and its evidence, all hashed and signed up to the log's end."""
    from madlog.topics import system_random
    from madlog.topics.evidence import Keeper, Tiles, make_key, read_key
    from madlog.wiring import evidence_file, evidence_key_file, opened

    async with opened(state.url, state.settings, create=False) as log:
        file = evidence_key_file(state.url, state.settings)
        signing = read_key(file)
        if signing is None:
            signing = make_key(file, system_random)
            note(f"made the signing key {file}; to verify with: {signing.verifier}")
        tiles_file = evidence_file(state.url, state.settings)
        tiles_file.parent.mkdir(parents=True, exist_ok=True)
        with Tiles(tiles_file) as tiles, progress_bar("hashing records") as show:
            kept = await Keeper(log, tiles, signing).run(show)
            yield log, tiles, signing, kept


@evidence_app.command("checkpoint", short_help="hash and sign what was appended")
def checkpoint(ctx: typer.Context, log: LogOption = None, as_json: JsonOption = False) -> None:
    """Hash and sign all that was appended since; exit code 1 if it is not what was signed before.

    A worker does it at intervals (MADLOG_EVIDENCE_INTERVAL_S) once the log has a key.

    Example: madlog evidence checkpoint
    """
    state = state_of(ctx, log, as_json)
    if run(_checkpoint(state)):
        raise typer.Exit(1)


async def _checkpoint(state: State) -> int:
    async with _signed(state) as (_, tiles, _, kept):
        signed = {(one.topic, one.partition) for one in kept.signed}
        rows = [
            {
                "topic": tp.topic,
                "partition": tp.partition,
                "records": tree.size,
                "signed": "now" if tuple(tp) in signed else "before" if tree.signed else None,
                "root_sha256": tiles.root(tp, tree.size).hex(),
            }
            for tp, tree in sorted(tiles.trees().items())
            if tree.size
        ]
    columns = ("topic", "partition", "records", "signed", "root_sha256")
    print_rows(state, rows, columns, empty="the log holds no records to sign yet")
    return _say_broken(kept)


def _say_broken(kept: "Kept") -> int:
    for sentence in kept.broken:
        note(f"madlog: {sentence}")
    return len(kept.broken)


@evidence_app.command("publish", short_help="write checkpoints to a place elsewhere")
def publish(
    ctx: typer.Context,
    to: Annotated[
        str, typer.Argument(metavar="FILE|URL", help="A file elsewhere, or http(s)://… for a PUT.")
    ],
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the newest checkpoints to a place that who can write the log cannot reach.

    Against them `madlog check --against FILE` finds that an older copy of the log was put back.
    A file that is there is replaced only if the log goes on from what it says.

    \b
    Examples:
      madlog evidence publish /mnt/elsewhere/checkpoints.txt
      madlog evidence publish https://notary.example.com/agents
    """
    state = state_of(ctx, log, as_json)
    if run(_publish(state, to)):
        raise typer.Exit(1)


async def _publish(state: State, to: str) -> int:
    import asyncio

    from madlog.topics.evidence import publish as publish_to

    async with _signed(state) as (_, tiles, signing, kept):
        if _say_broken(kept):
            return 1
        count = await asyncio.to_thread(publish_to, tiles, signing.verifier, to)
    if state.json:
        print_object(state, {"checkpoints": count})
    else:
        print(f"{count} checkpoints published, signed by {signing.verifier}")
    return 0


@evidence_app.command("consistency", short_help="proofs that the log only grew")
def consistency(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="What madlog evidence publish wrote.")],
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the proofs that the log only grew since the checkpoints in a file (RFC 9162, 2.1.4).

    Who holds that file verifies them with any tool for transparency logs, without the log.

    Example: madlog evidence consistency checkpoints.txt --json
    """
    state = state_of(ctx, log, as_json)
    run(_consistency(state, file))


async def _consistency(state: State, file: Path) -> None:
    from base64 import b64encode

    from madlog.topics.evidence import consistency as proofs
    from madlog.topics.evidence import read_published

    async with _signed(state) as (_, tiles, signing, _):
        published = read_published(file, [signing.verifier])
        rows = [
            {
                "origin": one.new.origin,
                "from_size": one.old.size,
                "from_root": b64encode(one.old.root).decode(),
                "to_size": one.new.size,
                "to_root": b64encode(one.new.root).decode(),
                "proof": [b64encode(each).decode() for each in one.proof],
            }
            for one in proofs(tiles, published, signing.verifier)
        ]
    print_rows(state, rows, ("origin", "from_size", "from_root", "to_size", "to_root", "proof"))


@evidence_app.command("bundle", short_help="export records with proofs and a verifier")
def bundle(
    ctx: typer.Context,
    conversation: Annotated[str | None, typer.Argument(help="A conversation's id.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All records of the log.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR|FILE.zip", help="Where to.")
    ] = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export records with their proofs, checkpoints, keys, and a script that verifies them offline.

    The script needs Python and `cryptography`, nothing of madlog. Proofs of one conversation show
    that each record is what was signed, not that none was left out: --all shows that too.

    \b
    Examples:
      madlog evidence bundle c1 --out c1-evidence
      madlog evidence bundle --all --out evidence.zip
    """
    state = state_of(ctx, log, as_json)
    if (conversation is None) != everything:
        raise fail("name one conversation, or all of them with --all", 2)
    if out is None:
        raise fail("say where the bundle goes: --out DIR, or --out FILE.zip", 2)
    if run(_bundle(state, conversation, out)):
        raise typer.Exit(1)


async def _bundle(state: State, conversation: str | None, out: Path) -> int:
    from madlog.topics.evidence import write_bundle

    async with _signed(state) as (log, tiles, signing, kept):
        if _say_broken(kept):
            return 1
        with progress_bar("writing records and proofs") as show:
            made = await write_bundle(log, tiles, signing, out, conversation, show)
    if state.json:
        print_object(state, {"out": str(out), **made._asdict()})
    else:
        print(f"{out}: {made.records} records with proofs, of {made.trees} trees")
        where = "unpack it, then" if out.suffix == ".zip" else f"cd {out}, then"
        note(f"to verify: {where} python verify.py . '{signing.verifier}'")
    return 0


@evidence_app.command("verify", short_help="verify a bundle")
def verify(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="What madlog evidence bundle wrote.")],
    trusted: _KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Verify a bundle as its own script does; exit code 1 when anything differs.

    Example: madlog evidence verify c1-evidence --key 'example.com/agents+1a2b3c4d+AZ…'
    """
    from madlog.topics.evidence import verifier

    state = state_of(ctx, None, as_json)
    if not folder.is_dir():
        raise fail(f"{folder} is no folder: name the one of a bundle, unpacked if it is a .zip", 2)
    answer: dict[str, Any]
    try:
        answer = {"ok": True, "verified": verifier.verify(folder, trusted)}
    except Exception as error:  # whatever is wrong with a bundle, it is refused
        answer = {"ok": False, "refused": str(error) or "a signature does not hold"}
    if state.json:
        print_object(state, answer)
    elif answer["ok"]:
        print("\n".join(answer["verified"]))
    else:
        print(f"REFUSED: {answer['refused']}")
    if not answer["ok"]:
        raise typer.Exit(1)
