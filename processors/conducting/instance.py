"""A process instance: how an agent's learned process stands in one conversation.

The state is one JSON object, `p/CONVERSATION/AGENT`, changed only by the router's step, so that a
crash leaves it where the last transaction put it and no step is taken twice. It says what was done,
which act is waited for and until when. The language model has the conversation whenever no act is
waited for; what the instance has done stays, and goes on from there.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from madlog.processors.dtr.features import command_verb
from madlog.processors.lppm._facts import DONE, OK, facts
from madlog.processors.lppm.cases import ACTION, Act
from madlog.processors.lppm.process import Process, Step
from madlog.processors.ports import Agent
from madlog.processors.step import State
from madlog.schemas import ProcessStep, Sender, derived_event_id

__all__ = ("COMMANDS", "Conductor", "Move", "command_of", "may_take")

# What a person may tell an instance by a command to its agent.
COMMANDS: Final = ("pause", "resume", "cancel")
# What the router does after an event that moved an instance: decide what comes next, or give the
# conversation to the language model for the reason named; `undo`: take the next act back.
Move = Literal["next", "effect", "timeout", "paused", "undo", "none"]
_SENDER = Sender(name="conductor", kind="system")
# More steps than this are not taken back.
_DONE_MAX = 200


class Conductor:
    """The moves that one event makes of an agent's instance, in order, as ProcessStep events."""

    def __init__(self, state: State, fields: Mapping[str, Any], agent: Agent, index: int) -> None:
        self.agent = agent
        self.moves: list[ProcessStep] = []
        self._state = state
        self._fields = fields
        self._key = f"p/{fields['conversation_id']}/{agent.name}"
        # Of each event: ids of moves for one agent must not be those for another.
        self._index = index

    @property
    def instance(self) -> Mapping[str, Any] | None:
        """How the instance stands, None where none is open."""
        found: Mapping[str, Any] | None = self._state.get(self._key)
        return found

    @property
    def paused(self) -> bool:
        """Whether a person holds the instance."""
        return self.instance is not None and self.instance["paused"]

    @property
    def waiting(self) -> Mapping[str, Any] | None:
        """The act that is waited for: step, action, decision_id, step_id, deadline, call_id."""
        found: Mapping[str, Any] | None = (self.instance or {}).get("waiting")
        return found

    @property
    def _open(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._state[self._key]
        return found

    @property
    def _waited(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._open["waiting"]
        return found

    def take(
        self, process: Process, action: str, arguments: str, decision_id: str, at: int
    ) -> None:
        """Begin a step, with the instance where none is open."""
        old = self.instance
        if old is None:
            old = {
                "id": derived_event_id(self._fields["event_id"], _SENDER.name, self._index),
                "process": f"{process.name}/{process.version}",
                "done": [],
                "paused": False,
                "handed": False,
                "cancelled": False,
                "undo": [],
            }
            self._move(old, "started")
        elif old["handed"]:
            self._move(old, "resumed")
        step = _step_of(process, self.agent.name, action)
        contract = self.agent.contract(action)
        limit_us = None if contract.timeout_s is None else round(contract.timeout_s * 1_000_000)
        if limit_us is None and step is not None and step.timeout_ms is not None:
            limit_us = step.timeout_ms * 1_000
        self._wait(
            old, "step", action, arguments, decision_id, None if not limit_us else at + limit_us
        )
        if contract.risk == "high":
            self._move(self._open, "blocked", reason=f"{action} waits for an approval")

    def called(self, call_id: str) -> None:
        """Fold that the act which is waited for began."""
        instance, waiting = self._open, self._waited
        if self.agent.contract(waiting["action"]).risk == "high":
            self._move(instance, "resumed", step=waiting["step"])
        self._put({**instance, "waiting": {**waiting, "call_id": call_id}})

    def answered(self, act: Act | None, process: Process | None) -> Move:
        """Fold the answer to the act that was waited for; tells what is to be done next."""
        instance, waiting = self._open, self._waited
        number, action = waiting["step"], waiting["action"]
        undoing = waiting["undoes"] is not None
        step = None if process is None else _step_of(process, self.agent.name, action)
        differs = _differs(act, None if undoing else step)
        if differs is not None:
            self._hand_over(f"{action}: {differs}")
            return "effect"
        if undoing:
            self._move(instance, "compensated", step=waiting["undoes"], action=action)
            self._put({**instance, "waiting": None, "undo": instance["undo"][1:]})
            return self._undone()
        self._move(instance, "done", step=number, action=action)
        done = [*instance["done"], [number, action, waiting["arguments"]]]
        self._put({**instance, "waiting": None, "done": done[-_DONE_MAX:]})
        if instance["cancelled"]:
            return self._taking_back()
        return "paused" if instance["paused"] else "next"

    def timed_out(self, about_id: str) -> Move:
        """Fold that a step's time is up; nothing where it is not waited for any more."""
        waiting = self.waiting
        if waiting is None or waiting["step_id"] != about_id:
            return "none"
        self._move(self._open, "timed-out", step=waiting["step"], action=waiting["action"])
        self._hand_over(f"{waiting['action']} did not answer in time")
        return "timeout"

    def told(self, command: str) -> Move:
        """Fold a person's command."""
        instance = self._open
        if command == "pause":
            self._move(instance, "paused")
            self._put({**instance, "paused": True})
            return "none"
        if command == "resume":
            self._move(instance, "resumed")
            self._put({**instance, "paused": False})
            return "none" if self.waiting is not None else "next"
        # The act under way cannot be called back; it is taken back when it has been answered.
        self._put({**instance, "paused": False, "cancelled": True})
        return "none" if self.waiting is not None else self._taking_back()

    def undo(self) -> tuple[int, str, str]:
        """Return the step that is taken back next: number, action that does it, arguments."""
        instance = self._open
        number, action, arguments = instance["undo"][0]
        return number, action, arguments

    def take_back(self, action: str, arguments: str, decision_id: str, undoes: int) -> None:
        """Begin to take a step back."""
        instance = self._open
        self._wait(instance, "step", action, arguments, decision_id, None, undoes=undoes)

    def unsure(self, why: str, *, over: bool) -> None:
        """Give the conversation to the language model: the process ends here, or does not know."""
        instance = self.instance
        if instance is None or instance["handed"]:
            return
        if over:
            self._end("completed", why)
        else:
            self._hand_over(why)

    def left_alone(self) -> None:
        """Fold that the agent did otherwise than the process: it is the language model's now."""
        if self.waiting is not None:
            self._hand_over(f"{self.agent.name} did not wait for {self.waiting['action']}")

    def _hand_over(self, why: str) -> None:
        self._move(self._open, "escalated", reason=why)
        instance = self._open
        self._put({**instance, "waiting": None, "handed": True, "cancelled": False, "undo": []})

    def _taking_back(self) -> Move:
        instance = self._open
        undo = [
            [number, contract.compensation, arguments]
            for number, action, arguments in reversed(instance["done"])
            if (contract := self.agent.contract(action)).compensation is not None
        ]
        self._put({**instance, "undo": undo})
        return self._undone()

    def _undone(self) -> Move:
        instance = self._open
        if instance["undo"]:
            return "undo"
        self._end("compensated", "what was done is taken back as far as it can be")
        return "none"

    def _end(self, how: str, why: str) -> None:
        self._move(self._open, how, reason=why)
        del self._state[self._key]

    def _wait(
        self,
        instance: Mapping[str, Any],
        how: str,
        action: str,
        arguments: str,
        decision_id: str,
        deadline: int | None,
        undoes: int | None = None,
    ) -> None:
        number = instance.get("steps", 0)
        more = {"action": action, "arguments": arguments, "decision_id": decision_id}
        step_id = self._move(instance, how, step=number, deadline=deadline, **more)
        waiting = {
            **more,
            "step": number,
            "step_id": step_id,
            "deadline": deadline,
            "call_id": None,
            "undoes": undoes,
        }
        self._put({**instance, "handed": False, "steps": number + 1, "waiting": waiting})

    def _put(self, instance: Mapping[str, Any]) -> None:
        self._state[self._key] = dict(instance)

    def _move(self, instance: Mapping[str, Any], how: str, **more: Any) -> str:
        fields = self._fields
        self._index += 1
        event_id = derived_event_id(fields["event_id"], _SENDER.name, self._index)
        self.moves.append(
            ProcessStep(
                event_id=event_id,
                conversation_id=fields["conversation_id"],
                correlation_id=fields["correlation_id"],
                causation_id=fields["event_id"],
                seen=fields["event_id"],
                sender=_SENDER,
                occurred_at=fields["occurred_at"],
                time_source=fields["time_source"],
                subject=fields["subject"],
                instance_id=instance["id"],
                mad=self.agent.name,
                process=instance["process"],
                state=how,
                **more,
            )
        )
        return event_id


def command_of(fields: Mapping[str, Any]) -> str | None:
    """Return what a person's turn tells an instance: it is that one command and nothing else."""
    parts: Sequence[Mapping[str, Any]] = fields.get("parts", ())
    if fields["sender"]["kind"] != "human" or len(parts) != 1:
        return None
    if parts[0]["content_class"] != "deterministic":
        return None
    verb = command_verb(parts[0]["text"] or "")
    return verb if verb in COMMANDS else None


def may_take(process: Process, agent: str, action: str, past: Sequence[Act]) -> str | None:
    """Return why an action is no step of the process now, None where it may be taken."""
    step = _step_of(process, agent, action)
    if step is None:
        return f"{action} is no step of the process {process.version}"
    held = facts(past)
    missing = [one for one in step.precondition if one.startswith(DONE) and one not in held]
    return f"{action} asks for {', '.join(missing)}" if missing else None


def _step_of(process: Process, agent: str, action: str) -> Step | None:
    what = ACTION + action
    return next((one for one in process.steps if one.actor == agent and one.what == what), None)


def _differs(act: Act | None, step: Step | None) -> str | None:
    """Return how an answer differs from what the step's answers showed, None where it does not."""
    answer = None if act is None else act.answer
    if act is None or answer is None:
        return "its answer is not there"
    if not answer.ok:
        return "it failed"
    for effect in () if step is None else step.effect:
        if effect != OK and effect not in act.paths:
            return f"its answer lacks {effect}"
    return None
