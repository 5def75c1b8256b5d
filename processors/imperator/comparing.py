"""What an answer or an act amounts to, as a route: so that tiers are compared by one measure.

Words are the language model's, but for two kinds that a tree settles too: an acknowledgement, and
the answer to a health query.
"""

import json
from typing import NamedTuple

from madlog.processors.dtr.tree import ACTION_PREFIX, IMPERATOR
from madlog.processors.imperator.ports import Answer
from madlog.processors.lppm.cases import SAY, Act
from madlog.processors.outcomes.words import turn_marks
from madlog.processors.retrospect.conversation import Done
from madlog.processors.retrospect.deciding import agrees
from madlog.schemas.text import parse
from madlog.topics import LogEvent

__all__ = ("Did", "agrees", "did_of")


class Did(NamedTuple):
    """A route and its arguments as canonical JSON, as Decisions have them."""

    route: str
    arguments: str | None

    def done(self, agent: str, event_id: str, said: str = "") -> Done:
        """Return it as an act that was done."""
        arguments = json.loads(self.arguments or "{}") if self.acts else None
        what = self.route if self.acts else SAY
        act = Act(agent, False, what, event_id, said, arguments=arguments)
        return Done(act, self.route)

    @property
    def acts(self) -> bool:
        """Whether it is an action."""
        return self.route.startswith(ACTION_PREFIX)


def did_of(answer: Answer, asked: LogEvent) -> Did:
    """Return the route of a checked answer to a turn or to a tool's result."""
    if answer.action is not None:
        return Did(answer.route, answer.arguments)
    found = parse(answer.text or "")
    if turn_marks([part.model_dump() for part in found.parts], found.tags, None).ack:
        return Did("ack", None)
    if asked.kind == "Turn":
        fields = asked.fields
        if turn_marks(fields["parts"], fields["tags"], fields["intent"]).health:
            return Did("health", None)
    return Did(IMPERATOR, None)
