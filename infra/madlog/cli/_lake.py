"""Where a log's lake is, and what reads and writes it, by the settings of this run."""

from typing import TYPE_CHECKING

from madlog.cli._context import note

if TYPE_CHECKING:
    from madlog.analytics.lake import Archiver, LakeSource, LakeStore
    from madlog.config import Settings
    from madlog.topics import EventLog

__all__ = ("Archiving", "open_archiver", "open_lake", "open_source", "packs_place")

# How long after a failure archiving is tried again.
_AGAIN_S = 10.0


def open_lake(url: str, settings: "Settings") -> "LakeStore":
    """Return where a log's lake is: where `lake` is set there, else beside the log."""
    from madlog.analytics.lake import LakeStore
    from madlog.wiring import folder_beside

    return LakeStore(settings.lake or str(folder_beside(url, settings).absolute() / "lake"))


def packs_place(url: str, settings: "Settings") -> str:
    """Return where cold records go: into the lake where `lake` is set, else beside it.

    A lake of which all can be made again may be thrown away; packs must not go with it.
    """
    from madlog.wiring import folder_beside

    if settings.lake is not None:
        return open_lake(url, settings).place("cold")
    return str(folder_beside(url, settings).absolute() / "cold")


async def open_source(log: "EventLog", url: str, settings: "Settings") -> "LakeSource | None":
    """Return the tables of a log by way of its lake, None where it has none."""
    from madlog.analytics.lake import LakeSource, read_manifest

    manifest = await read_manifest(log)
    return LakeSource(log, open_lake(url, settings), manifest) if any(manifest) else None


async def open_archiver(
    log: "EventLog", url: str, settings: "Settings", *, wanted: bool = False
) -> "Archiver | None":
    """Return what archives a log: where it is `wanted`, `lake` is set, or the log has a lake."""
    from madlog.analytics.lake import Archiver, ArchiverOptions, read_manifest

    if not wanted and settings.lake is None and (await read_manifest(log)).lake is None:
        return None
    options = ArchiverOptions(
        settings.lake_records_min, settings.lake_age_s, grace_s=settings.lake_grace_s
    )
    return Archiver(log, open_lake(url, settings), options)


class Archiving:
    """Archives beside a worker; what keeps it from that is said once and stops nothing else."""

    def __init__(self, archiver: "Archiver | None") -> None:
        self._archiver = archiver

    @classmethod
    async def opened(
        cls, log: "EventLog", url: str, settings: "Settings", names: tuple[str, ...] | None
    ) -> "Archiving":
        """Return what archives a log, which is nothing where it has no lake and none is wanted."""
        if names is not None and "archiver" not in names:
            return cls(None)
        return cls(await open_archiver(log, url, settings, wanted=names is not None))

    async def go_on(self) -> None:
        """Archive until cancelled."""
        import asyncio

        from madlog.analytics.errors import LakeUnavailable

        said = ""
        while True:
            if self._archiver is not None:
                try:
                    await self._archiver.run()
                except LakeUnavailable as error:
                    if str(error) != said:
                        note(f"madlog: {error}")
                    said = str(error)
            await asyncio.sleep(_AGAIN_S)

    async def finish(self) -> None:
        """Archive all that there is; raises LakeUnavailable."""
        if self._archiver is not None:
            await self._archiver.run(until_idle=True)
