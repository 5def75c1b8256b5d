"""What is learned from a log while it grows: how things ended, what history would have been, more.

How things ended is judged of what acted, and of what candidates decided beside, by what was done.
All read the whole log in their order and add to it by ids and keys that come from what they say,
so a second one at work, or the same after a crash, adds nothing twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from madlog.processors.imperator.shadow import ShadowJudge
from madlog.processors.outcomes import Judge, judge_log
from madlog.processors.retrospect import Retrospection, Retrospector, Settled
from madlog.processors.rollout import Rollout, RolloutSettings
from madlog.schemas import Outcome
from madlog.topics import EventLog, Vector

__all__ = ("Learned", "Learning")


@dataclass(slots=True)
class Learned:
    """How much was added to a log."""

    outcomes: int = 0
    retrospective_conversations: int = 0
    retrospective_continued: int = 0
    retrospective_decisions: int = 0
    models: int = 0
    rollout_steps: int = 0


class Learning:
    """Judges, decides in retrospect, learns and rolls out, each time from where it has read to."""

    def __init__(
        self,
        log: EventLog,
        judge: Judge | None,
        retrospection: Retrospection | None,
        rollout: RolloutSettings | None = None,
    ) -> None:
        self._log = log
        self._judge = judge
        self._judged = Vector()
        self._shadows = None if judge is None else ShadowJudge(log)
        self._retrospector = None if retrospection is None else Retrospector(log, retrospection)
        self._rollout = None if rollout is None else Rollout(log, rollout)
        self.learned = Learned()

    async def run(self, progress: Callable[[int], None]) -> None:
        """Add what follows from what is new; `progress` is told the events added so far."""
        learned = self.learned

        def judged(outcomes: Sequence[Outcome]) -> None:
            learned.outcomes += len(outcomes)
            progress(learned.outcomes + learned.retrospective_decisions)

        def settled(now: Settled) -> None:
            progress(learned.outcomes + learned.retrospective_decisions + now.decisions)

        if self._shadows is not None:
            before = learned.outcomes

            def beside(count: int) -> None:
                learned.outcomes = before + count
                progress(learned.outcomes + learned.retrospective_decisions)

            await self._shadows.run(beside)
        await self._judge_new(judged)
        if self._retrospector is not None:
            added = await self._retrospector.run(settled)
            learned.retrospective_conversations += added.conversations
            learned.retrospective_continued += added.continued
            learned.retrospective_decisions += added.decisions
            learned.models += added.models
            # What was decided now is judged now, or a second run would find more to do.
            await self._judge_new(judged)
        if self._rollout is not None:
            rolled = await self._rollout.run()
            learned.models += rolled.models
            learned.rollout_steps += rolled.steps

    async def _judge_new(self, judged: Callable[[Sequence[Outcome]], None]) -> None:
        if self._judge is not None:
            self._judged = await judge_log(self._log, self._judge, self._judged, appended=judged)
