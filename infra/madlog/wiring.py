"""Binds the parts together; the only module that names a backend."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from madlog.config import Settings, from_environment
from madlog.schemas import MadlogError
from madlog.topics import (
    Clock,
    EventLog,
    Log,
    LogUnavailable,
    SystemClock,
    Topic,
    UnsupportedByBackend,
)

if TYPE_CHECKING:
    from madlog.analytics.search import SearchIndex
    from madlog.mads.ecosystem import Ecosystem
    from madlog.processors import Engine, Options, Processor
    from madlog.processors.acting import ActionEngine, Actor
    from madlog.processors.faust import FaustCluster
    from madlog.processors.imperator import Escalations, Imperator
    from madlog.processors.learning import Learning
    from madlog.processors.live import Limits
    from madlog.processors.registry_file import RegistryFile
    from madlog.processors.retrospect import Elsewhere
    from madlog.processors.router import Decides
    from madlog.topics.blobs import BlobStore
    from madlog.topics.evidence import Keeper
    from madlog.topics.framing import SchemaRegistry

__all__ = (
    "LEARNING",
    "WrongUrl",
    "evidence_file",
    "evidence_key_file",
    "faust_cluster",
    "folder_beside",
    "give_back",
    "is_kafka",
    "limits",
    "log_folder",
    "open_acting",
    "open_blobs",
    "open_ecosystem",
    "open_escalations",
    "open_event_log",
    "open_faust",
    "open_keeper",
    "open_learning",
    "open_log",
    "open_registry",
    "open_search",
    "open_worker",
    "opened",
    "processors",
    "with_prefix",
)

# What `--only` may name beside the processors: see open_learning, open_keeper.
LEARNING = ("outcomes", "retrospect", "learn", "rollout", "evidence", "archiver")


class WrongUrl(MadlogError, ValueError):
    """The log's address is a folder, file:///FOLDER, or kafka://HOST:PORT."""


def is_kafka(url: str) -> bool:
    """Tell whether a log's address is that of a Kafka cluster."""
    return url[:8].lower() == "kafka://"


def with_prefix(url: str, more: str) -> str:
    """Return the address of another log on the same Kafka cluster: `more` ends its prefix."""
    parts = urlsplit(url)
    settings = parse_qsl(parts.query, keep_blank_values=True)
    prefix = dict(settings).get("prefix", "") + more
    others = [(name, value) for name, value in settings if name != "prefix"]
    return urlunsplit(parts._replace(query=urlencode([("prefix", prefix), *others])))


def log_folder(url: str) -> Path:
    """Return the folder of an embedded log; raises WrongUrl, UnsupportedByBackend."""
    if "\x00" in url or not url.strip():
        raise WrongUrl(
            "the log's address is empty or holds a NUL: name a folder, or file:///FOLDER"
        )
    if "://" not in url:
        return Path(url)
    if is_kafka(url):
        raise UnsupportedByBackend(
            "this needs the files of an embedded log, and a log on Kafka has none here: name a "
            "folder with --log, or use Kafka's own tools"
        )
    parts = urlsplit(url)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        raise WrongUrl(
            f"{url[:200]} is not the address of a log: name a folder, file:///FOLDER or "
            "kafka://HOST:PORT"
        )
    return Path(unquote(parts.path))


def folder_beside(url: str, settings: Settings | None = None) -> Path:
    """Return the folder of what can be made anew from a log: projections; for Kafka one a log."""
    if not is_kafka(url):
        return log_folder(url)
    from madlog.topics.kafka_address import KafkaAddress

    address = KafkaAddress.parse(url)
    name = re.sub(r"[^A-Za-z0-9.-]+", "_", ",".join(address.bootstrap) + "/" + address.prefix)
    return Path((settings or Settings()).kafka_folder) / name.strip("_-")


async def open_log(
    url: str,
    settings: Settings | None = None,
    *,
    create: bool = True,
    clock: Clock | None = None,
) -> Log:
    """Open the log at an address; raises WrongUrl, WrongAddress, LogUnavailable.

    Without `create` there must be one; a log on Kafka is there when a topic of its prefix is.
    """
    settings = settings or Settings()
    if is_kafka(url):
        return await _open_kafka(url, settings, create, clock or SystemClock())
    from madlog.topics.embedded import EmbeddedLog

    return await EmbeddedLog.open(
        log_folder(url),
        clock=clock or SystemClock(),
        create=create,
        record_bytes_max=settings.record_bytes_max,
        queue_bytes_max=settings.queue_bytes_max,
        session_timeout_s=settings.session_timeout_s,
    )


async def _open_kafka(url: str, settings: Settings, create: bool, clock: Clock) -> Log:
    from madlog.topics.kafka import KafkaLog

    log = await KafkaLog.open(
        url,
        clock=clock,
        record_bytes_max=settings.record_bytes_max,
        queue_bytes_max=settings.queue_bytes_max,
        session_timeout_s=settings.session_timeout_s,
        timeout_s=settings.kafka_timeout_s,
    )
    try:
        if not create and not await log.topics():
            raise LogUnavailable(
                f"there is no log at {log.url}: no topic there begins with "
                f"{log.address.prefix + 'mad.'!r}; `madlog topics apply` makes them, as does the "
                "first append"
            )
    except BaseException:
        await log.close()
        raise
    return log


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


def open_blobs(url: str, settings: Settings | None = None) -> "BlobStore":
    """Return the store of fixed content: where `blobs` is set there, else beside the log."""
    from madlog.topics.blobs import BlobStore

    named = settings.blobs if settings is not None else None
    return BlobStore(named or str(folder_beside(url, settings).absolute() / "blobs"))


def open_search(
    url: str, settings: Settings | None = None, tell: Callable[[str], None] | None = None
) -> "SearchIndex":
    """Return the full-text index of a log, beside its other projections."""
    from madlog.analytics.search import SearchIndex

    return SearchIndex(folder_beside(url, settings) / "projections" / "search.sqlite", tell)


async def give_back(url: str) -> int | None:
    """Give the free pages of a closed log in a folder back to the disk; return how many bytes.

    None where another process has it open. Raises LogUnavailable.
    """
    from madlog.topics.embedded import EmbeddedLog

    return await EmbeddedLog.give_back(log_folder(url))


@asynccontextmanager
async def open_ecosystem(url: str, *, create: bool = True) -> AsyncIterator["Ecosystem"]:
    """Open a log as the stable Python API sees it, for a block of code."""
    from madlog.mads.ecosystem import Ecosystem

    log = await open_event_log(url, from_environment(), create=create)
    async with Ecosystem(log) as ecosystem:
        yield ecosystem


def processors(
    settings: Settings | None = None, only: tuple[str, ...] | None = None
) -> list["Processor"]:
    """Return the processors that this program runs, or those named; raises UnknownProcessor."""
    from madlog.processors import Router
    from madlog.processors.errors import UnknownProcessor

    settings = settings or Settings()
    known: dict[str, Processor] = {
        "router": Router(
            open_registry(settings).registry,
            max_error=settings.max_error,
            audit_rate=settings.audit_rate,
            # Opened when a model is one, so that nobody pays for it who has none.
            get_blob=lambda sha256: open_blobs(settings.log, settings).get(sha256),
        )
    }
    for name in only or ():
        if name not in known and name not in LEARNING:
            names = ", ".join([*known, *LEARNING])
            raise UnknownProcessor(f"there is no processor {name[:60]!r}: {names}")
    return [processor for name, processor in known.items() if only is None or name in only]


def open_registry(settings: Settings | None = None) -> "RegistryFile":
    """Return the live agents that the setting `agents` names; raises InvalidRegistry."""
    from madlog.processors.acting import Terms
    from madlog.processors.ports import Registry
    from madlog.processors.registry_file import RegistryFile, read_registry

    if settings is None or settings.agents is None:
        return RegistryFile(Registry(), Terms())
    return read_registry(Path(settings.agents))


def open_acting(
    log: EventLog,
    settings: Settings | None,
    registry: "RegistryFile",
    engine: "ActionEngine",
) -> "Actor":
    """Return what runs the acts of a registry's agents, through the guards, by an engine."""
    from madlog.processors.acting import Actor
    from madlog.topics.clock import system_random

    grace_s = (settings or Settings()).acting_grace_s
    worker = system_random(16).hex()
    return Actor(log, registry.registry, engine, worker, registry.terms, grace_s=grace_s)


def open_escalations(
    log: EventLog,
    settings: Settings | None,
    registry: "RegistryFile",
    imperators: "Mapping[str, Imperator]",
    actor: "Actor | None" = None,
) -> "Escalations":
    """Return what asks language models, by agent, for what is handed up to them and for audits.

    Their acts go through the guards of `actor`; without one they are only called for on the log.
    """
    from madlog.processors.acting.for_imperator import GuardedActs
    from madlog.processors.imperator import Escalations, Limits

    settings = settings or Settings()
    limits = Limits(
        at_once=settings.imperator_at_once,
        timeout_s=settings.imperator_timeout_s,
        conversations_max=settings.outcome_conversations_max,
    )
    acts = None if actor is None else GuardedActs(actor)
    return Escalations(log, registry.registry, imperators, acts, limits)


def open_learning(
    log: EventLog,
    url: str,
    settings: Settings | None = None,
    only: tuple[str, ...] | None = None,
    decides: "Decides | None" = "imported",
    beside: "Elsewhere | None" = None,
) -> "Learning":
    """Return what learns from a log; large models become blobs beside it.

    `decides` says which conversations are decided in retrospect, None: none; `beside` is where
    models are learned while it decides, None: in a thread.
    """
    from madlog import __version__
    from madlog.processors.learning import Learning
    from madlog.processors.outcomes import Judge, chosen
    from madlog.processors.retrospect import Retrospection
    from madlog.processors.rollout import RolloutSettings

    settings = settings or Settings()
    judge = Judge(
        rules=chosen(settings.outcome_rules),
        timeout_s=settings.outcome_timeout_s,
        conversations_max=settings.outcome_conversations_max,
    )
    blobs = open_blobs(url, settings)
    retrospection = None
    if decides is not None and (only is None or "retrospect" in only):
        retrospection = Retrospection(
            __version__,
            blobs.put,
            get_blob=blobs.get,
            max_error=settings.max_error,
            audit_rate=settings.audit_rate,
            decides=decides,
            beside=beside or asyncio.to_thread,
        )
    rollout = RolloutSettings(
        __version__,
        blobs.put,
        blobs.get,
        open_registry(settings).registry,
        learns=only is None or "learn" in only,
        rolls_out=only is None or "rollout" in only,
        max_error=settings.max_error,
        audit_rate=settings.audit_rate,
    )
    return Learning(
        log,
        judge if only is None or "outcomes" in only else None,
        retrospection,
        rollout if rollout.learns or rollout.rolls_out else None,
    )


def evidence_file(url: str, settings: Settings | None = None) -> Path:
    """Return where the hashes of a log's records are kept: beside it."""
    return folder_beside(url, settings) / "evidence.sqlite"


def evidence_key_file(url: str, settings: Settings | None = None) -> Path:
    """Return where a log's signing key is: what `evidence_key` names, else beside the log."""
    if settings is not None and settings.evidence_key is not None:
        return Path(settings.evidence_key)
    return folder_beside(url, settings) / "evidence.key"


@asynccontextmanager
async def open_keeper(
    log: EventLog,
    url: str,
    settings: Settings | None = None,
    only: tuple[str, ...] | None = None,
) -> AsyncIterator["Keeper | None"]:
    """Give what hashes and signs a log's records, None where it has no key or is not wanted.

    Raises BadKey, HashesDamaged.
    """
    key_file = evidence_key_file(url, settings)
    if not key_file.exists() or (only is not None and "evidence" not in only):
        yield None
        return
    from madlog.topics.evidence import Keeper, Tiles, read_key

    key = read_key(key_file)
    file = evidence_file(url, settings)
    file.parent.mkdir(parents=True, exist_ok=True)
    with Tiles(file) as tiles:
        yield Keeper(log, tiles, key)


def wanted_topics(settings: Settings | None = None) -> list[Topic]:
    """Return the topics that a log is to have before its first event, in their order."""
    from madlog.topics import CATALOG
    from madlog.topics.catalog import state

    return [*CATALOG.values(), *(state(one.name) for one in processors(settings))]


def open_worker(
    log: EventLog, settings: Settings | None = None, only: tuple[str, ...] | None = None
) -> "Engine":
    """Return an engine that runs the processors on a log."""
    from madlog.processors import Engine

    settings = settings or Settings()
    return Engine(log, processors(settings, only), options=_options(settings))


def faust_cluster(url: str, settings: Settings | None = None) -> "FaustCluster":
    """Return what Faust must know of a log's cluster; raises UnsupportedByBackend, WrongAddress."""
    if not is_kafka(url):
        raise UnsupportedByBackend(
            f"the Faust engine runs on Kafka, and {url[:200]} is a folder: leave out --engine "
            "faust, or name a log with --log kafka://HOST:PORT"
        )
    from madlog.processors.faust import FaustCluster
    from madlog.topics.kafka_address import KafkaAddress

    settings = settings or Settings()
    address = KafkaAddress.parse(url)
    client = address.client_arguments()
    sasl = client["security_protocol"].startswith("SASL_")
    return FaustCluster(
        address.bootstrap,
        address.prefix,
        folder_beside(url, settings).absolute() / "faust",
        session_timeout_s=settings.session_timeout_s,
        standby_replicas=settings.faust_standby_replicas,
        ssl_context=client["ssl_context"],
        sasl_mechanism=client["sasl_mechanism"] if sasl else None,
        username=client["sasl_plain_username"],
        password=client["sasl_plain_password"],
    )


def open_faust(
    log: EventLog,
    cluster: "FaustCluster",
    settings: Settings | None = None,
    only: tuple[str, ...] | None = None,
) -> "Engine":
    """Return an engine that runs the processors in Faust apps on the cluster of a log."""
    from madlog.processors.faust import FaustEngine, Tables

    settings = settings or Settings()
    return FaustEngine(
        log,
        processors(settings, only),
        cluster,
        options=_options(settings),
        tables=Tables(settings.status_window_s, limits(settings)),
    )


def limits(settings: Settings) -> "Limits":
    """Return what one agent may spend in the window of live figures."""
    from madlog.processors.live import Limits

    return Limits(settings.budget_usd, settings.budget_tokens)


def _options(settings: Settings) -> "Options":
    from madlog.processors import Options

    return Options(
        batch_records_max=settings.worker_batch_records_max,
        recovery_timeout_s=settings.worker_recovery_timeout_s,
    )
