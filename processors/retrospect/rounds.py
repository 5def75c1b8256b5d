"""Rounds: after how many conversations a new model is trained, fixed by data alone.

A model trained on the first k conversations decides from the next one on, until the next round's
model. So no decision uses a model that saw its own conversation, and runs are equal everywhere.
"""

from collections.abc import Iterator

__all__ = ("rounds",)

_FIRST = 20
# Twice as many each time, while there is much to learn from few; then four times as many.
_DOUBLED_UP_TO = 320
# From here on each round adds as many: four times as many would wait too long to learn.
_STEP_MAX = 1_280


def rounds(count: int) -> Iterator[tuple[int, int]]:
    """Go through the (first, end) of each round's conversations, `count` in all.

    The first round has no model of its own: nothing was seen yet.
    """
    first, end = 0, _FIRST
    while first < count:
        yield first, min(end, count)
        first, end = end, end + min(end if end < _DOUBLED_UP_TO else 3 * end, _STEP_MAX)
