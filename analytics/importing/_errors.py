"""Errors of the importer.

MadlogError
└── ImportFailed
    ├── UnknownFormat (LookupError)
    └── UnreadableFile (OSError)
BadLine is no error of the import: it is what one line of the file is reported with.
"""

from madlog.schemas import MadlogError

__all__ = ("BadLine", "ImportFailed", "UnknownFormat", "UnreadableFile")


class BadLine(Exception):
    """One line of the file is not what its format asks for; the message is its reason."""


class ImportFailed(MadlogError):
    """The file could not be imported."""


class UnknownFormat(ImportFailed, LookupError):
    """There is no format of that name."""


class UnreadableFile(ImportFailed, OSError):
    """The file cannot be read: check its name and that you may read it."""
