"""Why a turn went up to the language model: each value that a Decision's `escalation` can have.

A closed list, so that `madlog ask escalations` counts the same reasons everywhere and for ever.
"""

from typing import Final, NamedTuple

__all__ = ("ESCALATIONS", "STOPPED", "SWITCHED_OFF", "Escalation", "meaning")

STOPPED: Final = "stopped"
SWITCHED_OFF: Final = "switched-off"


class Escalation(NamedTuple):
    """One reason, and what it means in a sentence."""

    name: str
    meaning: str


ESCALATIONS: Final[tuple[Escalation, ...]] = (
    Escalation("left", "The decision tree has learned to leave such turns to the language model."),
    Escalation("version", "The agent's version has no cheap tier."),
    Escalation("promise", "A tier had an answer and could not keep the promised error with it."),
    Escalation("process", "The tree leaves it to a learned process, and none could take it up."),
    Escalation("registry", "The route is no registered action of the agent."),
    Escalation("unsure", "Neither tier knew the next step, or all of its arguments."),
    Escalation("guard", "A precondition or a constitutional rule forbade what a tier had chosen."),
    Escalation(STOPPED, "A person stopped the agent, or its language model too: nobody is asked."),
    Escalation(SWITCHED_OFF, "A person stopped the cheap tier, or the conducting of processes."),
    Escalation("override", "A person's override sends the agent's turns to the language model."),
    Escalation("effect", "A process's step had another effect than it has learned to expect."),
    Escalation("timeout", "A process's step did not end in its time."),
    Escalation("paused", "A person holds the process."),
    Escalation("waiting", "The process waits for an act of its own, and more was said meanwhile."),
    Escalation("budget", "The budget or the rate limit of the action is used up."),
)


def meaning(name: str) -> str | None:
    """Return what a reason means, None for one that is not in the list."""
    return next((one.meaning for one in ESCALATIONS if one.name == name), None)
