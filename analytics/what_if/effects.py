"""What a blocked call had been on the record: a repeat, a failure, in a failed case, or legitimate.

Two calls do the same where `madlog ask duplicate-effects` says so: the same action with the same
arguments, and where money goes out, for the same order or payment whatever the amounts are.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from madlog.analytics.what_if.acts import Act, Acts
from madlog.processors.lppm.values import canonical

__all__ = ("VERDICTS", "Verdict", "amount_of", "repeats", "verdict_of")

Verdict = Literal["duplicate", "failed", "unsure", "legitimate"]
VERDICTS: Final[Mapping[Verdict, str]] = {
    "duplicate": "the same had been done before, with success",
    "failed": "its tool said that it failed",
    "unsure": "nobody knows what it came to, or its conversation failed",
    "legitimate": "it had success, once",
}
# As analytics/sql/duplicate-effects.sql has them; a test holds the two to the same answers.
_LOOKS = re.compile(
    r"(get|list|search|find|look|lookup|read|fetch|check|show|view|query|describe|count"
    r"|calculate|think|validate|verify|health|ping)(_|-|$)"
)
_SPENDS = re.compile(r"refund|pay|charge|credit|debit|compensat|cancel")
_IDS = re.compile(r"(order|refund|payment|invoice|charge|transaction)(_?(id|number|no))?$")
_AMOUNTS = ("amount", "amount_usd", "amount_eur")


def _effect(act: Act) -> tuple[str, str] | None:
    """Return what an act does to the world, None where it only looks."""
    action = act.action.lower()
    if _LOOKS.match(action):
        return None
    if act.arguments is None:
        return act.action, act.text.strip()
    thing = dict(act.arguments)
    if _SPENDS.search(action):
        ids = {name: value for name, value in thing.items() if _IDS.match(name.lower())}
        thing = ids or thing
    return act.action, canonical({name: _plain(value) for name, value in thing.items()})


def _plain(value: Any) -> Any:
    return value if isinstance(value, dict | list) else str(value)


def repeats(acts: Acts) -> frozenset[str]:
    """Return the calls that did again, with success, what had been done with success before."""
    done: dict[tuple[str, str], int] = {}
    again = set()
    for act in acts.all:
        effect = _effect(act) if act.ok else None
        if effect is None:
            continue
        # Both ran at once where the first had not answered yet: the second is the repeat.
        if effect in done:
            again.add(act.event_id)
        done.setdefault(effect, act.number)
    return frozenset(again)


def verdict_of(act: Act, again: frozenset[str], failed_conversations: frozenset[str]) -> Verdict:
    """Return what a call had been on the record."""
    if act.event_id in again:
        return "duplicate"
    if act.ok is False:
        return "failed"
    if act.ok is None or act.conversation_id in failed_conversations:
        return "unsure"
    return "legitimate"


def amount_of(act: Act) -> tuple[str, float] | None:
    """Return the amount of money that a call names, by its argument's name."""
    for name in _AMOUNTS:
        value = (act.arguments or {}).get(name)
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            continue
        try:
            amount = float(value)
        except ValueError:
            continue
        if math.isfinite(amount):
            return name, amount
    return None
