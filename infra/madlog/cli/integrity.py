"""check, digest: what proves that the log is whole, and the same as another."""

from collections.abc import Sequence
from dataclasses import dataclass
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
    from madlog.topics import Damage, EventLog
    from madlog.topics.evidence import Finding, Published, Verdict, VerifierKey
    from madlog.topics.log import Checkable

__all__ = ("Checked", "checked", "register")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("check", short_help="look for damage, name it by position")(check)
    app.command("digest", short_help="a digest per topic, equal where events are equal")(digest)


def check(
    ctx: typer.Context,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            "--against", metavar="FILE", help="Checkpoints kept elsewhere: madlog evidence publish."
        ),
    ] = None,
    keys: Annotated[
        list[str] | None,
        typer.Option(
            "--key",
            metavar="NAME+HASH+KEY",
            help="A verifier key that you trust (the log's own by default).",
        ),
    ] = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look at every record for damage and tampering; exit code 1 and where when there is any.

    Damage is found by checksums and chains. What was altered, put in, deleted, moved or cut off,
    checksums made right again, is found by the log's evidence: madlog evidence. An older copy of
    the whole log is found by checkpoints that were kept elsewhere.

    \b
    Examples:
      madlog check
      madlog check --against /mnt/elsewhere/checkpoints.txt
    """
    state = state_of(ctx, log, as_json)
    if run(_check(state, against or [], keys or [])):
        raise typer.Exit(1)


@dataclass(frozen=True)
class Checked:
    """What a check found: records seen, damages, and what differs from the evidence, if any."""

    records: int
    damages: "list[Damage]"
    verdict: "Verdict | None"
    differs: "list[Finding]"


async def _check(state: State, against: list[Path], keys: list[str]) -> int:
    from madlog.wiring import opened

    async with opened(state.url, state.settings, create=False) as log:
        found = await checked(state, log, against, keys)
    if state.json:
        _print_json(state, found.damages, found.records, found.verdict, found.differs)
    else:
        _print(found.damages, found.records, found.verdict, found.differs)
    return len(found.damages) + len(found.differs)


async def checked(
    state: State, log: "EventLog", against: Sequence[Path] = (), keys: Sequence[str] = ()
) -> Checked:
    """Look at every record, and hold it against the log's evidence and what was published."""
    from madlog.topics.log import Checkable

    if not isinstance(log.log, Checkable):
        raise fail("this log's backend checks its own files", 2)
    # Bad keys and files first: who named them does not wait for the rest.
    trusted, published = _trusted(state, keys, against)
    found, looked = await _damages(log, log.log)
    verdict = await _evidence(state, log, trusted, published)
    known = {(damage.topic, damage.partition, damage.offset) for damage in found}
    differs = [
        finding
        for finding in (verdict.findings if verdict else ())
        if (finding.damage.topic, finding.damage.partition, finding.damage.offset) not in known
    ]
    return Checked(looked, found, verdict, differs)


def _trusted(
    state: State, keys: Sequence[str], against: Sequence[Path]
) -> "tuple[list[VerifierKey], list[Published]]":
    """Return the keys to check signatures with, and what was published under them."""
    from madlog.topics.evidence import VerifierKey, read_key, read_published
    from madlog.wiring import evidence_key_file

    trusted = [VerifierKey.parse(one) for one in keys]
    if not trusted:
        own = read_key(evidence_key_file(state.url, state.settings))
        trusted = [] if own is None else [own.verifier]
    if against and not trusted:
        raise fail(
            "there is no key to check the signatures of these checkpoints with: name the one that "
            "`madlog evidence key` showed, with --key",
            2,
        )
    return trusted, [one for file in against for one in read_published(file, trusted)]


async def _damages(log: "EventLog", backend: "Checkable") -> "tuple[list[Damage], int]":
    """Return what the backend finds damaged and what cannot be decoded, and the records seen."""
    looked = 0
    with progress_bar("checking records") as show:

        def counted(done: int) -> None:
            nonlocal looked
            looked = done
            show(done)

        found = [damage async for damage in backend.check(counted)]
    undecodable: list[Damage] = []
    async for _ in log.read_topics(
        [name for name in await log.log.topics() if not name.startswith("mad.state.")],
        on_damage=undecodable.append,
    ):
        pass
    known = {(damage.topic, damage.partition, damage.offset) for damage in found}
    found += [
        damage
        for damage in undecodable
        if (damage.topic, damage.partition, damage.offset) not in known
    ]
    return found, looked


async def _evidence(
    state: State,
    log: "EventLog",
    trusted: "list[VerifierKey]",
    published: "list[Published]",
) -> "Verdict | None":
    """Hold the log against its evidence; None where there is none."""
    import os
    from contextlib import ExitStack

    from madlog.topics.evidence import HashesDamaged, Tiles, check_evidence
    from madlog.wiring import evidence_file

    file = evidence_file(state.url, state.settings)
    with ExitStack() as stack, progress_bar("comparing with the evidence") as show:
        tiles = None
        try:
            if file.exists():
                unwritable = not os.access(file.parent, os.W_OK)
                tiles = stack.enter_context(Tiles(file, read_only=unwritable))
        except HashesDamaged as error:
            note(f"madlog: {error}")
        verdict = await check_evidence(log, tiles, trusted, published, show)
    return verdict if verdict.trees or verdict.findings else None


def _print_json(
    state: State,
    found: "list[Damage]",
    looked: int,
    verdict: "Verdict | None",
    differs: "list[Finding]",
) -> None:
    evidence = None
    if verdict is not None:
        evidence = {
            "trees": verdict.trees,
            "records": verdict.records,
            "checkpoints": verdict.checkpoints,
            "findings": [
                {"kind": one.kind, **one.damage._asdict(), "position": _place(one.damage)}
                for one in differs
            ],
            "notes": verdict.notes,
        }
    rows = [{**damage._asdict(), "position": _place(damage)} for damage in found]
    ok = not found and not differs
    answer = {"ok": ok, "records": looked, "damage": rows, "evidence": evidence}
    print_object(state, answer)


def _print(
    found: "list[Damage]",
    looked: int,
    verdict: "Verdict | None",
    differs: "list[Finding]",
) -> None:
    for damage in found:
        print(f"damaged: {damage}")
    for finding in differs:
        print(finding)
    print(f"{looked} records looked at, {len(found)} damaged places found")
    if verdict is None:
        note("nothing is signed yet to show tampering by: madlog evidence checkpoint begins it")
    else:
        for sentence in verdict.notes:
            note(f"madlog: {sentence}")
        print(
            f"{verdict.records} records compared with {verdict.trees} trees and "
            f"{verdict.checkpoints} signed checkpoints, {len(differs)} differences found"
        )
    if found or differs:
        note("restore the named ranges from a backup, or go on: everything else can be read")


def _place(damage: Any) -> str | None:
    topic, partition, offset = damage.topic, damage.partition, damage.offset
    return f"{topic}/{partition}@{offset}" if topic else None


def digest(
    ctx: typer.Context,
    as_of: Annotated[
        str | None, typer.Option("--as-of", help="Positions, @FILE, or a time.")
    ] = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a digest per topic, equal on every log that holds the same events.

    Example: madlog digest --as-of 2026-11-24T12:00:00Z
    """
    state = state_of(ctx, log, as_json)
    run(_digest(state, as_of))


async def _digest(state: State, as_of: str | None) -> None:
    from madlog.analytics.as_of import as_of as resolve
    from madlog.analytics.digest import digest as digest_of
    from madlog.wiring import opened

    async with opened(state.url, state.settings, create=False) as log:
        at = await resolve(log, as_of) if as_of else None
        found = await digest_of(log, at=at)
    if state.json:
        print_object(state, {"topics": {name: item._asdict() for name, item in found.items()}})
        return
    rows = [{"topic": name, **item._asdict()} for name, item in found.items()]
    print_rows(state, rows, ("topic", "events", "digest"), empty="the log holds no events yet")
