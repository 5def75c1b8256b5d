"""Snapshots of projections: one JSON file each, beside the log, written whole or not at all."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from madlog.analytics.projections import Projection, State, state_digest
from madlog.topics import Vector
from madlog.topics.errors import InvalidPosition

__all__ = ("Snapshot", "load", "store")

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A projection's state, folded up to `positions`, and the state's digest."""

    projection: str
    positions: Vector
    digest: str
    state: State


def _path(folder: Path, projection: Projection) -> Path:
    return folder / f"{projection.name}.json"


def load(folder: Path, projection: Projection) -> tuple[Snapshot | None, str | None]:
    """Return (snapshot or None, why one that is there cannot be used or None)."""
    path = _path(folder, projection)
    try:
        held = json.loads(path.read_bytes())
        if held["format"] != _FORMAT or held["version"] != projection.version:
            return None, f"{path} was written by another version of madlog"
        snapshot = Snapshot(
            projection.name, Vector.parse(held["positions"]), held["digest"], held["state"]
        )
        if state_digest(snapshot.state) != snapshot.digest:
            return None, f"{path} is damaged: its state does not have its digest"
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except OSError as error:
        return None, f"{path} cannot be read ({error.strerror or error})"
    except (ValueError, KeyError, TypeError, AttributeError, InvalidPosition):
        return None, f"{path} is damaged"
    return snapshot, None


def store(folder: Path, projection: Projection, positions: Vector, state: State) -> Snapshot:
    """Write a snapshot in place of the one before."""
    snapshot = Snapshot(projection.name, positions, state_digest(state), state)
    folder.mkdir(parents=True, exist_ok=True)
    path = _path(folder, projection)
    part = path.with_suffix(f".{os.getpid()}.part")
    held = {
        "format": _FORMAT,
        "version": projection.version,
        "positions": str(positions),
        "digest": snapshot.digest,
        "state": state,
    }
    try:
        with part.open("w", encoding="utf-8") as file:
            # Piece by piece: json.dump's iterator never holds the text of the whole state.
            json.dump(held, file, separators=(",", ":"))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return snapshot
