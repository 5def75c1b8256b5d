"""The formats there are, by name: one file each."""

from madlog.analytics.importing._errors import UnknownFormat
from madlog.analytics.importing._format import Format
from madlog.analytics.importing.openai_chat import OpenaiChat
from madlog.analytics.importing.tau_bench import TauBench

__all__ = ("FORMATS", "format_named")

FORMATS: dict[str, Format] = {found.name: found for found in (OpenaiChat(), TauBench())}


def format_named(name: str) -> Format:
    """Return the format of that name; raises UnknownFormat."""
    if name not in FORMATS:
        raise UnknownFormat(f"{name[:80]!r} is no format: choose one of {', '.join(FORMATS)}")
    return FORMATS[name]
