"""Learned processes at work: one instance for each conversation and agent, moved by events."""

from madlog.processors.conducting.instance import Conductor, Move

__all__ = ("Conductor", "Move")
