"""Preconditions: a small closed grammar, read when the registry file is, checked before each act.

once-per:ARG[+ARG…]     no call of this action with the same values had success before, in any
                        conversation; one that may have had success counts as if it had
after:ACTION            ACTION had success before in this conversation
not-after:ACTION        ACTION had no success before in this conversation
requires:ARG            the argument is given, and is not empty
argument:ARG OP NUMBER  OP is one of <= < >= > == !=, blanks do not count
argument:ARG in A,B,C   the argument is one of these texts
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, NamedTuple, Protocol

from madlog.processors.acting.errors import InvalidRule
from madlog.processors.lppm.values import canonical

__all__ = ("GRAMMAR", "Finding", "Happened", "OnceKey", "Past", "Rule", "key_of", "parse_rule")

GRAMMAR = (
    "once-per:ARG[+ARG…], after:ACTION, not-after:ACTION, requires:ARG, argument:ARG<=NUMBER "
    "(or < >= > == !=), argument:ARG in A,B"
)
_ARGUMENT = r"[A-Za-z_][A-Za-z0-9_.-]{0,127}"
_ONCE = re.compile(rf"once-per:({_ARGUMENT}(?:\+{_ARGUMENT})*)")
_AFTER = re.compile(rf"(not-after|after):({_ARGUMENT})")
_REQUIRES = re.compile(rf"requires:({_ARGUMENT})")
# The name is taken whole, so that its own hyphens and dots never begin an operator.
_BOUND = re.compile(
    rf"argument:({_ARGUMENT})\s*(<=|>=|==|!=|<|>)\s*(-?[0-9]{{1,18}}(?:\.[0-9]{{1,9}})?)"
)
_IN = re.compile(rf"argument:({_ARGUMENT})\s+in\s+(\S(?:.*\S)?)")
_COMPARE: Mapping[str, Callable[[Decimal, Decimal], bool]] = {
    "<=": lambda left, right: left <= right,
    "<": lambda left, right: left < right,
    ">=": lambda left, right: left >= right,
    ">": lambda left, right: left > right,
    "==": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
}
# What is known of an earlier call: success (or perhaps), under way, or neither.
Happened = Literal["done", "perhaps", "under-way", "never"]
OnceKey = tuple[str, tuple[str, ...], tuple[str, ...]]


class Finding(NamedTuple):
    """Why a rule does not hold now; `later`: it may hold when what is under way has ended."""

    reason: str
    later: bool = False


class Past(Protocol):
    """What rules may ask of the past, for one act and as it is now."""

    def succeeded(self, action: str) -> bool:
        """Tell whether an action had success before in this conversation."""

    def coming(self, action: str) -> bool:
        """Tell whether an earlier act of this conversation with this action is still to end."""

    def happened(self, key: OnceKey) -> Happened:
        """Tell what is known of other calls of an action with the same values."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One precondition; `action` is the other action that it speaks of, None where of none."""

    text: str
    check: Callable[[str, Mapping[str, Any], Past], Finding | None]
    action: str | None = None
    once: tuple[str, ...] | None = None


def parse_rule(text: str) -> Rule:
    """Return the rule that a text is; raises InvalidRule."""
    if match := _ONCE.fullmatch(text):
        names = tuple(match[1].split("+"))
        return Rule(text, _once(names), once=names)
    if match := _AFTER.fullmatch(text):
        return Rule(text, _after(match[2], wanted=match[1] == "after"), action=match[2])
    if match := _REQUIRES.fullmatch(text):
        return Rule(text, _requires(match[1]))
    if match := _BOUND.fullmatch(text):
        return Rule(text, _bound(match[1], match[2], Decimal(match[3])))
    if match := _IN.fullmatch(text):
        return Rule(text, _one_of(match[1], [one.strip() for one in match[2].split(",")]))
    raise InvalidRule(f"{text[:80]!r} is no precondition: write one of {GRAMMAR}")


def key_of(action: str, names: Sequence[str], given: Mapping[str, Any]) -> OnceKey | None:
    """Return what makes two calls the same, None where an argument is not given."""
    if any(given.get(name) in (None, "") for name in names):
        return None
    return action, tuple(names), tuple(_plain(given[name]) for name in names)


def _plain(value: Any) -> str:
    """Return a value as text: "4711" of a command and 4711 of a process are one order."""
    return value.strip() if isinstance(value, str) else canonical(value)


def _once(names: tuple[str, ...]) -> Callable[[str, Mapping[str, Any], Past], Finding | None]:
    def check(action: str, given: Mapping[str, Any], past: Past) -> Finding | None:
        key = key_of(action, names, given)
        if key is None:
            return Finding(f"{action} is not given {' and '.join(names)}")
        same = ", ".join(f"{name} {value[:60]}" for name, value in zip(names, key[2], strict=True))
        happened = past.happened(key)
        if happened == "never":
            return None
        if happened == "under-way":
            return Finding(f"another {action} for {same} is under way", later=True)
        how = "was done before" if happened == "done" else "may have been done before"
        return Finding(f"{action} for {same} {how}")

    return check


def _after(other: str, wanted: bool) -> Callable[[str, Mapping[str, Any], Past], Finding | None]:
    def check(action: str, given: Mapping[str, Any], past: Past) -> Finding | None:
        if past.coming(other) and not past.succeeded(other):
            return Finding(f"{other} is still to end in this conversation", later=True)
        if past.succeeded(other) is wanted:
            return None
        had = "had no success" if wanted else "had success"
        return Finding(f"{other} {had} before in this conversation")

    return check


def _requires(name: str) -> Callable[[str, Mapping[str, Any], Past], Finding | None]:
    def check(action: str, given: Mapping[str, Any], past: Past) -> Finding | None:
        there = given.get(name) not in (None, "")
        return None if there else Finding(f"{action} is not given {name}")

    return check


def _bound(
    name: str, sign: str, limit: Decimal
) -> Callable[[str, Mapping[str, Any], Past], Finding | None]:
    def check(action: str, given: Mapping[str, Any], past: Past) -> Finding | None:
        value = _number(given.get(name))
        if value is None:
            return Finding(f"{name} is no number")
        if _COMPARE[sign](value, limit):
            return None
        return Finding(f"{name} is {value:f}, which is not {sign} {limit:f}")

    return check


def _number(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = str(value).strip()
    # Digits with one sign and one point only: no 1_000, no 1e999, no digits of other scripts.
    if len(text) > 64 or not re.fullmatch(
        r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,2})?", text
    ):
        return None
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


def _one_of(
    name: str, wanted: Sequence[str]
) -> Callable[[str, Mapping[str, Any], Past], Finding | None]:
    def check(action: str, given: Mapping[str, Any], past: Past) -> Finding | None:
        value = given.get(name)
        if value is not None and _plain(value) in wanted:
            return None
        return Finding(f"{name} is none of {', '.join(wanted)}")

    return check
