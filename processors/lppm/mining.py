"""Mining: what conversations that ended well have in common, as a process.

Steps are counted as they follow one another; what few conversations do is left out as noise, and
what remains closes the gap. Why one step follows rather than another is learned as a guard: at
most two conditions on what was seen so far that tell it apart, if they cover most of its cases.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from madlog.processors.lppm._facts import DONE, OK, facts
from madlog.processors.lppm._trace import START, Visit, trace
from madlog.processors.lppm.cases import Act, Case
from madlog.processors.lppm.process import NOT, Edge, Process, Slot, Step
from madlog.processors.lppm.slots import SlotRules
from madlog.processors.promise import upper_error

__all__ = ("EDGE_SHARE_MIN", "STEP_SHARE_MIN", "mine")

STEP_SHARE_MIN = 0.1  # of conversations
EDGE_SHARE_MIN = 0.05  # of the times that the step before it was done
# An edge of fewer conversations, of all that ended well, is an accident of theirs.
_EDGE_CONVERSATIONS_SHARE_MIN = 0.02
_CONDITIONS_MAX = 2
# A field with more values than this holds data, such as names, and no state to ask for.
_VALUES_MAX = 6
_SUPPORT_MIN = 3
# A guard that leaves out more of its step's cases than this explains another step.
_COVER_MIN = 0.5
_DOUBT = 0.05
_EFFECT_SHARE_MIN = 0.95
_EFFECTS_MAX = 12
# A call that takes this many times as long as the longest seen is not coming back.
_TIMEOUT_FACTOR = 3


class _Occasion(NamedTuple):
    """A step that followed another, with the facts before it."""

    case: int
    after: str
    step: str
    facts: frozenset[str]


class _Guard(NamedTuple):
    when: tuple[str, ...]
    errors: int
    n: int
    bound: float


def mine(
    cases: Iterable[Case],
    name: str,
    *,
    step_share_min: float = STEP_SHARE_MIN,
    edge_share_min: float = EDGE_SHARE_MIN,
) -> Process:
    """Mine the process that conversations show; only those known to have ended well count."""
    known = sorted(
        (case for case in cases if case.result is not None),
        key=lambda case: (case.occurred_at, case.conversation_id),
    )
    good = [case for case in known if case.succeeded]
    traces = _kept([trace(case.acts) for case in good], step_share_min)
    occasions = _occasions(good, traces)
    edges, guards = _edges(occasions, len(good), edge_share_min)
    slots = SlotRules.learn(good)
    done: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for number, visits in enumerate(traces):
        for visit in visits:
            done[visit.key].append((number, visit.at))
    steps = tuple(_step(key, done[key], good, slots, guards.get(key, [])) for key in sorted(done))
    ends = Counter(visits[-1].key for visits in traces if visits)
    starts = Counter(visits[0].key for visits in traces if visits)
    return Process(
        name,
        steps,
        edges,
        {key: starts[key] for key in sorted(starts)},
        {key: ends[key] for key in sorted(ends)},
        tuple(case.conversation_id for case in good),
        len(known),
    )


def _kept(traces: Sequence[Sequence[Visit]], share_min: float) -> list[list[Visit]]:
    """Leave out the steps of too few conversations."""
    having = Counter(key for visits in traces for key in {visit.key for visit in visits})
    least = share_min * len(traces)
    return [[visit for visit in visits if having[visit.key] >= least] for visits in traces]


def _occasions(cases: Sequence[Case], traces: Sequence[Sequence[Visit]]) -> list[_Occasion]:
    found = []
    for number, (case, visits) in enumerate(zip(cases, traces, strict=True)):
        after = START
        for visit in visits:
            found.append(_Occasion(number, after, visit.key, facts(case.acts[: visit.at])))
            after = visit.key
    return found


def _edges(
    occasions: Sequence[_Occasion], conversations: int, share_min: float
) -> tuple[tuple[Edge, ...], dict[str, list[_Guard]]]:
    """Return what follows what, and the guards under which each step does."""
    by_after: dict[str, list[_Occasion]] = defaultdict(list)
    for occasion in occasions:
        by_after[occasion.after].append(occasion)
    edges: list[Edge] = []
    guards: dict[str, list[_Guard]] = defaultdict(list)
    for after in sorted(by_after):
        here = by_after[after]
        having = _having(here)
        targets = Counter(occasion.step for occasion in here)
        for step in sorted(targets):
            of_step = {number for number, occasion in enumerate(here) if occasion.step == step}
            shown_by = len({here[number].case for number in of_step})
            if (
                targets[step] < share_min * len(here)
                or shown_by < _EDGE_CONVERSATIONS_SHARE_MIN * conversations
            ):
                continue
            guard = _guard(of_step, len(here), having)
            guards[step].append(guard)
            edges.append(
                Edge(
                    after,
                    step,
                    guard.when,
                    round(1.0 - guard.bound, 4),
                    targets[step],
                    shown_by,
                )
            )
    return tuple(edges), guards


def _having(occasions: Sequence[_Occasion]) -> dict[str, set[int]]:
    """Return which occasions have each fact that a guard may ask for."""
    having: dict[str, set[int]] = defaultdict(set)
    values: Counter[str] = Counter()
    for number, occasion in enumerate(occasions):
        for fact in occasion.facts:
            if fact not in having:
                values[_field(fact)] += 1
            having[fact].add(number)
    return {fact: having[fact] for fact in sorted(having) if values[_field(fact)] <= _VALUES_MAX}


def _field(fact: str) -> str:
    """Return the field whose value a fact tells, other facts as they are."""
    return fact.split(" = ")[0]


def _guard(of_step: set[int], count: int, having: Mapping[str, set[int]]) -> _Guard:
    """Add the condition that lowers the bound on errors most, while one does."""
    everywhere = set(range(count))
    conditions = {fact: numbers for fact, numbers in having.items() if len(numbers) < count}
    conditions |= {NOT + fact: everywhere - numbers for fact, numbers in conditions.items()}
    # The more conditions are tried, the more often one fits by chance.
    confidence = 1.0 - _DOUBT / max(1, len(conditions))
    least = max(_SUPPORT_MIN, _COVER_MIN * len(of_step))
    errors = count - len(of_step)
    best = _Guard((), errors, count, upper_error(errors, count))
    holds = everywhere
    for _ in range(_CONDITIONS_MAX):
        found: list[tuple[float, int, str]] = []
        for name, numbers in conditions.items():
            both = holds & numbers
            right = len(both & of_step)
            if right >= least:
                found.append((upper_error(len(both) - right, len(both), confidence), -right, name))
        if not found or min(found)[0] >= best.bound:
            break
        bound, minus_right, name = min(found)
        holds = holds & conditions[name]
        best = _Guard((*best.when, name), len(holds) + minus_right, len(holds), bound)
    return best


def _step(
    key: str,
    done: Sequence[tuple[int, int]],
    cases: Sequence[Case],
    slots: SlotRules,
    guards: Sequence[_Guard],
) -> Step:
    acts = [cases[number].acts[at] for number, at in done]
    first = acts[0]
    before = [facts(cases[number].acts[:at]) for number, at in done]
    held = frozenset.intersection(*before)
    declared = set.intersection(*(set(act.preconditions) for act in acts))
    given = _slots(first.action, acts, slots)
    errors, n = sum(guard.errors for guard in guards), sum(guard.n for guard in guards)
    took = [act.took_us for act in acts if act.took_us is not None]
    return Step(
        key=key,
        actor=first.actor,
        what=first.what,
        slots=given,
        precondition=tuple(sorted(declared | {fact for fact in held if fact.startswith(DONE)})),
        effect=_effect(acts),
        timeout_ms=_TIMEOUT_FACTOR * max(took) // 1000 + 1 if took else None,
        compensation=_compensation(done, cases),
        # A slot without a rule is prose or a sum: somebody must think of it.
        needs_llm=first.action is None or any(slot.source is None for slot in given),
        confidence=round(1.0 - upper_error(errors, n), 4),
        count=len(acts),
        conversations=len({number for number, _ in done}),
    )


def _slots(action: str | None, acts: Sequence[Act], rules: SlotRules) -> tuple[Slot, ...]:
    given = Counter(name for act in acts for name in act.arguments or ())
    found = []
    for name in sorted(given):
        ranked = rules.rules.get(action or "", {}).get(name, ())
        found.append(Slot(name, given[name], str(ranked[0]) if ranked else None))
    return tuple(found)


def _effect(acts: Sequence[Act]) -> tuple[str, ...]:
    """Return what nearly every answer showed: that it was good, and the fields at its top."""
    answers = [act for act in acts if act.answer is not None]
    if not answers:
        return ()
    counts = Counter(
        path
        for act in answers
        for path in act.paths
        if path.count(".") == 1 and "[" not in path and "*" not in path
    )
    counts[OK] = sum(act.answer is not None and act.answer.ok for act in answers)
    least = _EFFECT_SHARE_MIN * len(answers)
    found = sorted(name for name, count in counts.items() if name != OK and count >= least)
    return ((OK,) if counts[OK] >= least else ()) + tuple(found[:_EFFECTS_MAX])


def _compensation(done: Sequence[tuple[int, int]], cases: Sequence[Case]) -> str | None:
    """Return the action that mostly came next when this one failed, if another one did."""
    after: Counter[str | None] = Counter()
    for number, at in done:
        acts = cases[number].acts
        answer = acts[at].answer
        if answer is not None and not answer.ok:
            following = next((act for act in acts[at + 1 :] if not act.human), None)
            after[following.action if following else None] += 1
    if not after:
        return None
    name, count = min(after.items(), key=lambda pair: (-pair[1], pair[0] or ""))
    own = cases[done[0][0]].acts[done[0][1]].action
    enough = count >= _SUPPORT_MIN and 2 * count >= after.total()
    return name if enough and name != own else None
