"""Files that are written whole or not at all, in a folder of this machine or at an fsspec URL."""

import os
import posixpath
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from madlog.topics.clock import system_random

__all__ = ("PARTIAL", "WholeFiles")

# What a crash leaves of a file ends so.
PARTIAL = ".partial"


class WholeFiles:
    """A folder or URL of files; raises ValueError or ImportError where it is neither.

    What then fails is raised as it comes: one of `errors`.
    """

    def __init__(self, url: str, random: Callable[[int], bytes] = system_random) -> None:
        import fsspec  # not above: a log is opened without it

        self.url = url
        self._random = random
        self._files, self._root = fsspec.core.url_to_fs(url)
        names = self._files.protocol
        self.local = "file" in ((names,) if isinstance(names, str) else names)
        # What clients of object stores raise beside OSError is their own.
        self.errors: type[Exception] = OSError if self.local else Exception

    def place(self, name: str) -> str:
        """Return where a file is: its path on this machine, or its URL."""
        path = self._path(name)
        return path if self.local else str(self._files.unstrip_protocol(path))

    def _path(self, name: str) -> str:
        return posixpath.join(self._root, name)

    def _write(self, name: str, content: bytes) -> None:
        """Write a file under another name, make it durable, then give it its own, durably."""
        target = self._path(name)
        partial = f"{target}.{self._random(16).hex()}{PARTIAL}"
        folders = list(self._folders(target)) if self.local else []
        self._files.makedirs(posixpath.dirname(target), exist_ok=True)
        try:
            self._put(partial, content)
            self._rename(partial, target)
        except BaseException:
            with suppress(self.errors):  # a later sweep finds it
                self._files.rm(partial)
            raise
        for folder in folders:
            self._sync(folder)

    def _folders(self, target: str) -> Iterator[str]:
        """Yield the folders whose lists of names may be new, the lowest first.

        Those below the root each time: a crash may have come between making one and this.
        """
        root = Path(self._root)
        for folder in Path(target).parents:
            yield str(folder)
            if folder in root.parents and folder.is_dir():
                return

    def _put(self, path: str, content: bytes) -> None:
        """Write a file that is durable when this returns, but for its name."""
        with self._files.open(path, "wb") as file:
            file.write(content)
        if self.local:
            self._sync(path)

    def _rename(self, partial: str, target: str) -> None:
        if self.local:
            os.replace(partial, target)  # one step, also over a file of that name
        else:
            self._files.mv(partial, target)

    def _sync(self, path: str) -> None:
        """Make a file or folder of this machine durable."""
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
