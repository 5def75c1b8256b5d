"""A process that moves a log's old records into packs, each step of which may be its last."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from tests.unit.packs_scene import move

from madlog.topics import _embedded_moving
from madlog.topics._embedded_packs import PackFolder
from madlog.topics._embedded_storage import sync_folder
from madlog.topics.embedded import EmbeddedLog

__all__ = ("move_until", "stepping")


@contextlib.contextmanager
def stepping(step: Callable[[str], None]) -> Iterator[None]:
    """Tell `step` each thing that moving does to the disk, before it or in its middle."""
    replace, fsync = os.replace, os.fsync
    name_pack = _embedded_moving.name_pack

    def put(folder: PackFolder, path: str, content: bytes) -> None:
        step("write")
        with open(path, "wb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            step("half written")
            file.write(content[len(content) // 2 :])
            file.flush()
            step("sync")
            fsync(file.fileno())

    def renamed(old: str, new: str) -> None:
        step("rename")
        replace(old, new)

    def synced(folder: PackFolder, path: str) -> None:
        step("sync folder")
        sync_folder(Path(path))

    def named(*arguments: Any) -> bool:
        step("name")
        done = name_pack(*arguments)
        step("not committed")
        return done

    with (
        mock.patch.object(PackFolder, "_put", put),
        mock.patch.object(os, "replace", renamed),
        mock.patch.object(PackFolder, "_sync", synced),
        mock.patch.object(_embedded_moving, "name_pack", named),
    ):
        yield


def move_until(folder: Path, last: str) -> None:
    """Move what can be moved; kill this process where that step is reached."""

    def step(name: str) -> None:
        if name == last:
            os.kill(os.getpid(), signal.SIGKILL)

    async def main() -> None:
        log = await EmbeddedLog.open(folder)
        await move(log, 1 << 62)
        await log.close()

    with stepping(step):
        asyncio.run(main())
