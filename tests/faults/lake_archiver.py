"""A process that archives a log and kills itself at the n-th step of writing to the lake."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence

from madlog.analytics.lake import Archiver, ArchiverOptions, LakeStore
from madlog.schemas import Event
from madlog.topics import Commit
from madlog.topics.event_log import NewEvent
from madlog.topics.log import NewRecord, Receipt
from madlog.wiring import opened

OPTIONS = ArchiverOptions(records_min=1, age_s=0.0, records_max=20)


class Steps:
    """Counts steps, and kills this process before or in the middle of the n-th."""

    def __init__(self, last: int) -> None:
        self.left = last

    def step(self) -> None:
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)


class KilledStore(LakeStore):
    """A lake's files, each step of whose writing may be the last."""

    steps: Steps

    def _put(self, path: str, content: bytes) -> None:
        self.steps.step()
        half = len(content) // 2
        with open(path, "wb") as file:
            file.write(content[:half])
            file.flush()
            self.steps.step()
            file.write(content[half:])
        self.steps.step()
        self._sync(path)

    def _rename(self, partial: str, target: str) -> None:
        self.steps.step()
        super()._rename(partial, target)
        self.steps.step()

    def remove(self, path: str) -> None:
        self.steps.step()
        super().remove(path)


async def main(folder: str, last: int) -> None:
    steps = Steps(last)
    KilledStore.steps = steps
    async with opened(folder, create=False) as log:
        transact = log.transact

        async def killed(
            events: Sequence[Event | NewEvent],
            commit: Commit | None = None,
            records: Sequence[NewRecord] = (),
        ) -> list[Receipt]:
            steps.step()
            receipts = await transact(events, commit, records)
            steps.step()
            return receipts

        log.transact = killed  # type: ignore[method-assign]
        archiver = Archiver(log, KilledStore(folder + "/lake"), OPTIONS)
        await archiver.run(until_idle=True)
        await archiver.sweep(0.0)
    print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
