"""What Control events say, folded: who is stopped, what is overruled, which models are served.

A fold over mad.control in its order (one partition), as plain JSON, so that it can be the shared
state of a processor and comes out again from the log up to the Control event a Decision names.
An entry with a time ends by itself: `at` is the time of the event that is decided, never a clock.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from madlog.processors.errors import InvalidControl

__all__ = (
    "ALL",
    "COMMANDS",
    "NOTHING",
    "STAGES",
    "bucket",
    "flag",
    "fold",
    "overridden",
    "serving",
    "stopped",
)

ALL = "all"
# Where a roll-out stands: decides beside, decides this share of the conversations, is taken back.
STAGES: Final = ("shadow", "10", "50", "100", "back")
# stop, start: the kill switch of an agent, of a tier (target all), of an agent's tier.
# override: a route for all that goes to an agent; without a value it ends. flag: on, off.
# rollout: of a model (about_id) of a component (target). budget: what a name may use, see
# processors.acting. ask, approve, refuse, expire: a high-impact act (about_id: its Decision).
COMMANDS: Final = (
    "stop",
    "start",
    "override",
    "flag",
    "budget",
    "rollout",
    "ask",
    "approve",
    "refuse",
    "expire",
)
NOTHING: Final[Mapping[str, Any]] = {"stopped": {}, "overrides": {}, "flags": {}, "rollouts": {}}
_NO_ROLLOUT: Final[Mapping[str, Any]] = {"served": [], "candidate": None, "stage": None}


def fold(controls: Mapping[str, Any], fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what holds after one more Control event; raises InvalidControl, changing nothing."""
    command, target = fields["command"], fields["target"]
    if command not in COMMANDS:
        raise InvalidControl(
            f"control {fields['event_id']} says {command[:60]!r}: the commands are "
            + ", ".join(COMMANDS)
        )
    if command in ("stop", "start"):
        entry = _entry(fields, fields["reason"] or "") if command == "stop" else None
        return _with(controls, "stopped", f"{target}/{fields['tier'] or ALL}", entry)
    if command == "override":
        route = fields["value"]
        return _with(controls, "overrides", target, _entry(fields, route) if route else None)
    if command == "flag":
        if fields["value"] not in ("on", "off") or not fields["name"]:
            raise InvalidControl(
                f"control {fields['event_id']}: a flag has a name, and is on or off"
            )
        entry = _entry(fields, fields["value"])
        return _with(controls, "flags", f"{target}/{fields['name']}", entry)
    if command == "rollout":
        old = controls["rollouts"].get(target, _NO_ROLLOUT)
        return _with(controls, "rollouts", target, _rolled(old, fields))
    return controls


def stopped(controls: Mapping[str, Any], agent: str, tier: str, at: int) -> str | None:
    """Return why an agent's tier is stopped, None where it is not."""
    for key in (f"{agent}/{tier}", f"{agent}/{ALL}", f"{ALL}/{tier}", f"{ALL}/{ALL}"):
        reason = _now(controls["stopped"].get(key), at)
        if reason is not None:
            return f"{key} is stopped" + (f": {reason}" if reason else "")
    return None


def overridden(controls: Mapping[str, Any], agent: str, at: int) -> str | None:
    """Return the route that all that goes to an agent is to take, None where nobody said so."""
    return _now(controls["overrides"].get(agent), at) or _now(controls["overrides"].get(ALL), at)


def flag(controls: Mapping[str, Any], name: str, agent: str, at: int) -> bool | None:
    """Return whether a flag is on for an agent; None where nobody set it."""
    for target in (agent, ALL):
        value = _now(controls["flags"].get(f"{target}/{name}"), at)
        if value is not None:
            return value == "on"
    return None


def serving(
    controls: Mapping[str, Any], component: str, conversation_id: str
) -> tuple[str | None, str | None]:
    """Return the model that decides a conversation, and the one that decides beside it.

    Both are event_ids of ModelPublished, None where there is none. A candidate decides beside the
    served model wherever it does not decide itself, so that the two can be compared.
    """
    rollout = controls["rollouts"].get(component, _NO_ROLLOUT)
    served = rollout["served"][-1] if rollout["served"] else None
    candidate, stage = rollout["candidate"], rollout["stage"]
    if candidate is None:
        return served, None
    if stage != "shadow" and bucket(conversation_id) < int(stage):
        return candidate, None
    return served, candidate


def bucket(conversation_id: str) -> int:
    """Return a conversation's place 0..99 in roll-outs: a stable hash, the same everywhere."""
    digest = hashlib.blake2b(conversation_id.encode(), digest_size=8, person=b"rollout").digest()
    return int.from_bytes(digest, "big") % 100


def _entry(fields: Mapping[str, Any], value: str) -> dict[str, Any]:
    return {"value": value, "expires_at": fields["expires_at"]}


def _now(entry: Mapping[str, Any] | None, at: int) -> str | None:
    if entry is None or (entry["expires_at"] is not None and at >= entry["expires_at"]):
        return None
    return str(entry["value"])


def _with(
    controls: Mapping[str, Any], name: str, key: str, entry: Mapping[str, Any] | None
) -> Mapping[str, Any]:
    entries = {old: value for old, value in controls[name].items() if old != key}
    if entry is not None:
        entries[key] = entry
    return {**controls, name: entries}


def _rolled(old: Mapping[str, Any], fields: Mapping[str, Any]) -> Mapping[str, Any]:
    model, stage = fields["about_id"], fields["value"]
    if stage not in STAGES or model is None:
        raise InvalidControl(
            f"control {fields['event_id']}: a roll-out names a model and one of "
            + ", ".join(STAGES)
        )
    if stage == "100":
        served = [*(one for one in old["served"] if one != model), model]
        return {"served": served, "candidate": None, "stage": None}
    if stage != "back":
        return {**old, "candidate": model, "stage": stage}
    gone = {"candidate": None, "stage": None} if old["candidate"] == model else {}
    return {**old, **gone, "served": [one for one in old["served"] if one != model]}
