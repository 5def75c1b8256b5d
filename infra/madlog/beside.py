"""A second process that computes what it is given: one core learns while another decides.

It is started when there is enough to do that this pays, and ends with who started it, also by
kill -9: a worker of concurrent.futures goes on then (seen on Python 3.11).
"""

import asyncio
import os
import pickle  # noqa: TID251 - between two processes of ours, never in a file
import sys
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

__all__ = ("Beside", "main")

T = TypeVar("T")
_HEAD = 8
_GONE = (OSError, asyncio.IncompleteReadError, EOFError, pickle.PickleError)


class Beside:
    """Runs functions in another process, or in a thread where that is not to be had.

    A function must be pure and its arguments and answer such that pickle can carry them.
    """

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._one_at_a_time = asyncio.Lock()
        self._had = (os.cpu_count() or 1) > 1

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Return what a function returns; raises what it raises."""
        async with self._one_at_a_time:
            if self._had:
                try:
                    answer: T = await self._asked(pickle.dumps((function, arguments)))
                    return answer
                except _GONE:
                    # It was killed, perhaps for its memory; or the function failed, and says here
                    # what was wrong.
                    self._had = False
                    await self._end()
                except BaseException:
                    # Else the answer that nobody waits for would be taken for the next one.
                    await self._end()
                    raise
        return await asyncio.to_thread(function, *arguments)

    async def _asked(self, question: bytes) -> Any:
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "madlog.beside"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                # Ctrl-C is for who asked; this ends when nobody asks any more.
                start_new_session=True,
            )
        to, of = self._process.stdin, self._process.stdout
        assert to is not None
        assert of is not None
        to.write(len(question).to_bytes(_HEAD, "big") + question)
        await to.drain()
        size = int.from_bytes(await of.readexactly(_HEAD), "big")
        return pickle.loads(await of.readexactly(size))


def main() -> None:
    """Answer until there is no more question."""
    questions, answers = sys.stdin.buffer, sys.stdout.buffer
    while head := questions.read(_HEAD):
        function, arguments = pickle.loads(questions.read(int.from_bytes(head, "big")))
        answer = pickle.dumps(function(*arguments))
        answers.write(len(answer).to_bytes(_HEAD, "big") + answer)
        answers.flush()


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        main()
