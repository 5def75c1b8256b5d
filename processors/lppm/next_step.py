"""The next step: what an agent does next, and with which arguments, within a promised error.

A linear classifier names the action (or words, which are the language model's) from the last
acts, the facts so far and the words last said; slot rules fill its arguments; a second linear
classifier judges from both whether the whole is right. All that a threshold rests on was scored
by models that had not seen the conversation.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import Any, NamedTuple

from madlog.processors.calibration import Calibration
from madlog.processors.errors import InvalidModel
from madlog.processors.lppm._features import (
    Row,
    Words,
    completed,
    crossed,
    fillable,
    row_of,
    vocabulary,
)
from madlog.processors.lppm._sparse import Table
from madlog.processors.lppm._view import View
from madlog.processors.lppm.cases import ACTION, SAY, Act, Case, Point
from madlog.processors.lppm.familiar import ALL, familiarity, least
from madlog.processors.lppm.linear import Linear, Scored, folded
from madlog.processors.lppm.slots import SCORE_ONE, Filled, SlotRules
from madlog.processors.lppm.text import Counts, Vocabulary
from madlog.processors.lppm.values import canonical
from madlog.processors.promise import interval, threshold

__all__ = ("FORMAT", "NextStep", "Step")

FORMAT = "next-step-1"
_FOLDS = 5
# There are few calls to learn from, and many reasons why one was wrong.
_JUDGE_COST = 0.1
_RIGHT, _WRONG = "right", "wrong"
_EVERY_SCORE = -(2**53)
_KEYS = {"actions", "format", "judge", "slots", "trials", "unknown", "words"}
# What models that were learned before them do not have.
_CALIBRATION, _FAMILIAR, _TRIED, _FAMILIES = "calibration", "familiar", "tried", "families"
_LATER = {_CALIBRATION, _FAMILIAR, _TRIED, _FAMILIES}


class Step(NamedTuple):
    """What to do next; `action` is None where the language model must decide, `reason` says why.

    `confidence` is the share of such calls that are right, None where none is made.
    """

    action: str | None
    arguments: dict[str, Any] | None
    score: int
    reason: str
    confidence: float | None = None


@dataclass(frozen=True, eq=False)
class NextStep:
    """A learned model of an agent's next step.

    `trials` holds the score of each call that was proposed for a conversation not learned from,
    and whether the agent made that very call: what the promise rests on. `calibration` says from
    them what a score is worth; a model without it claims of each call no more than the promise.
    `familiar` is how much of a human's words must be known to be decided about at all. `tried` is
    the action of each trial: one that is wrong by itself must not hide behind the others.
    `families` numbers the task, or conversation, of each trial: those of one are alike.
    """

    actions: Linear
    judge: Linear | None
    slots: SlotRules
    trials: tuple[tuple[int, bool], ...]
    _words: Vocabulary
    calibration: Calibration | None = None
    familiar: int | None = None
    tried: tuple[str, ...] = ()
    families: tuple[int, ...] = ()
    _thresholds: dict[float, int | None] = field(default_factory=dict)
    _poor: dict[float, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def learn(
        cls, cases: Iterable[Case], *, seed: int = 0, families: Mapping[str, str] | None = None
    ) -> "NextStep":
        """Learn from conversations, best from those that ended well.

        `families` says which conversations (by id) are much alike, such as repeats of one task:
        they are kept together when the model is tried, lest it knows the answer already.
        """
        ordered = sorted(cases, key=lambda case: (case.occurred_at, case.conversation_id))
        trial = _Trial(ordered, families or {}, seed)
        found = trial.scored()
        scored = tuple((one.score, one.right) for one in found)
        actions, slots = trial.fitted(range(len(trial.points)))
        numbers: dict[str, int] = {}
        return cls(
            actions,
            trial.judge,
            slots,
            scored,
            trial.words,
            Calibration.of(scored),
            trial.familiar(),
            tuple(one.action for one in found),
            tuple(numbers.setdefault(one.family, len(numbers)) for one in found),
        )

    def likeliest(self, past: Sequence[Act]) -> Scored:
        """Return the likeliest next step: `action:NAME`, or `say` for words."""
        return self.actions.best(self._row(past, View(past)))

    def predict(self, past: Sequence[Act], max_error: float) -> Step:
        """Return the call to make, if at most `max_error` of such calls are wrong."""
        known = None if self.familiar is None else familiarity(past, self._words)
        if known is not None and known < (self.familiar or 0):
            reason = f"{known} of {ALL} of these words are known, and {self.familiar} must be"
            return Step(None, None, 0, reason)
        view = View(past)
        row = self._row(past, view)
        best = self.actions.best(row)
        if best.label == SAY:
            return Step(None, None, best.score, "words come next")
        action = best.label[len(ACTION) :]
        filled = self.slots.fill(action, view)
        if filled.arguments is None:
            return Step(None, None, best.score, f"no rule fills the arguments of {action}")
        score = best.margin
        if self.judge is not None:
            score = self.judge.scores(_evidence(row, best, filled, view))[_RIGHT]
        limit = self._threshold(max_error)
        if limit is None or score < limit:
            least = "no score" if limit is None else f"{limit}"
            reason = f"{action} scores {score}; {least} keeps the promised error of {max_error}"
            return Step(None, None, score, reason)
        poor = self._poor_ones(max_error, limit).get(action)
        if poor is not None:
            return Step(None, None, score, poor)
        told = self.calibration
        confidence = 1.0 - max_error if told is None else told.confidence(score)
        reason = f"{action} scores {score} of at least {limit}"
        return Step(action, filled.arguments, score, reason, confidence)

    @cached_property
    def _read(self) -> Words:
        return Words(self._words)

    def _row(self, past: Sequence[Act], view: View) -> Row:
        return completed(row_of(past, self._read), past, view, self.slots)

    def _threshold(self, max_error: float) -> int | None:
        if max_error not in self._thresholds:
            limit = threshold(self.trials, max_error, families=self.families)
            if limit is not None and limit == min(score for score, _ in self.trials):
                # The promise holds for all that was proposed, whatever it scored, and a model of
                # all conversations scores a little otherwise than those of the trial.
                limit = _EVERY_SCORE
            self._thresholds[max_error] = limit
        return self._thresholds[max_error]

    def _poor_ones(self, max_error: float, limit: int) -> dict[str, str]:
        """Return the actions that are shown to break the promise by themselves, and by what."""
        if max_error not in self._poor:
            found: dict[str, list[bool]] = {}
            for (score, right), action in zip(self.trials, self.tried, strict=False):
                if score >= limit:
                    found.setdefault(action, []).append(right)
            self._poor[max_error] = {
                action: f"{action} was wrong in {wrong} of {len(told)} trials of its own"
                for action, told in found.items()
                if interval(wrong := told.count(False), len(told))[0] > max_error
            }
        return self._poor[max_error]

    def to_document(self) -> dict[str, Any]:
        """Return the model as an object that JSON can hold."""
        document: dict[str, Any] = {
            "format": FORMAT,
            "actions": self.actions.to_document(),
            "judge": None if self.judge is None else self.judge.to_document(),
            "slots": self.slots.to_document(),
            "trials": [[score, int(right)] for score, right in self.trials],
            "words": self._words.rarities,
            "unknown": self._words.unknown,
        }
        if self.calibration is not None:
            document[_CALIBRATION] = self.calibration.to_document()
        if self.familiar is not None:
            document[_FAMILIAR] = self.familiar
        if self.tried:
            document[_TRIED] = [*self.tried]
        if self.families:
            document[_FAMILIES] = [*self.families]
        return document

    @classmethod
    def from_document(cls, document: Any) -> "NextStep":
        """Check a model file; raises InvalidModel naming what is wrong."""
        if not isinstance(document, dict) or document.keys() - _LATER != _KEYS:
            raise InvalidModel(f"a next-step model must have exactly {', '.join(sorted(_KEYS))}")
        if document["format"] != FORMAT:
            raise InvalidModel(f"the model's format is {document['format']!r}, not {FORMAT!r}")
        words, unknown, trials = document["words"], document["unknown"], document["trials"]
        if not isinstance(words, dict) or not all(map(_natural, [unknown, *words.values()])):
            raise InvalidModel("words and unknown must be natural numbers, words by name")
        if not isinstance(trials, list) or not all(map(_is_trial, trials)):
            raise InvalidModel("trials must be a list of [score, 0 or 1]")
        familiar = document.get(_FAMILIAR)
        if familiar is not None and not (_natural(familiar) and familiar <= ALL):
            raise InvalidModel(f"familiar must be a number up to {ALL}")
        tried = document.get(_TRIED, [])
        if not _are_names(tried) or len(tried) not in (0, len(trials)):
            raise InvalidModel("tried must be a list of one action a trial")
        families = document.get(_FAMILIES, [])
        if not isinstance(families, list) or not all(map(_natural, families)):
            raise InvalidModel("families must be a list of natural numbers")
        if len(families) not in (0, len(trials)):
            raise InvalidModel("families must be a list of one number a trial")
        actions = Linear.from_document(document["actions"])
        for label in actions.labels:
            if label != SAY and not label.startswith(ACTION):
                raise InvalidModel(f"actions: {label!r} is neither {SAY} nor {ACTION}NAME")
        judge = None if document["judge"] is None else Linear.from_document(document["judge"])
        if judge is not None and judge.labels != (_RIGHT, _WRONG):
            raise InvalidModel(f"judge: its labels must be {_RIGHT} and {_WRONG}")
        return cls(
            actions,
            judge,
            SlotRules.from_document(document["slots"]),
            tuple((score, bool(right)) for score, right in trials),
            Vocabulary.of(list(words), list(words.values()), unknown),
            Calibration.from_document(document[_CALIBRATION]) if _CALIBRATION in document else None,
            familiar,
            tuple(tried),
            tuple(families),
        )


def _natural(value: Any) -> bool:
    return type(value) is int and value >= 0


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_trial(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and type(value[0]) is int
        and type(value[1]) is int
        and value[1] in (0, 1)
    )


class _Tried(NamedTuple):
    """A call that was proposed for a conversation not learned from; `family` is its task."""

    score: int
    right: bool
    action: str
    family: str


class _Trial:
    """Tries models on conversations that they did not see, and learns to judge from that."""

    def __init__(self, cases: Sequence[Case], families: Mapping[str, str], seed: int) -> None:
        self.seed = seed
        self.points: list[Point] = []
        self.groups: list[str] = []
        # What a process settled itself is no proof of what the agent would do, unless how its
        # conversation ended says that it was right; what that misses the audits see.
        self.proven: list[bool] = []
        texts: dict[str, list[str]] = {}
        for case in cases:
            found = list(case.points())
            self.points += found
            family = families.get(case.conversation_id, case.conversation_id)
            self.groups += [family] * len(found)
            self.proven += [case.succeeded or point.act.tier != "lppm" for point in found]
            said = (act.said for act in case.acts if act.action is None)
            texts.setdefault(family, []).extend(said)
        if not self.points:
            raise ValueError("the conversations hold no decision of an agent: give others")
        enough = len(set(self.groups)) > 1
        self.folds = folded(self.groups, _FOLDS, Random(seed)) if enough else []
        # The texts of each fold are counted by themselves, so that no text is counted again.
        self._counts = [
            Counts.of(text for name in sorted(aside) for text in texts.pop(name))
            for aside in ({self.groups[number] for number in held} for held in self.folds)
        ]
        others = Counts.of(text for told in texts.values() for text in told)
        self._all = sum(self._counts, start=others)
        self.words = vocabulary(self._all)
        words = Words(self.words)
        self.rows = [row_of(point.past, words) for point in self.points]
        self.labels = [_label(point.act) for point in self.points]
        self.views = [View(point.past) for point in self.points]
        self._table = Table.of(
            row | crossed(row, point.past)
            for row, point in zip(self.rows, self.points, strict=True)
        )
        self.judge: Linear | None = None

    def fitted(self, numbers: Sequence[int]) -> tuple[Linear, SlotRules]:
        """Learn actions and slots from some of the decisions."""
        slots = SlotRules.of_points((self.views[number], self.points[number]) for number in numbers)
        labels = [self.labels[number] for number in numbers]
        return Linear.fit_table(self._completed(numbers, slots), labels, seed=self.seed), slots

    def _completed(self, numbers: Sequence[int], slots: SlotRules) -> Table:
        """Return the rows of decisions as `completed` makes them: what needs no slots is there."""
        fills = ((fillable(self.views[one], slots), self.points[one].past) for one in numbers)
        return self._table.rows(numbers).beside(
            Table.of(filled | crossed(filled, past) for filled, past in fills)
        )

    def scored(self) -> tuple[_Tried, ...]:
        """Return what was proposed, with its score and whether it was right."""
        evidence: list[dict[str, float]] = []
        right: list[str] = []
        at: list[int] = []
        proposed: dict[int, str] = {}
        for held in self.folds:
            for number, action, row, is_right in self._proposed(held):
                at.append(number)
                proposed[number] = action
                evidence.append(row)
                right.append(_RIGHT if is_right else _WRONG)
        groups = [self.groups[number] for number in at]
        if len(set(groups)) < 2:
            return ()
        if len(set(right)) < 2 or min(Counter(right).values()) < _FOLDS:
            # Where hardly any is wrong, or right, nothing tells them apart but the classifier.
            return tuple(
                _Tried(
                    round(row["margin"] * SCORE_ONE),
                    told == _RIGHT,
                    proposed[number],
                    self.groups[number],
                )
                for row, told, number in zip(evidence, right, at, strict=True)
                if self.proven[number]
            )
        self.judge = self._judge(evidence, right)
        scores: dict[int, int] = {}
        for held in folded(groups, _FOLDS, Random(self.seed)):
            aside = set(held)
            kept = [number for number in range(len(evidence)) if number not in aside]
            judge = self._judge([evidence[one] for one in kept], [right[one] for one in kept])
            scores |= {number: judge.scores(evidence[number]).get(_RIGHT, 0) for number in held}
        return tuple(
            _Tried(scores[number], right[number] == _RIGHT, proposed[at[number]], groups[number])
            for number in range(len(evidence))
            if self.proven[at[number]]
        )

    def familiar(self) -> int | None:
        """Return how familiar words were to those who had not heard them, at least."""
        found: list[int] = []
        for held, counts in zip(self.folds, self._counts, strict=True):
            words = vocabulary(self._all - counts)
            known = (familiarity(self.points[number].past, words) for number in held)
            found += [one for one in known if one is not None]
        return least(found)

    def _judge(self, evidence: Sequence[Row], right: Sequence[str]) -> Linear:
        return Linear.fit(evidence, right, seed=self.seed, cost=_JUDGE_COST)

    def _proposed(self, held: Sequence[int]) -> list[tuple[int, str, dict[str, float], bool]]:
        """Return what the models of one fold propose: place, action, evidence, right or not."""
        aside = set(held)
        kept = [number for number in range(len(self.points)) if number not in aside]
        model, slots = self.fitted(kept)
        found = []
        for number, best in zip(held, model.best_rows(self._completed(held, slots)), strict=True):
            if best.label == SAY:
                continue
            view, act = self.views[number], self.points[number].act
            filled = slots.fill(best.label[len(ACTION) :], view)
            if filled.arguments is None:
                continue
            right = (
                act.what == best.label
                and act.arguments is not None
                and canonical(act.arguments) == canonical(filled.arguments)
            )
            action = best.label[len(ACTION) :]
            row = _evidence(self.rows[number], best, filled, view)
            found.append((number, action, row, right))
        return found


def _label(act: Act) -> str:
    return act.what if act.action is not None else SAY


def _evidence(
    row: Mapping[str, float], best: Scored, filled: Filled, view: View
) -> dict[str, float]:
    """Return what tells whether a proposed call is right."""
    action = best.label[len(ACTION) :]
    assert filled.arguments is not None
    found = {
        f"call {action}": 1.0,
        "margin": best.margin / SCORE_ONE,
        f"margin {action}": best.margin / SCORE_ONE,
        "score": best.score / SCORE_ONE,
        "slots": 2.0 * filled.score / SCORE_ONE,
        f"instead {best.runner_up}": 1.0,
    }
    for rule in filled.rules:
        found[f"rule {action} {rule}"] = 1.0
    if view.called(action, filled.arguments):
        found["again"] = found[f"again {action}"] = 1.0
    for name in row:
        if name.startswith(("is ", "1 ")):
            found[f"{action}: {name}"] = 0.5
    return found
