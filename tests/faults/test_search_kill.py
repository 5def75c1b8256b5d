"""kill -9 while the search index is being made: it is gone on with, and nothing is twice."""

import io
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import apsw

from madlog.mads.demo.writer import write
from madlog.wiring import open_search, opened

_TAKES_UP = """
import asyncio, sys
from madlog.analytics import search
from madlog.wiring import open_search, opened

search._ROWS = 100

async def main():
    async with opened(sys.argv[1], create=False) as log:
        await open_search(sys.argv[1]).take_up(log, progress=lambda *told: print(*told, flush=True))

asyncio.run(main())
"""


def kill_after(url: str, batches: int) -> None:
    command = [sys.executable, "-c", _TAKES_UP, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as maker:
        assert maker.stdout is not None
        for _ in range(batches):
            assert maker.stdout.readline()
        os.kill(maker.pid, signal.SIGKILL)


async def test_an_index_killed_while_it_is_made_is_made_whole_after(tmp_path: Path) -> None:
    url = str(tmp_path / "log")
    async with opened(url) as log:
        await write(log, 1, 1_500, acknowledged=io.StringIO())
    for batches in (1, 2):
        kill_after(url, batches)
    path = tmp_path / "log" / "projections" / "search.sqlite"
    async with opened(url, create=False) as log:
        with closing(open_search(url)) as grown:
            found = await grown.rows(log, "refund")
        for file in path.parent.glob("search.sqlite*"):
            file.rename(file.with_name(f"killed-{file.name}"))
        with closing(open_search(url)) as fresh:
            assert await fresh.rows(log, "refund") == found
            assert len(found) > 100
    held = []
    for name in ("killed-search.sqlite", "search.sqlite"):
        with closing(apsw.Connection(str(path.with_name(name)))) as connection:
            connection.execute("INSERT INTO words(words, rank) VALUES('integrity-check', 1)")
            held.append(list(connection.execute("SELECT * FROM turns ORDER BY id")))
    assert held[0] == held[1]
