"""Conversations out of the log, in forms that others read; made from events only."""

from madlog.analytics.exporting._errors import ExportError, UnknownConversation, UnknownExport
from madlog.analytics.exporting._exporter import Exporter
from madlog.analytics.exporting.messages import GetBlob
from madlog.analytics.exporting.run import EXPORTERS, ExportProgress, ExportReport, export

__all__ = (
    "EXPORTERS",
    "ExportError",
    "ExportProgress",
    "ExportReport",
    "Exporter",
    "GetBlob",
    "UnknownConversation",
    "UnknownExport",
    "export",
)
