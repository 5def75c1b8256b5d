"""Binds the parts together; the only module that names a backend."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from madlog.config import Settings
from madlog.schemas import MadlogError
from madlog.topics import Clock, EventLog, Log, LogUnavailable, SystemClock

if TYPE_CHECKING:
    from madlog.mads.ecosystem import Ecosystem
    from madlog.processors import Engine, Processor
    from madlog.topics.blobs import BlobStore
    from madlog.topics.framing import SchemaRegistry

__all__ = (
    "WrongUrl",
    "log_folder",
    "open_blobs",
    "open_ecosystem",
    "open_event_log",
    "open_log",
    "open_worker",
    "opened",
    "processors",
)


class WrongUrl(MadlogError, ValueError):
    """The log's address is a folder, or file:///FOLDER."""


def log_folder(url: str) -> Path:
    """Return the folder that a log's address names; raises WrongUrl, LogUnavailable."""
    if "\x00" in url or not url.strip():
        raise WrongUrl(
            "the log's address is empty or holds a NUL: name a folder, or file:///FOLDER"
        )
    if "://" not in url:
        return Path(url)
    parts = urlsplit(url)
    if parts.scheme == "kafka":
        raise LogUnavailable(
            f"{url}: this version of madlog has no Kafka backend yet; name a folder for an "
            "embedded log, for example --log .madlog"
        )
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        raise WrongUrl(f"{url[:200]} is not the address of a log: name a folder, or file:///FOLDER")
    return Path(unquote(parts.path))


async def open_log(
    url: str,
    settings: Settings | None = None,
    *,
    create: bool = True,
    clock: Clock | None = None,
) -> Log:
    """Open the log at an address; raises WrongUrl, LogUnavailable."""
    from madlog.topics.embedded import EmbeddedLog

    settings = settings or Settings()
    return await EmbeddedLog.open(
        log_folder(url),
        clock=clock or SystemClock(),
        create=create,
        record_bytes_max=settings.record_bytes_max,
        queue_bytes_max=settings.queue_bytes_max,
        session_timeout_s=settings.session_timeout_s,
    )


async def open_event_log(
    url: str,
    settings: Settings | None = None,
    *,
    create: bool = True,
    clock: Clock | None = None,
) -> EventLog:
    """Open the log at an address as a log of events; raises WrongUrl, LogUnavailable."""
    log = await open_log(url, settings, create=create, clock=clock)
    try:
        return await EventLog.open(log, _registry(settings))
    except BaseException:
        await log.close()
        raise


def _registry(settings: Settings | None) -> "SchemaRegistry | None":
    if settings is None or settings.schema_registry_url is None:
        return None
    from madlog.topics.schema_registry import HttpSchemaRegistry

    return HttpSchemaRegistry(settings.schema_registry_url)


@asynccontextmanager
async def opened(
    url: str, settings: Settings | None = None, *, create: bool = True
) -> AsyncIterator[EventLog]:
    """Open a log of events for a block of code and close it after."""
    log = await open_event_log(url, settings, create=create)
    try:
        yield log
    finally:
        await log.close()


def open_blobs(url: str) -> "BlobStore":
    """Return the store of fixed content beside a log."""
    from madlog.topics.blobs import BlobStore

    return BlobStore(str(log_folder(url).absolute() / "blobs"))


@asynccontextmanager
async def open_ecosystem(url: str, *, create: bool = True) -> AsyncIterator["Ecosystem"]:
    """Open a log as the stable Python API sees it, for a block of code."""
    from madlog.mads.ecosystem import Ecosystem

    async with Ecosystem(await open_event_log(url, create=create)) as ecosystem:
        yield ecosystem


def processors(
    settings: Settings | None = None, only: tuple[str, ...] | None = None
) -> list["Processor"]:
    """Return the processors that this program runs, or those named; raises UnknownProcessor."""
    from madlog.processors import Router
    from madlog.processors.errors import UnknownProcessor

    settings = settings or Settings()
    known: dict[str, Processor] = {
        "router": Router(max_error=settings.max_error, audit_rate=settings.audit_rate)
    }
    for name in only or ():
        if name not in known:
            raise UnknownProcessor(f"there is no processor {name[:60]!r}: {', '.join(known)}")
    return [processor for name, processor in known.items() if only is None or name in only]


def open_worker(
    log: EventLog, settings: Settings | None = None, only: tuple[str, ...] | None = None
) -> "Engine":
    """Return an engine that runs the processors on a log."""
    from madlog.processors import Engine, Options

    settings = settings or Settings()
    options = Options(
        batch_records_max=settings.worker_batch_records_max,
        recovery_timeout_s=settings.worker_recovery_timeout_s,
    )
    return Engine(log, processors(settings, only), options=options)
