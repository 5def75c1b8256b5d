"""Where two lists of hashes differ, found in one pass that holds a bounded part of them."""

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

__all__ = ("Comparison", "Difference", "Leaf")

_WINDOW = 4096


class Leaf(NamedTuple):
    """The hash of a record and its offset; None is the hash of what could not be read."""

    hash: bytes | None
    offset: int


class Difference(NamedTuple):
    """Leaves that were expected at one place, and those that were found there instead."""

    expected: list[Leaf]
    found: list[Leaf]
    # False where the lists do not come together again within what is held: all after is unknown.
    located: bool = True
    # How many more were expected to the end, where what was found ends far before.
    more: int = 0


class Comparison:
    """Compares what is fed with what is expected.

    What is fed after the last leaf that was expected is no difference: `beyond` counts it.
    """

    def __init__(self, expected: Iterator[Leaf], window: int = _WINDOW) -> None:
        self.differences: list[Difference] = []
        self.beyond = 0
        self._expected = expected
        self._again: deque[Leaf] = deque()
        self._window = window
        self._parted = _Parted()
        self._lost = False

    def feed(self, leaf: Leaf) -> None:
        """Take the next leaf that was found."""
        if not self._again and not self._parted.found and not self._lost:
            wanted = next(self._expected, None)
            if wanted is not None and wanted.hash == leaf.hash:
                return
            if wanted is not None:
                self._again.append(wanted)
        waiting = deque((leaf,))
        while waiting and not self._lost:
            one = waiting.popleft()
            wanted = self._again.popleft() if self._again else next(self._expected, None)
            if self._parted.found:
                waiting.extendleft(reversed(self._look(wanted, one)))
            elif wanted is None:
                self.beyond += 1
            elif wanted.hash != one.hash:
                self._parted.add(wanted, one)

    def finish(self) -> None:
        """Take the end of what was found."""
        if not self._lost:
            held = islice(self._expected, self._window)
            rest = [*self._parted.wanted, *self._again, *held]
            self._end(rest, self._parted.found, sum(1 for _ in self._expected))

    def _look(self, wanted: Leaf | None, found: Leaf) -> list[Leaf]:
        """Look whether the lists come together; returns what must then be compared again."""
        parted = self._parted
        meeting = parted.add(wanted, found)
        if meeting is not None:
            self._part(parted.wanted[: meeting[0]], parted.found[: meeting[1]])
            self._again.extendleft(reversed(parted.wanted[meeting[0] :]))
            self._parted = _Parted()
            return parted.found[meeting[1] :]
        if len(parted.found) >= self._window:
            if wanted is None:  # all that was expected is here: what is more came since
                self._end(parted.wanted, parted.found)
            else:
                self.differences.append(Difference(parted.wanted, parted.found, False))
                self._lost = True
            self._parted = _Parted()
        return []

    def _end(self, wanted: list[Leaf], found: list[Leaf], more: int = 0) -> None:
        self._part(wanted, found[: len(wanted)], more)
        self.beyond += max(0, len(found) - len(wanted))

    def _part(self, expected: list[Leaf], found: list[Leaf], more: int = 0) -> None:
        if expected or found:
            self.differences.append(Difference(expected, found, more=more))


class _Parted:
    """What came since two lists parted, and where in it each hash stands first."""

    def __init__(self) -> None:
        self.wanted: list[Leaf] = []
        self.found: list[Leaf] = []
        self._wanted_at: dict[bytes, int] = {}
        self._found_at: dict[bytes, int] = {}

    def add(self, wanted: Leaf | None, found: Leaf) -> tuple[int, int] | None:
        """Add the next of both; returns where in them they come together, if they do."""
        self.found.append(found)
        if found.hash is not None:
            self._found_at.setdefault(found.hash, len(self.found) - 1)
        if wanted is not None:
            self.wanted.append(wanted)
            assert wanted.hash is not None
            self._wanted_at.setdefault(wanted.hash, len(self.wanted) - 1)
        if found.hash is not None and found.hash in self._wanted_at:
            return self._wanted_at[found.hash], len(self.found) - 1
        if wanted is not None and wanted.hash in self._found_at:
            return len(self.wanted) - 1, self._found_at[wanted.hash]
        return None
