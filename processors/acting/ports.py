"""What runs an action outside: bound from outside, because no effect is a processor's own."""

from dataclasses import dataclass
from typing import Protocol

__all__ = ("ActionEngine", "Answer")


@dataclass(frozen=True, slots=True)
class Answer:
    """What an action came to: `result` where it worked, `error` where it did not happen.

    An engine that does not know whether the effect happened raises instead.
    """

    ok: bool
    result: str | None = None
    error: str | None = None


class ActionEngine(Protocol):
    """Runs the actions of agents."""

    async def run(self, agent: str, action: str, arguments: str, key: str) -> Answer:
        """Run an action with its arguments (a JSON object as text).

        `key` is the same whenever the same act comes again: an idempotent action drops by it what
        it has done. Anything that is raised means that nobody knows whether it happened.
        """
