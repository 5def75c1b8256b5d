"""How familiar the words are that a decision rests on: of a new kind of request nothing is known.

A classifier names the likeliest of what it has seen, also for what it has never seen. So words are
weighed, rare ones more: the share of what a human said last that is known. How low it may fall is
taken from conversations that a vocabulary was not made of.
"""

from collections.abc import Sequence
from typing import Final

from madlog.processors.lppm.cases import Act
from madlog.processors.lppm.text import Vocabulary

__all__ = ("ALL", "familiarity", "least")

ALL: Final = 1_000
# Of those that were tried one decision in a hundred is as strange as this; what is only a little
# stranger is no new kind yet.
_STRANGE, _LEAST = 100, 0.75


def familiarity(past: Sequence[Act], words: Vocabulary) -> int | None:
    """Return how much of a human's last words is known, 0 to ALL; None where there are none."""
    said = next((act for act in reversed(past) if act.human), None)
    known, total = (0, 0) if said is None else words.known(said.said)
    return ALL * known // total if total else None


def least(found: Sequence[int]) -> int | None:
    """Return what hardly any of the decisions that were tried fell below; None of none."""
    return int(sorted(found)[len(found) // _STRANGE] * _LEAST) if found else None
