"""A made-up month of a help desk: its customers, its policies, and what its tools do.

Everything comes from the seed: who asks what in which words, which day a policy changes, and
where the language model errs. Words, names and numbers are ours.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from random import Random
from typing import Any

from madlog.processors.acting import Answer as Told
from madlog.processors.imperator import Answer, Asked
from madlog.processors.lppm.cases import Act
from madlog.processors.ports import Action, Agent, Registry

__all__ = (
    "DESK",
    "OPS",
    "REGISTRY",
    "WATCH",
    "Ask",
    "Days",
    "Policy",
    "World",
    "arguments_of",
    "tools_of",
)

DESK, OPS, WATCH = "desk", "ops", "watch"


@dataclass(frozen=True)
class Kind:
    """One thing that customers ask: words for it, and the actions it takes in order."""

    name: str
    phrases: tuple[str, ...]
    actions: tuple[str, ...]
    weight: int
    first_day: int = 0


_KINDS = (
    Kind(
        "cancel",
        (
            "Please cancel my order {order}.",
            "I no longer want order {order}, cancel it please.",
            "Could you cancel {order} for me?",
            "Order {order} was a mistake, please cancel.",
        ),
        ("get_order", "cancel_order"),
        6,
    ),
    Kind(
        "where",
        (
            "Where is my order {order}?",
            "Order {order} has not arrived yet.",
            "When will {order} be here?",
            "Can you track the parcel of order {order}?",
        ),
        ("get_order", "track_parcel"),
        8,
    ),
    Kind(
        "refund",
        (
            "I want my money back for {order}.",
            "Please refund order {order}, it was broken.",
            "Order {order} came damaged, I want a refund.",
            "Refund {order} please.",
        ),
        ("get_order", "refund"),
        5,
    ),
    Kind(
        "invoice",
        (
            "I need the invoice of order {order}.",
            "Can I get a bill for {order}?",
            "Please send me the invoice for {order}.",
        ),
        ("get_order", "send_invoice"),
        4,
        first_day=6,
    ),
    Kind(
        "warranty",
        (
            "My device from order {order} stopped working, is it under warranty?",
            "I claim the warranty for {order}.",
            "The guarantee of order {order} should cover this repair.",
        ),
        ("get_order", "open_claim"),
        4,
        first_day=16,
    ),
)


@dataclass(frozen=True)
class Days:
    """What happens when, in days from 0; the last is how long the month is."""

    fraud_check: int = 11
    new_refund: int = 21
    length: int = 30


@dataclass(frozen=True)
class Policy:
    """What is right on a day."""

    day: int
    days: Days

    def kinds(self) -> list[Kind]:
        """Return what customers ask by now."""
        return [kind for kind in _KINDS if kind.first_day <= self.day]

    def actions(self, kind: Kind) -> tuple[str, ...]:
        """Return what a request takes: since a day orders are checked, and refunds are vouchers."""
        found = kind.actions
        if kind.name == "cancel" and self.day >= self.days.fraud_check:
            found = ("get_order", "check_fraud", "cancel_order")
        if kind.name == "refund" and self.day >= self.days.new_refund:
            found = ("get_order", "issue_voucher")
        return found


_WORDS = {
    "cancel": "cancelled",
    "where": "on its way",
    "refund": "refunded",
    "invoice": "in your mail",
    "warranty": "claimed",
}
_ACTIONS = {
    "get_order": Action("get_order", idempotent=True),
    "track_parcel": Action("track_parcel", idempotent=True),
    "check_fraud": Action("check_fraud", idempotent=True),
    "cancel_order": Action("cancel_order", risk="medium", preconditions=("after:get_order",)),
    "refund": Action("refund", risk="medium", preconditions=("once-per:order",)),
    "issue_voucher": Action("issue_voucher", risk="medium", preconditions=("once-per:order",)),
    "send_invoice": Action("send_invoice"),
    "open_claim": Action("open_claim"),
    "close_account": Action("close_account"),
}
_OPS_ACTIONS = ("restart_job", "rotate_keys", "get_status")
REGISTRY = Registry(
    [
        Agent(DESK, actions=frozenset(_ACTIONS), contracts=_ACTIONS),
        Agent(OPS, actions=frozenset(_OPS_ACTIONS)),
    ]
)
_ORDER = re.compile(r"[A-Z]\d{5}")


@dataclass
class Ask:
    """One conversation with the desk: what is asked, and how it stands."""

    name: str
    customer: str
    kind: Kind
    order: str
    opening: str
    thanks: str
    done: list[str] = field(default_factory=list)
    wrong: bool = False
    told: bool = False


class World:
    """The customers, the tools and the language model of the desk, as one seed makes them."""

    def __init__(self, seed: int, days: Days, error_rate: float = 0.005) -> None:
        self.days = days
        self.day = 0
        self.asks: dict[str, Ask] = {}
        self._random = Random(seed)
        self._error_rate = error_rate

    @property
    def policy(self) -> Policy:
        """What is right today."""
        return Policy(self.day, self.days)

    def opened(self, count: int) -> list[Ask]:
        """Return the conversations that customers begin today."""
        random, kinds = self._random, self.policy.kinds()
        found = []
        for _ in range(count):
            (kind,) = random.choices(kinds, [one.weight for one in kinds])
            order = f"{random.choice('ABCDEFGH')}{random.randrange(10_000, 100_000)}"
            ask = Ask(
                f"day-{self.day:02}-{len(self.asks):06}",
                f"customer-{random.randrange(5_000)}",
                kind,
                order,
                random.choice(kind.phrases).format(order=order),
                random.choice(("ACK", "ACK", "Thank you!", "Great, thanks a lot.")),
            )
            self.asks[ask.name] = found_ask = ask
            found.append(found_ask)
        return found

    def chores(self, count: int) -> Iterator[tuple[str, str, str, str]]:
        """Yield what machines say today: conversation, sender, recipient, text.

        Most are heartbeats to an agent that is not registered; the rest are commands to ops.
        """
        for number in range(count):
            to, text = WATCH, self._random.choice(("HRU?", "ACK", "ACK"))
            if number % 8 == 0:
                job = self._random.randrange(200)
                to = OPS
                text = self._random.choice((f"EXECUTE: restart_job J{job}", "EXECUTE: get_status"))
            yield f"{to}-{self.day:02}-{number % 40:02}", f"monitor-{number % 7}", to, text

    async def run(self, agent: str, action: str, arguments: str, key: str) -> Told:
        """Do an action of an agent; `key` names the act, so that one is done once."""
        given = json.loads(arguments)
        if agent == OPS:
            return Told(True, result='{"state":"ok"}')
        return tools_of(self.policy, action, given.get("order") or given.get("parcel"))

    def settled(self, conversation: str, actions: Sequence[str]) -> bool:
        """Tell whether what was done for a customer is what today's policy asks for."""
        ask = self.asks[conversation]
        return tuple(actions) == self.policy.actions(ask.kind)

    def answer(self, asked: Asked) -> Answer | None:
        """Answer as the desk's language model: as the policy says, now and then otherwise."""
        if asked.agent.name == OPS:
            return _operated(asked.text)
        ask = self.asks.get(asked.conversation_id)
        known = {"provider": "script", "model": "desk-1", "tokens_in": _tokens(asked.past)}
        if ask is None:
            return None
        if asked.text == "ACK":
            return Answer.says("ACK", tokens_out=1, **known)
        ran = [act for act in asked.past if act.action and act.answer and act.answer.ok]
        wanted = self.policy.actions(ask.kind)
        left = _left(wanted, [act.action or "" for act in ran])
        if ask.told or not left:
            words = "You are welcome." if ask.told else _closing(ask)
            return Answer.says(words, tokens_out=len(words) // 4, **known)
        action = left[0]
        if self._errs(asked.decision_id):
            action = next(one for one in sorted(_ACTIONS) if one != action)
        return Answer.acts(action, arguments_of(action, ask.order, ran), tokens_out=20, **known)

    def _errs(self, decision_id: str) -> bool:
        digest = blake2b(decision_id.encode(), digest_size=8, person=b"errs").digest()
        return int.from_bytes(digest, "big") / 2**64 < self._error_rate


def _operated(text: str) -> Answer:
    """Answer as the language model of ops, which only audits ask: what the form says."""
    known = {"provider": "script", "model": "ops-1", "tokens_in": 120, "tokens_out": 5}
    command, _, rest = text.removeprefix("EXECUTE:").strip().partition(" ")
    if text.startswith("EXECUTE:"):
        return Answer.acts(command, {"args": rest.split()} if rest else {}, **known)
    return Answer.says("ACK" if text == "ACK" else "All is well here.", **known)


def _left(wanted: Sequence[str], done: Sequence[str]) -> list[str]:
    return [action for action in wanted if action not in done]


def _tokens(past: Sequence[Act]) -> int:
    return 300 + sum(len(act.said) // 4 + 30 for act in past)


def _closing(ask: Ask) -> str:
    return f"Order {ask.order} is {_WORDS[ask.kind.name]}."


def arguments_of(action: str, order: str, ran: Sequence[Act]) -> dict[str, Any]:
    """Return an action's arguments: the order as it was named, the parcel as it was looked up."""
    looked_up: Mapping[str, Any] = next(
        (act.answer.value for act in ran if act.action == "get_order" and act.answer), {}
    )
    if action == "track_parcel":
        return {"parcel": looked_up.get("parcel", order)}
    if action in ("refund", "issue_voucher"):
        return {"amount": looked_up.get("amount", 0), "order": order}
    return {"order": order}


def tools_of(policy: Policy, action: str, subject: str | None) -> Told:
    """Return what a tool of the desk answers."""
    number = sum(map(ord, subject or ""))
    if action == "get_order":
        if not _ORDER.fullmatch(subject or ""):
            return Told(False, error="there is no such order")
        found = {
            "amount": number % 90 + 10,
            "order": subject,
            "parcel": f"P{number * 37 % 100_000}",
        }
        return Told(True, result=json.dumps(found))
    if action == "cancel_order":
        return Told(True, result=json.dumps({"cancelled": True, "order": subject}))
    if action == "refund" and policy.day >= policy.days.new_refund:
        return Told(False, error="refunds are vouchers now: issue_voucher")
    return Told(True, result=json.dumps({"done": action, "subject": subject}))
