"""One scripted conversation on its way: makes its events as the conversation API would."""

import json
from random import Random
from typing import Any, Literal, NamedTuple

from madlog.mads.demo._phrases import Spoken, speak
from madlog.mads.demo.team import TEAM, Role
from madlog.schemas import EVENT_KINDS, Event, build, new_event_id

__all__ = ("MODEL", "TOKEN_BUDGET", "Seen", "Stage", "tokens")

TOKEN_BUDGET = 4000
MODEL = "scripted-1"

# US dollars a token; a real price list's order of size.
_USD_IN, _USD_OUT = 2.5e-6, 10e-6
_SYSTEM_TOKENS = 180
_BLANKS: dict[str, dict[str, Any]] = {
    kind: {
        name: field.get_default(call_default_factory=True)
        for name, field in model.model_fields.items()
        if not field.is_required()
    }
    for kind, model in EVENT_KINDS.items()
}


def tokens(size: int) -> int:
    """Return about how many tokens a text of `size` characters has."""
    return size // 4 + 1


class Seen(NamedTuple):
    """One thing said or done, as a context builder sees it."""

    event_id: str
    tokens: int
    # The order whose refund this event reports, if it reports one.
    refunded: str | None = None


class Stage:
    """The events of one conversation so far, and what its participants have seen."""

    def __init__(self, conversation_id: str, key: str, start_us: int, random: Random) -> None:
        self.conversation_id = conversation_id
        self.events: list[Event] = []
        self.turns = 0
        self.now_us = start_us
        self.random = random
        self._key = key
        self._participants: set[str] = set()
        self._first: str | None = None
        self._last: str | None = None
        self._addressed: dict[str, str] = {}
        self._story: list[Seen] = []

    def _id(self) -> str:
        return new_event_id(self.now_us, self.random.randbytes(10))

    def _add(self, kind: str, sender: Role, event_id: str | None = None, **fields: Any) -> str:
        event_id = event_id or self._id()
        values = {
            **_BLANKS[kind],
            "event_id": event_id,
            "conversation_id": self.conversation_id,
            "correlation_id": self._first,
            "causation_id": self._last,
            "seen": self._last,
            "sender": TEAM[sender].sender,
            "occurred_at": self.now_us,
            "time_source": "synthetic",
            "idempotency_key": f"{self._key}/{len(self.events)}",
            **fields,
        }
        self.events.append(build(kind, values))
        if kind in ("Turn", "ConversationChanged", "ToolCall", "ToolResult"):
            self._first = self._first or event_id
            self._last = event_id
        return event_id

    def _wait(self, low_ms: int, high_ms: int) -> None:
        # random() is several times faster than randint(), and evenness does not matter here.
        self.now_us += int((low_ms + (high_ms - low_ms) * self.random.random()) * 1000)

    def create(self, title: str, *names: Role) -> None:
        """Begin: the first of `names` creates the conversation, and all of them join it."""
        actions = sorted(action for name in names for action in TEAM[name].actions)
        metadata = {"scripted": "true", "tools": json.dumps(actions)}
        creator = names[0]
        self._add("ConversationChanged", creator, change="created", title=title, metadata=metadata)
        for name in names:
            self.join(creator, name)

    def join(self, sender: Role, name: Role) -> None:
        """Let `name` join."""
        self._participants.add(name)
        self._change(sender, "joined", name)

    def leave(self, name: Role) -> None:
        """Let `name` leave by itself."""
        self._change(name, "left", name)
        self._participants.discard(name)

    def _change(self, sender: Role, change: Literal["joined", "left"], name: Role) -> None:
        self._wait(1, 4)
        kind = TEAM[name].kind
        self._add(
            "ConversationChanged", sender, change=change, participant=name, participant_kind=kind
        )

    def say(
        self,
        sender: Role,
        template: str,
        *to: Role,
        intent: str | None = None,
        tags: tuple[str, ...] = (),
        files: tuple[dict[str, Any], ...] = (),
        cause: str | None = None,
        event_id: str | None = None,
        refunded: str | None = None,
        **values: str,
    ) -> str:
        """Say a phrase; those mentioned receive it too. Returns the turn's id."""
        if event_id is None:
            quick = TEAM[sender].kind == "mad"
            self._wait(*((20, 400) if quick else (4_000, 90_000)))
        spoken: Spoken = speak(template, values, files)
        mentioned = (name for name in spoken.mentions if name in self._participants)
        recipients = [name for name in dict.fromkeys((*to, *mentioned)) if name != sender]
        turn_id = self._add(
            "Turn",
            sender,
            event_id,
            causation_id=cause or self._addressed.get(sender, self._last),
            recipients=tuple(recipients),
            mentions=spoken.mentions,
            tags=(*spoken.tags, *(tag for tag in tags if tag not in spoken.tags)),
            intent=intent,
            parts=spoken.parts,
        )
        self._addressed.update(dict.fromkeys(recipients, turn_id))
        self._story.append(Seen(turn_id, tokens(spoken.size), refunded))
        self.turns += 1
        return turn_id

    def ack(self, sender: Role, to: Role, turn_id: str) -> None:
        """Acknowledge a turn."""
        self.say(sender, "ACK #ack", to, tags=("ack",), intent="RESPONSE", cause=turn_id)

    def run(
        self,
        agent: Role,
        action: str,
        arguments: dict[str, Any],
        result: dict[str, Any] | None,
        *,
        error: str | None = None,
        event_id: str | None = None,
        preconditions: tuple[str, ...] = (),
    ) -> str:
        """Run an action with its result or error; returns the result's id."""
        effect = action in ("refund", "close_case")
        if event_id is None:
            self._wait(2, 20)
        written = json.dumps(arguments, sort_keys=True)
        call_id = self._add(
            "ToolCall",
            agent,
            event_id,
            causation_id=self._addressed.get(agent, self._last),
            action=action,
            arguments=written,
            preconditions=preconditions,
            idempotent=not effect,
        )
        self._story.append(Seen(call_id, tokens(len(written))))
        started = self.now_us
        self._wait(30, 900)
        answer = None if result is None else json.dumps(result, sort_keys=True)
        result_id = self._add(
            "ToolResult",
            agent,
            causation_id=call_id,
            call_id=call_id,
            action=action,
            ok=error is None,
            result=answer,
            error=error,
            duration_ms=(self.now_us - started) / 1000,
        )
        refunded = str(arguments["order_id"]) if action == "refund" and error is None else None
        self._story.append(Seen(result_id, tokens(len(answer or error or "")), refunded))
        return result_id

    @property
    def tokens_free(self) -> int:
        """How many tokens of the budget are left for what was said and done."""
        return TOKEN_BUDGET - _SYSTEM_TOKENS

    def context(self) -> list[Seen]:
        """Return what fits into the token budget: the newest first, until one does not fit."""
        left, shown = self.tokens_free, []
        for seen in reversed(self._story):
            left -= seen.tokens
            if left < 0:
                break
            shown.append(seen)
        return shown[::-1]

    def ask_model(self, agent: Role, tokens_out: int = 40) -> tuple[list[Seen], str]:
        """Call the scripted model for an agent; returns what it was shown, and its answer's id."""
        shown = self.context()
        cause = self._addressed.get(agent, self._last)
        self._wait(5, 15)
        started = self.now_us
        self._wait(380, 2600)
        answer_id = self._id()
        tokens_in = _SYSTEM_TOKENS + sum(seen.tokens for seen in shown)
        tokens_out += int(20 * self.random.random())
        self._add(
            "LlmCall",
            agent,
            causation_id=cause,
            provider="scripted",
            model=MODEL,
            parameters={
                "context": "newest first, up to token_budget",
                "temperature": "0",
                "token_budget": str(TOKEN_BUDGET),
            },
            messages=tuple(seen.event_id for seen in shown),
            answer_id=answer_id,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            cost_usd=round(tokens_in * _USD_IN + tokens_out * _USD_OUT, 8),
            latency_ms=(self.now_us - started) / 1000,
        )
        return shown, answer_id

    def judge(self, judge: Role, mad: Role, result: str, quality: float | None) -> None:
        """Say how the conversation ended."""
        self._wait(500, 5_000)
        self._add(
            "Outcome",
            judge,
            mad=mad,
            result=result,
            quality=quality,
            judged_by=judge,
            about="conversation",
            about_id=self.conversation_id,
        )
