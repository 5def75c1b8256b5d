"""A processor: a pure step over events, so that replaying it is a unit test.

No clock, no randomness, no I/O: times and ids come from the input event (madlog.schemas.ids,
derived_event_id). The engine that runs it appends the outputs, the changed state and the consumed
position in one transaction.
"""

from collections.abc import MutableMapping, Sequence
from typing import Any, Protocol

from madlog.schemas import Event
from madlog.topics import LogEvent

__all__ = ("Processor", "State")

# Values are JSON; a step replaces them and never changes one in place, or a failed attempt would
# leave half of its changes behind. Keys that begin with @ are the shared state, read-only here.
State = MutableMapping[str, Any]


class Processor(Protocol):
    """One kind of work over the events of some topics."""

    @property
    def name(self) -> str:
        """The name of its group, of its state topic (mad.state.NAME) and in its outputs' ids."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The topics that it consumes, with one state for each input partition."""

    @property
    def shared(self) -> tuple[str, ...]:
        """The topics that are read to their end before each batch: models, control."""

    def share(self, shared: State, event: LogEvent) -> None:
        """Fold an event of a shared topic; `shared`'s keys begin with @. An error rejects it."""

    def prelude(self, shared: State) -> Sequence[Event]:
        """Return the events that must be on the log before the first step and are not yet."""

    def step(self, state: State, event: LogEvent) -> Sequence[Event]:
        """Fold one input event into the state of its partition and return what follows from it."""
