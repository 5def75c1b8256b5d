"""The scenes that the refund team plays: what is asked, who hands it on, how it ends."""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

from madlog.mads.demo._stage import Stage, tokens
from madlog.mads.demo.team import Role

__all__ = ("SCENES", "Case", "duplicate", "new_case")

_ITEMS = (
    "espresso machine",
    "desk lamp",
    "rucksack",
    "keyboard",
    "rain jacket",
    "headphones",
    "kettle",
    "bicycle light",
    "office chair",
    "water filter",
    "tent",
    "wall clock",
)
_CUSTOMERS = (
    "Ms Weber",
    "Mr Okafor",
    "Ms Lindqvist",
    "Mr Rossi",
    "Ms Novak",
    "Mr Tanaka",
    "Ms Dubois",
    "Mr Haddad",
    "Ms Silva",
    "Mr Kowalski",
)
_REASONS = (
    "arrived broken",
    "never arrived",
    "is the wrong size",
    "stopped working",
    "has parts missing",
    "is not what the page showed",
)
_REQUESTS = (
    "{customer} wants the money back for order {order}: the {item} {reason}. Can you see to it?",
    "Please look at order {order}. The {item} {reason} and {customer} asks for a refund.",
    "Order {order}, {customer}: the {item} {reason}. She would like EUR {amount} back, please.",
    "I have {customer} on the phone. The {item} of order {order} {reason}. What can we do?",
)
_QUESTIONS = (
    "@knowledge how long may a customer of ours keep a {item} before sending it back?",
    "Does anybody know what we tell customers whose {item} {reason}? @knowledge",
    "@knowledge where is the page on refunds for a {item} that {reason}? {customer} asks.",
)
_CLAUSES = (
    "Goods may be returned within 30 days of delivery, in any packing that protects them.",
    "The money goes back by the way it came, never in cash and never to another account.",
    "Goods that arrive broken are refunded in full, with what their return costs.",
    "Orders of a company follow its own contract where that says something else.",
    "Opened software, food and goods made to order are not taken back unless they are faulty.",
    "A bank may take up to five working days until the money is seen on the account.",
)
_REFUNDED = "Refunded EUR {amount} for order {order}, reference {reference}."


class Case(NamedTuple):
    """What one conversation is about."""

    order: str
    amount: float
    item: str
    customer: str
    reason: str
    days: int

    @property
    def values(self) -> dict[str, Any]:
        """The case as the values of phrases."""
        whole = self.amount == int(self.amount)
        return {
            "order": self.order,
            "amount": f"{self.amount:.0f}" if whole else f"{self.amount:.2f}",
            "item": self.item,
            "customer": self.customer,
            "reason": self.reason,
            "days": str(self.days),
        }


def new_case(stage: Stage, order: int) -> Case:
    """Draw a case from the stage's randomness."""
    random = stage.random
    return Case(
        str(order),
        round(8 + 420 * random.random() ** 2, 2),
        random.choice(_ITEMS),
        random.choice(_CUSTOMERS),
        random.choice(_REASONS),
        2 + int(27 * random.random()),
    )


def _pay(stage: Stage, case: Case, to: Role) -> bool:
    """Let payments settle a refund: the scripted model pays what it sees no refund of."""
    shown, answer_id = stage.ask_model("payments")
    if any(seen.refunded == case.order for seen in shown):
        stage.say(
            "payments",
            "Order {order} has been refunded already, EUR {amount}: the bank may need five days.",
            to,
            intent="RESPONSE",
            event_id=answer_id,
            **case.values,
        )
        return False
    amount = int(case.amount) if case.amount == int(case.amount) else case.amount
    reference = f"R-{stage.random.getrandbits(32):08x}"
    stage.run(
        "payments",
        "refund",
        {"amount_eur": amount, "order_id": case.order},
        {"amount_eur": amount, "order_id": case.order, "reference": reference, "status": "paid"},
        event_id=answer_id,
        preconditions=("the order is paid", "the terms allow a refund"),
    )
    stage.say(
        "payments",
        _REFUNDED,
        to,
        intent="RESPONSE",
        refunded=case.order,
        reference=reference,
        **case.values,
    )
    return True


def _look_up(stage: Stage, case: Case) -> None:
    """Let front-desk ask orders what it knows of the order."""
    asked = stage.say(
        "front-desk",
        "@orders COMMAND: get_order order_id={order}",
        intent="REQUEST",
        **case.values,
    )
    order: dict[str, Any] = {
        "delivered_days_ago": case.days,
        "item": case.item,
        "order_id": case.order,
        "paid_by": "card",
        "total_eur": case.amount,
    }
    if stage.random.random() < 0.06:
        stage.run("orders", "get_order", {"order_id": case.order}, None, error="timed out")
        stage.say(
            "orders",
            "FAIL get_order timed out for order {order}, trying again #error",
            "front-desk",
            intent="ERROR",
            **case.values,
        )
    stage.run("orders", "get_order", {"order_id": case.order}, order)
    stage.say(
        "orders",
        "Order {order}: {item}, EUR {amount}, delivered {days} days ago, paid by card.",
        "front-desk",
        intent="RESPONSE",
        cause=asked,
        **case.values,
    )


def _ask_terms(stage: Stage, case: Case, answer: str) -> None:
    """Let front-desk ask policy whether the terms allow a refund."""
    stage.say(
        "front-desk",
        "@policy the {item} of order {order} {reason}, {days} days after delivery: may we refund?",
        intent="REQUEST",
        **case.values,
    )
    if stage.random.random() < 0.4:
        _, answer_id = stage.ask_model("policy")
        stage.say(
            "policy", answer, "front-desk", intent="RESPONSE", event_id=answer_id, **case.values
        )
    else:
        stage.run("policy", "check_policy", {"days": case.days, "reason": case.reason}, {"ok": 1})
        stage.say("policy", answer, "front-desk", intent="RESPONSE", **case.values)


def _request(stage: Stage, case: Case) -> str:
    """Let maria bring the request in, at times with a photograph."""
    files: tuple[dict[str, Any], ...] = ()
    if stage.random.random() < 0.18:
        digest = hashlib.sha256(f"photograph of {case.order}".encode()).hexdigest()
        photo = {
            "content_class": "fixed",
            "text": None,
            "language": None,
            "uri": f"blob:sha256:{digest}",
            "sha256": digest,
            "size": 180_000 + stage.random.getrandbits(18),
            "media_type": "image/jpeg",
        }
        files = (photo,)
    phrase = stage.random.choice(_REQUESTS)
    turn = stage.say("maria", phrase, "front-desk", intent="INITIATE", files=files, **case.values)
    if stage.random.random() < 0.5:
        stage.ack("front-desk", "maria", turn)
    return turn


def _close(stage: Stage, case: Case, phrase: str, result: str, quality: float) -> None:
    """Let front-desk answer maria, who judges how it went."""
    _, answer_id = stage.ask_model("front-desk")
    turn = stage.say(
        "front-desk", phrase, "maria", intent="RESPONSE", event_id=answer_id, **case.values
    )
    if stage.random.random() < 0.6:
        stage.ack("maria", "front-desk", turn)
    stage.judge("maria", "front-desk", result, quality)


def _refund(stage: Stage, case: Case) -> None:
    stage.create("Refund (scripted)", "maria", "front-desk", "orders", "policy", "payments")
    _request(stage, case)
    _look_up(stage, case)
    _ask_terms(stage, case, "Yes: goods that do not work are refunded in full within 30 days.")
    stage.say(
        "front-desk",
        "@payments COMMAND: refund order_id={order} amount_eur={amount}",
        intent="REQUEST",
        **case.values,
    )
    _pay(stage, case, "front-desk")
    done = "EUR {amount} are on their way to {customer} for order {order}."
    _close(stage, case, done, "success", 0.95)


def _asked_again(stage: Stage, case: Case) -> None:
    _refund(stage, case)
    stage.say(
        "maria",
        "{customer} does not see the money for order {order} yet. @payments can you check?",
        intent="REQUEST",
        **case.values,
    )
    _pay(stage, case, "maria")


def _approved(stage: Stage, case: Case) -> None:
    case = case._replace(amount=round(500 + case.amount, 2))
    team: tuple[Role, ...] = ("maria", "front-desk", "orders", "payments", "supervisor")
    stage.create("Large refund (scripted)", *team)
    _request(stage, case)
    _look_up(stage, case)
    stage.say(
        "front-desk",
        "@supervisor EUR {amount} for order {order} is above my limit, please take it over.",
        intent="REQUEST",
        **case.values,
    )
    stage.join("supervisor", "jonas")
    asked = stage.say(
        "supervisor",
        "@jonas may order {order} be refunded with EUR {amount}? The {item} {reason}.",
        intent="REQUEST",
        **case.values,
    )
    stage.say("jonas", "OK", "supervisor", intent="RESPONSE", cause=asked)
    stage.run("supervisor", "approve", {"by": "jonas", "order_id": case.order}, {"approved": True})
    stage.say(
        "supervisor",
        "@payments COMMAND: refund order_id={order} amount_eur={amount}",
        intent="REQUEST",
        **case.values,
    )
    _pay(stage, case, "supervisor")
    stage.leave("jonas")
    done = "jonas approved it: EUR {amount} for order {order} are on their way."
    _close(stage, case, done, "success", 0.9)


def _refused(stage: Stage, case: Case) -> None:
    case = case._replace(days=case.days + 31)
    stage.create("Refund (scripted)", "maria", "front-desk", "orders", "policy")
    _request(stage, case)
    _look_up(stage, case)
    _ask_terms(stage, case, "No: {days} days are past the 30 that the terms give.")
    refused = "Order {order} was delivered {days} days ago, so there is no refund, I am sorry."
    _close(stage, case, refused, "partial", 0.6)


def _question(stage: Stage, case: Case) -> None:
    stage.create("Question (scripted)", "maria", "knowledge", "front-desk")
    phrase = stage.random.choice(_QUESTIONS)
    stage.say("maria", phrase, intent="REQUEST", **case.values)
    words = f"{case.item} {case.reason}"
    stage.run("knowledge", "search_articles", {"words": words}, {"articles": ["returns-2026"]})
    _, answer_id = stage.ask_model("knowledge", 90)
    turn = stage.say(
        "knowledge",
        "Within 30 days of delivery, and always when it is our fault. The page is "
        "https://shop.example/terms/returns#period and covers every {item}.",
        "maria",
        intent="RESPONSE",
        event_id=answer_id,
        **case.values,
    )
    if stage.random.random() < 0.5:
        stage.say("maria", "Thank you, that helps.", "knowledge", intent="TERMINATE")
    else:
        stage.ack("maria", "knowledge", turn)
    stage.judge("maria", "knowledge", "success", 0.9)


def _health(stage: Stage, case: Case) -> None:
    stage.create("Health (scripted)", "jonas", "supervisor", "orders", "payments")
    count, ms = str(1 + stage.random.getrandbits(3)), str(40 + stage.random.getrandbits(7))
    for agent in ("orders", "payments", "supervisor"):
        stage.say("jonas", f"@{agent} HRU?", intent="REQUEST")
        stage.say(
            agent,
            "OK, {count} waiting, {ms} ms a turn #status #metric",
            "jonas",
            intent="RESPONSE",
            count=count,
            ms=ms,
        )
    if stage.random.random() < 0.5:
        stage.say("jonas", "BRB", "supervisor")


def _trouble(stage: Stage, case: Case) -> None:
    stage.create("Trouble (scripted)", "maria", "front-desk", "orders", "supervisor")
    _request(stage, case)
    stage.say(
        "front-desk", "@orders COMMAND: get_order order_id={order}", intent="REQUEST", **case.values
    )
    for error in ("timed out", "no connection to the shop"):
        stage.run("orders", "get_order", {"order_id": case.order}, None, error=error)
    stage.say(
        "orders",
        "FAIL get_order failed twice for order {order} #error\n"
        "```text\nConnectionError: shop.example does not answer\n```\n",
        "front-desk",
        intent="ERROR",
        **case.values,
    )
    stage.say(
        "front-desk",
        "@supervisor I cannot see order {order}, please take over.",
        intent="REQUEST",
        **case.values,
    )
    stage.leave("front-desk")
    stage.run("supervisor", "assign", {"order_id": case.order, "to": "maria"}, {"assigned": True})
    turn = stage.say(
        "supervisor",
        "The shop does not answer for order {order}. @maria please call {customer} back tomorrow.",
        intent="RESPONSE",
        **case.values,
    )
    stage.ack("maria", "supervisor", turn)
    stage.judge("maria", "front-desk", "failure", 0.2)


def _report(stage: Stage, case: Case) -> None:
    stage.create("Report (scripted)", "jonas", "supervisor", "payments")
    stage.say("jonas", "@supervisor how did the day go? Numbers please.", intent="REQUEST")
    stage.say(
        "supervisor",
        "@payments SQL: select count(*) from refunds where paid_on = current_date",
        intent="REQUEST",
    )
    count = str(20 + stage.random.getrandbits(6))
    stage.say("payments", "{count} refunds today", "supervisor", intent="RESPONSE", count=count)
    _, answer_id = stage.ask_model("supervisor", 60)
    stage.say(
        "supervisor",
        "A quiet day: {count} refunds, none above the limit without your OK. #status",
        "jonas",
        intent="RESPONSE",
        event_id=answer_id,
        count=count,
    )
    stage.say("jonas", "FYI I am out tomorrow, maria decides.", "supervisor", intent="TERMINATE")


def duplicate(stage: Stage, case: Case) -> None:
    """Refund one order twice, for the reason that real agents do.

    The terms that knowledge quotes fill the token budget, so that the first refund's result is no
    longer in what the model is shown when maria asks again.
    """
    stage.create("Refund (scripted)", "maria", "front-desk", "payments", "knowledge")
    handed_on = "@payments COMMAND: refund order_id={order} amount_eur={amount}"
    again = "{customer} called: no money for order {order} yet, EUR {amount}. Please see to it."
    stage.say(
        "maria",
        "The {item} of order {order} {reason}: {customer} wants her EUR {amount} back.",
        "front-desk",
        intent="INITIATE",
        **case.values,
    )
    stage.say("front-desk", handed_on, intent="REQUEST", **case.values)
    _pay(stage, case, "front-desk")
    stage.say("maria", "@knowledge I need our terms for returns, all of them.", intent="REQUEST")
    still_to_come = [len(phrase.format(**case.values)) for phrase in (again, handed_on)]
    room = stage.tokens_free - sum(tokens(size) for size in still_to_come)
    stage.say("knowledge", _terms(room - 4), "maria", intent="RESPONSE")
    stage.say("maria", again, "front-desk", intent="REQUEST", **case.values)
    stage.say("front-desk", handed_on, intent="REQUEST", **case.values)
    _pay(stage, case, "front-desk")


def _terms(size_tokens: int) -> str:
    """Return the shop's terms, as many clauses as make that many tokens."""
    size, text, number = (size_tokens - 1) * 4, "", 0
    while len(text) < size:
        number += 1
        text += f"Clause {number}: {_CLAUSES[number % len(_CLAUSES)]} "
    return text[: size - 1].rstrip(" .") + "."


SCENES: tuple[tuple[Callable[[Stage, Case], None], int], ...] = (
    (_refund, 46),
    (_asked_again, 9),
    (_approved, 8),
    (_refused, 11),
    (_question, 11),
    (_health, 6),
    (_trouble, 6),
    (_report, 3),
)
