"""The rules by which an outcome is known: pure functions over one conversation's facts.

An outcome says how the handling of a turn ended, not whether the route was right: that is what
labels.py concludes from it. Rules that judge by what followed leave out decisions in shadow mode,
because nothing followed from those.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from madlog.processors.outcomes.errors import UnknownRule
from madlog.processors.outcomes.facts import ConversationFacts, Decided, Judged, Result, Said

__all__ = ("OUTSIDE", "RULES", "Finding", "Now", "Rule", "chosen", "rule_of")


class Finding(NamedTuple):
    """What a rule says of one decision, and the event that shows it."""

    decision: Decided
    result: Result
    evidence_id: str
    occurred_at: int
    time_source: str
    quality: float | None = None
    route: str | None = None


class Now(NamedTuple):
    """How far event time has come on this log, how long an answer may take, who is believed."""

    newest_us: int
    timeout_us: int
    rules: frozenset[str]


_Judge = Callable[[ConversationFacts, Now], Iterator[Finding]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One way to know an outcome; `weight` says how much a learner should make of it.

    `judge` is None where another part writes the outcomes. Of several findings about a decision
    the last one counts.
    """

    name: str
    weight: float
    meaning: str
    judge: _Judge | None = None


_TIERS = {"dtr": 0, "lppm": 1, "imperator": 2}
# Such a decision handed the turn up and settled nothing that could be corrected.
_HANDED_UP = ("imperator", "process")
_BY_SIGN: dict[int, Result] = {1: "success", -1: "failure"}


def _acted(decided: Decided) -> bool:
    """Tell whether what followed is what the decision led to.

    In shadow nothing followed from it. In retrospect what followed was the language model's doing:
    what a cheaper tier would have done instead is judged by the record.
    """
    if decided.mode == "retrospective":
        return decided.tier == "imperator"
    return decided.mode != "shadow"


def _of(
    facts: ConversationFacts,
    turn_id: str | None,
    recipient: str,
    result: Result,
    evidence: Said,
) -> Iterator[Finding]:
    """Yield the same finding for each decision that acted on a turn for a recipient."""
    if turn_id is None:
        return
    for decided in facts.decided(turn_id, recipient):
        if _acted(decided):
            yield Finding(
                decided, result, evidence.event_id, evidence.occurred_at, evidence.time_source
            )


def _answered(facts: ConversationFacts, turn: Said) -> Said | None:
    """Return the agent's turn that a turn reacts to."""
    answer = facts.said.get(turn.answers) if turn.answers is not None else None
    return answer if answer is not None and answer.by_agent else None


def _asker(facts: ConversationFacts, answer: Said) -> str | None:
    """Return who asked for what an agent answered."""
    turn = facts.said.get(answer.answers) if answer.answers is not None else None
    return turn.sender if turn is not None else None


def _thumbs(facts: ConversationFacts, now: Now) -> Iterator[Finding]:
    for turn in facts.turns():
        if turn.marks.thumb and turn.sender_kind == "human" and (answer := _answered(facts, turn)):
            result = _BY_SIGN[turn.marks.thumb]
            yield from _of(facts, answer.answers, answer.sender, result, turn)


def _report(facts: ConversationFacts, now: Now) -> Iterator[Finding]:
    for turn in facts.turns():
        if turn.marks.report and turn.by_agent:
            yield from _of(facts, turn.answers, turn.sender, _BY_SIGN[turn.marks.report], turn)


def _correction(facts: ConversationFacts, now: Now) -> Iterator[Finding]:
    for decided in facts.decisions.values():
        if decided.route in _HANDED_UP:
            continue
        for other in facts.decided(decided.turn_id, decided.recipient):
            # A candidate that decided beside corrects nobody: it is what is to be judged.
            if other.mode == "shadow" and other.tier != "imperator":
                continue
            if other.route in _HANDED_UP:
                # Who hands a turn up does not say what would have been right.
                continue
            if _TIERS.get(other.tier, 0) > _TIERS.get(decided.tier, 0):
                same = other.route == decided.route
                yield Finding(
                    decided,
                    "success" if same else "failure",
                    other.event_id,
                    other.occurred_at,
                    other.time_source,
                    route=other.route,
                )


def _tool(facts: ConversationFacts, now: Now) -> Iterator[Finding]:
    failed: set[tuple[str, str]] = set()
    for said in facts.said.values():
        call = facts.said.get(said.call) if said.kind == "ToolResult" and said.call else None
        if call is None or call.kind != "ToolCall" or call.answers is None:
            continue
        key = (call.answers, call.sender)
        if not said.ok:
            failed.add(key)
        # A failure that was made good cost something: partial.
        good: Result = "partial" if key in failed else "success"
        yield from _of(facts, *key, good if said.ok else "failure", said)


def _error(facts: ConversationFacts, now: Now) -> Iterator[Finding]:
    for turn in facts.turns():
        if turn.marks.error and turn.by_agent:
            yield from _of(facts, turn.answers, turn.sender, "failure", turn)


def _timeout(facts: ConversationFacts, now: Now) -> Iterator[Finding]:
    for turn in facts.turns():
        marks = turn.marks
        if turn.time_source == "synthetic" or marks.ack or marks.thumb or marks.ends:
            continue
        until = turn.occurred_at + now.timeout_us
        for name in turn.recipients:
            first = next(iter(facts.answers(turn.event_id, name)), None)
            if first is None and now.newest_us > until:
                found = _of(facts, turn.event_id, name, "failure", turn)
            elif first is not None and first.occurred_at > until:
                found = _of(facts, turn.event_id, name, "partial", first)
            else:
                continue
            # Who takes note of something owes no answer.
            yield from (one for one in found if one.decision.route != "ack")


def _newest_end(facts: ConversationFacts, now: Now) -> Judged | None:
    ends = (
        one
        for name, one in facts.ends.items()
        if not one.withdrawn and (name not in RULES or name in now.rules)
    )
    return max(ends, key=lambda one: one.order, default=None)


def _credit(facts: ConversationFacts, now: Now) -> Iterator[Finding]:
    end = _newest_end(facts, now)
    if end is None:
        return
    chain = _chain(facts, end.cause)
    found = [
        decided
        for decided in facts.decisions.values()
        if _acted(decided) and (chain is None or (decided.turn_id, decided.recipient) in chain)
    ]
    for decided in found:
        yield Finding(
            decided,
            end.result,
            end.event_id,
            end.occurred_at,
            end.time_source,
            quality=round(1 / len(found), 6),
        )


def _chain(facts: ConversationFacts, end: str | None) -> set[tuple[str, str]] | None:
    """Return (turn, recipient) of what led to an event; None where no event is named."""
    if end is None:
        return None
    if end in facts.decisions:
        decided = facts.decisions[end]
        found = {(decided.turn_id, decided.recipient)}
        end = decided.turn_id
    else:
        found = set()
    while end is not None and (said := facts.said.get(end)) is not None:
        if said.answers is not None:
            found.add((said.answers, said.sender))
        end = said.cause
    return found


def _ack(facts: ConversationFacts, now: Now) -> Iterator[Finding]:
    for turn in facts.turns():
        answer = _answered(facts, turn) if turn.marks.ack else None
        if answer is not None and _asker(facts, answer) == turn.sender:
            yield from _of(facts, answer.answers, answer.sender, "success", turn)


def _repeat(facts: ConversationFacts, now: Now) -> Iterator[Finding]:
    asked: dict[tuple[str, str, bytes], str] = {}
    for turn in facts.turns():
        if turn.marks.asked is None:
            continue
        for name in turn.recipients:
            key = (turn.sender, name, turn.marks.asked)
            yield from _of(facts, asked.get(key), name, "failure", turn)
            asked[key] = turn.event_id


def _clarification(facts: ConversationFacts, now: Now) -> Iterator[Finding]:
    called: set[tuple[str | None, str]] = set()
    for said in facts.said.values():
        if said.kind == "ToolCall":
            called.add((said.answers, said.sender))
        elif said.kind != "Turn":
            continue
        elif said.by_agent and said.marks.asks and (said.answers, said.sender) not in called:
            yield from _of(facts, said.answers, said.sender, "partial", said)
        elif said.marks.puzzled and (answer := _answered(facts, said)):
            yield from _of(facts, answer.answers, answer.sender, "partial", said)


# The strongest first. The weights are our estimate of how far each can be trusted, no measurement.
_ORDERED = (
    Rule("thumbs", 1.0, "a person's turn that is only 👍, 👎, +1 or -1, or #good, #bad", _thumbs),
    Rule("reward", 1.0, "the reward that an imported run carries, about its conversation"),
    Rule("report", 1.0, "the agent's own turn is tagged #done or #failed", _report),
    Rule("audit", 0.9, "an audit by the tier above; names the right route"),
    Rule(
        "correction",
        0.9,
        "a higher tier decided the same turn: the same way, or another way",
        _correction,
    ),
    Rule("tool", 0.7, "the results of the calls that followed", _tool),
    Rule("error", 0.7, "the agent answered with intent ERROR", _error),
    Rule("timeout", 0.7, "no answer in time; partial where one came late", _timeout),
    Rule("credit", 0.5, "its share in how the conversation ended", _credit),
    Rule("ack", 0.3, "who asked acknowledges the answer", _ack),
    Rule("repeat", 0.3, "who asked asks the same again", _repeat),
    Rule("clarification", 0.3, 'the answer was a question, or was met with "?"', _clarification),
)
RULES: dict[str, Rule] = {rule.name: rule for rule in _ORDERED}
# The first three are explicit; judges from outside come after them, before all that is concluded.
_EXPLICIT = 3
# Any other judge: a CSV, a program of the user's own.
OUTSIDE = Rule("outside", 0.9, "`madlog outcomes import`, or an Outcome of another program")


def rule_of(judged_by: str) -> tuple[int, Rule]:
    """Return (precedence, rule) of a judge, 0 the strongest; an unknown name is outside."""
    rank = {name: number for number, name in enumerate(RULES)}.get(judged_by)
    if rank is None:
        return _EXPLICIT, OUTSIDE
    return (rank if rank < _EXPLICIT else rank + 1), RULES[judged_by]


def chosen(text: str = "") -> tuple[str, ...]:
    """Return the rules that a setting names: `a,b` those only, `-a,-b` all but those, empty all.

    Raises UnknownRule.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if (rule := name.removeprefix("-")) not in RULES:
            raise UnknownRule(
                f"there is no rule {rule[:60]!r} for outcomes: use {', '.join(RULES)}, with - in "
                "front to leave one out"
            )
    wanted = [name for name in names if name[0] != "-"]
    left_out = {name[1:] for name in names if name[0] == "-"}
    return tuple(name for name in RULES if name not in left_out and name in (wanted or RULES))
