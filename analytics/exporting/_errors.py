"""Errors of the exporters: MadlogError ── ExportError ── UnknownConversation, UnknownExport."""

from madlog.schemas import MadlogError

__all__ = ("ExportError", "UnknownConversation", "UnknownExport")


class ExportError(MadlogError):
    """The conversations could not be written in this form."""


class UnknownConversation(ExportError, LookupError):
    """This log holds no conversation of that name."""


class UnknownExport(ExportError, LookupError):
    """There is no exporter of that name."""
