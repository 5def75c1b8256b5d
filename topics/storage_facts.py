"""What an embedded log would stand on: SQLite's version, the file system of a folder."""

from pathlib import Path
from typing import NamedTuple

import apsw

from madlog.topics._embedded_storage import SQLITE_OLDEST, network_file_system

__all__ = ("StorageFacts", "storage_facts")

_MOUNTS = Path("/proc/mounts")


class StorageFacts(NamedTuple):
    """SQLite's version, whether it is one that loses no commits, and the folder's file system."""

    sqlite_version: str
    sqlite_safe: bool
    file_system: str
    network: bool


def storage_facts(folder: Path) -> StorageFacts:
    """Look at a folder that is there; the file system is named only where the system says it."""
    mounts = _MOUNTS.read_text() if _MOUNTS.exists() else ""
    network = network_file_system(folder.resolve(), mounts)
    safe = apsw.SQLITE_VERSION_NUMBER >= SQLITE_OLDEST
    return StorageFacts(apsw.sqlite_lib_version(), safe, network or "local", network is not None)
