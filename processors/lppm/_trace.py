"""Traces: a conversation's acts as the steps of a process."""

from collections.abc import Sequence
from typing import NamedTuple

from madlog.processors.lppm.cases import Act

__all__ = ("START", "Visit", "trace")

START = "start"


class Visit(NamedTuple):
    """A step where it stood in a conversation: its key, and its place among the acts."""

    key: str
    at: int


def trace(acts: Sequence[Act]) -> list[Visit]:
    """Return the steps of agents, in order; words are told apart by the action before them.

    Were all words one step, everything would follow everything through it. Words upon words are
    one step, and what humans say is no step: it is what a guard may ask for.
    """
    found: list[Visit] = []
    last = START
    for at, act in enumerate(acts):
        if act.human:
            continue
        if act.action is not None:
            last = act.action
            found.append(Visit(f"{act.actor} {act.what}", at))
            continue
        key = f"{act.actor} {act.what} after {last}"
        if not found or found[-1].key != key:
            found.append(Visit(key, at))
    return found
