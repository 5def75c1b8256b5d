"""Which small ranges of a partition become one, so that readers open few files."""

from collections.abc import Sequence

from madlog.analytics.lake.manifest import Range

__all__ = ("to_merge",)

# So many of one size become one: each event is written again once a factor of it.
FAN = 8
ROWS_MAX = 500_000
BYTES_MAX = 32 << 20


def to_merge(ranges: Sequence[Range], fan: int = FAN) -> list[Range]:
    """Return adjacent ranges that are to become one: `fan` of a size, [] where there are none."""
    for level in range(_level(ROWS_MAX, fan) + 1):
        run: list[Range] = []
        for one in ranges:
            adjacent = not run or run[-1].offset_end == one.offset
            if not adjacent or _level(one.rows, fan) > level:
                run = []
            if _level(one.rows, fan) <= level:
                run.append(one)
            if len(run) >= fan and _fits(run):
                return run
    return []


def _level(rows: int, fan: int) -> int:
    """Return how often `fan` ranges of up to a thousand rows would be merged to hold so many."""
    level, size = 0, 1_000 * fan
    while rows >= size:
        level, size = level + 1, size * fan
    return level


def _fits(run: Sequence[Range]) -> bool:
    return sum(one.rows for one in run) <= ROWS_MAX and sum(one.size for one in run) <= BYTES_MAX
