"""Where the tables of a Faust worker are kept on this machine: RocksDB, else memory."""

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import NamedTuple

__all__ = ("TableStore", "table_store")

# Module and package of what Faust can keep RocksDB by; the first has wheels for more machines.
_DRIVERS = (("rocksdict", "rocksdict"), ("rocksdb", "faust-streaming-rocksdb"))


class TableStore(NamedTuple):
    """The address of the store as Faust takes it, and what it is in words."""

    url: str
    words: str


def table_store() -> TableStore:
    """Return where tables are kept: on disk where RocksDB is installed, else in memory."""
    for module, package in _DRIVERS:
        if find_spec(module) is not None:
            try:
                number = f" {version(package)}"
            except PackageNotFoundError:
                number = ""
            return TableStore("rocksdb://", f"RocksDB by {package}{number}")
    return TableStore("memory://", "memory")
