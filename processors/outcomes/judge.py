"""The judge: folds the whole log and says which Outcome events it should hold and does not.

For each decision and rule the newest Outcome on the log (by place) is what is known. Where a rule
says otherwise by now, one more Outcome supersedes it; where it says the same, nothing is written.
So folding from offset zero again, or in other batches, ends with the same verdicts.

Memory: the newest `conversations_max` conversations, some 0.75 kB an event of theirs. What falls
out is judged no more, so a first run over a longer log wants a larger number.
"""

import heapq
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from madlog.processors.outcomes.facts import (
    WITHDRAWN,
    ConversationFacts,
    Decided,
    Judged,
    Result,
)
from madlog.processors.outcomes.rules import RULES, Finding, Now, chosen
from madlog.schemas import Outcome, Sender, derived_event_id
from madlog.topics import LogEvent

__all__ = ("CONVERSATIONS_MAX", "JUDGE", "TIMEOUT_S", "Judge")

CONVERSATIONS_MAX = 50_000
TIMEOUT_S = 300.0
JUDGE = Sender(name="judge", kind="system")


class Judge:
    """A pure fold over mad.conversations, mad.decisions and mad.outcomes."""

    def __init__(
        self,
        *,
        rules: Sequence[str] | None = None,
        timeout_s: float = TIMEOUT_S,
        conversations_max: int = CONVERSATIONS_MAX,
    ) -> None:
        """Raises UnknownRule."""
        self.rules = chosen() if rules is None else tuple(chosen(name)[0] for name in rules)
        self.forgotten = 0
        self._timeout_us = int(timeout_s * 1_000_000)
        self._conversations_max = conversations_max
        # The one that was touched last stands last.
        self._facts: OrderedDict[str, ConversationFacts] = OrderedDict()
        self._touched: dict[str, None] = {}
        self._newest_us = 0
        # (deadline, conversation) of turns that somebody should answer.
        self._deadlines: list[tuple[int, str]] = []

    def facts(self, conversation_id: str) -> ConversationFacts | None:
        """Return what is known of a conversation, None where it is not or no longer known."""
        return self._facts.get(conversation_id)

    def conversations(self) -> Iterator[ConversationFacts]:
        """Yield what is known of each conversation, the one touched last at the end."""
        return iter(self._facts.values())

    def fold(self, event: LogEvent) -> None:
        """Take up one event of any topic; topics may come in any order, each in its own."""
        name = str(event.fields["conversation_id"])
        facts = self._facts.get(name)
        if facts is None:
            facts = self._facts[name] = ConversationFacts(name)
        facts.fold(event)
        self._facts.move_to_end(name)
        self._touched[name] = None
        if event.fields["time_source"] != "synthetic":
            self._newest_us = max(self._newest_us, event.fields["occurred_at"])
            if event.kind == "Turn" and event.fields["recipients"]:
                deadline = event.fields["occurred_at"] + self._timeout_us
                if deadline >= self._newest_us:
                    heapq.heappush(self._deadlines, (deadline, name))
        if len(self._facts) > self._conversations_max:
            old, _ = self._facts.popitem(last=False)
            self._touched.pop(old, None)
            self.forgotten += 1

    def conclude(self) -> list[Outcome]:
        """Return the Outcomes that the log should hold and, as far as folded, does not.

        Of the conversations that were touched since the last call, or in which a time ran out.
        """
        while self._deadlines and self._deadlines[0][0] < self._newest_us:
            name = heapq.heappop(self._deadlines)[1]
            if name in self._facts:
                self._touched[name] = None
        touched, self._touched = self._touched, {}
        now = Now(self._newest_us, self._timeout_us, frozenset(self.rules))
        return [
            outcome for name in touched for outcome in self._conversation(self._facts[name], now)
        ]

    def _conversation(self, facts: ConversationFacts, now: Now) -> Iterator[Outcome]:
        if not facts.decisions:
            return
        for name in self.rules:
            judge = RULES[name].judge
            if judge is None:
                continue
            found = {one.decision.event_id: one for one in judge(facts, now)}
            for finding in found.values():
                held = facts.judged.get(finding.decision.event_id, {}).get(name)
                if held is None or _says(held) != (finding.result, finding.quality, finding.route):
                    yield _outcome(facts, name, finding, held)
            for decided in facts.decisions.values():
                held = facts.judged.get(decided.event_id, {}).get(name)
                if held is None or held.withdrawn or decided.event_id in found:
                    continue
                if decided.turn_id in facts.said:
                    yield _outcome(facts, name, _void(decided), held, withdrawn=True)


def _says(held: Judged) -> tuple[Result, float | None, str | None] | None:
    return None if held.withdrawn else (held.result, held.quality, held.route)


def _void(decided: Decided) -> Finding:
    return Finding(decided, "partial", decided.event_id, decided.occurred_at, decided.time_source)


def _outcome(
    facts: ConversationFacts,
    rule: str,
    finding: Finding,
    held: Judged | None,
    *,
    withdrawn: bool = False,
) -> Outcome:
    decided = finding.decision
    extra = {} if finding.route is None else {"route": finding.route}
    if withdrawn:
        extra[WITHDRAWN] = "true"
    # Made from what it says and what it follows, so that the same conclusion is the same event.
    said = "/".join(
        (
            rule,
            decided.event_id,
            held.event_id if held is not None else "",
            finding.result,
            repr(finding.quality),
            *extra.values(),
        )
    )
    event_id = derived_event_id(finding.evidence_id, f"{JUDGE.name}/{said}", 0)
    return Outcome(
        event_id=event_id,
        conversation_id=facts.conversation_id,
        correlation_id=decided.correlation_id,
        causation_id=finding.evidence_id,
        sender=JUDGE,
        occurred_at=finding.occurred_at,
        time_source=finding.time_source,  # type: ignore[arg-type]
        idempotency_key=event_id,
        subject=decided.subject,
        extra=extra,
        mad=decided.recipient,
        result=finding.result,
        quality=finding.quality,
        judged_by=rule,
        about="decision",
        about_id=decided.event_id,
    )
