"""Other systems' logs as conversations: streaming, idempotent, tolerant line by line."""

from madlog.analytics.importing._errors import BadLine, ImportFailed, UnknownFormat, UnreadableFile
from madlog.analytics.importing._format import Format, PutBlob, SourceObject
from madlog.analytics.importing.formats import FORMATS, format_named
from madlog.analytics.importing.redaction import Redactor
from madlog.analytics.importing.run import ImportProgress, ImportReport, import_file

__all__ = (
    "FORMATS",
    "BadLine",
    "Format",
    "ImportFailed",
    "ImportProgress",
    "ImportReport",
    "PutBlob",
    "Redactor",
    "SourceObject",
    "UnknownFormat",
    "UnreadableFile",
    "format_named",
    "import_file",
)
