"""The lake: what is committed, as Parquet files that any engine reads; each written once."""

from madlog.analytics.lake.archiver import Archived, Archiver, ArchiverOptions
from madlog.analytics.lake.manifest import Manifest, Range, read_manifest
from madlog.analytics.lake.source import LakeSource
from madlog.analytics.lake.store import LakeStore

__all__ = (
    "Archived",
    "Archiver",
    "ArchiverOptions",
    "LakeSource",
    "LakeStore",
    "Manifest",
    "Range",
    "read_manifest",
)
