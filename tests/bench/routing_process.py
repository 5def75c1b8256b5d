"""Learned processes measured on STAR and τ-bench: next steps, steps mined, arguments filled.

A seed draws anew which dialogues, or which tasks, are held apart. STAR's steps are the replies
that its wizards picked from the task's list, and their queries; what they typed freely is no
step. The features were chosen on STAR's first seed and on τ-bench's tasks, both in halves that
are drawn anew here, so these figures are a little kind.
"""

import gzip
import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any

from tests.bench.routing_rows import figure, row, say, skipped

from madlog.analytics.importing import FORMATS, SourceObject
from madlog.processors.lppm.cases import ACTION, SAY, Act, Answer, Case, Point, cases_of
from madlog.processors.lppm.mining import mine
from madlog.processors.lppm.next_step import NextStep
from madlog.processors.promise import interval
from madlog.schemas import fields_of

__all__ = ("rows",)

_STAR, _TAU = "star_train.jsonl.gz", "tau_bench_airline_gpt4o.jsonl.gz"
_QUERY = "query:"
_HELD = 5  # one in so many is held apart
_SHARE_MIN = 0.3
_PRECISION = 0.9
_NUMBERS = (3, 10, 20)
_PROMISES = (0.05, 0.10, 0.20, 0.30, 0.40, 0.50)


def rows(data: Path, seeds: int) -> list[dict[str, Any]]:
    """Measure on the data sets in this folder; a row a figure, or one that says what is absent."""
    found: list[dict[str, Any]] = []
    for title, name, measure in (("STAR", _STAR, _star), ("τ-bench airline", _TAU, _tau)):
        if (data / name).exists():
            say(name)
            found += measure(data, seeds)
        else:
            cure = f"{name} is not in {data}: name the folder that has it with --data"
            found.append(skipped(f"{title}, processes", cure))
    return found


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    # Only \n ends a line: some texts hold what str.splitlines would cut at.
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            yield number, json.loads(line)


def _star(data: Path, seeds: int) -> list[dict[str, Any]]:
    tasks: dict[str, list[Case]] = defaultdict(list)
    for _, dialogue in _lines(data / _STAR):
        capability = dialogue["Scenario"]["WizardCapabilities"][0]
        tasks[capability["Task"]].append(_dialogue(dialogue))
    cases = [case for task in sorted(tasks) for case in tasks[task]]
    figures: dict[str, list[float]] = defaultdict(list)
    promised = _Settled()
    for seed in range(seeds):
        _star_steps(cases, seed, figures, promised)
        for number in _NUMBERS:
            figures[f"stable {number}"].append(100 * _stability(tasks, number, seed))
    precision, recall = _against_charts(tasks, data / "star_tasks")
    name = "STAR: next step"
    return [
        row(f"{name}", figures["right"], reach=69, baseline=_of(figures["majority"])),
        row(f"{name}, share answered at 90 % precision", figures["at 90"], reach=35),
        row(f"{name}, 10 % promised: settled", figures["share"]),
        row(f"{name}, 10 % promised: error delivered", figures["error"], reach=10, most=True),
        row(f"{name}, repeating the last step", figures["repeat"]),
        *promised.rows(f"{name}, pooled"),
        row("STAR: steps mined that the chart has", [precision]),
        row("STAR: steps of the chart that were mined", [recall]),
        *(
            row(f"STAR: steps of {number} dialogues against all, Jaccard", figures[key])
            for number in _NUMBERS
            for key in (f"stable {number}",)
        ),
    ]


def _of(values: Sequence[float]) -> str:
    return f"majority {figure(statistics.fmean(values))}"


def _dialogue(dialogue: dict[str, Any]) -> Case:
    name = str(dialogue["DialogueID"])
    acts: list[Act] = []
    for number, event in enumerate(dialogue["Events"]):
        place, done = f"{name}/{number}", (event["Agent"], event["Action"])
        if done == ("User", "utter"):
            acts.append(Act("user", True, SAY, place, event["Text"]))
        elif done == ("Wizard", "pick_suggestion"):
            what = ACTION + event["ActionLabel"]
            acts.append(Act("wizard", False, what, place, arguments={}))
        elif done == ("Wizard", "query"):
            what = ACTION + _QUERY + event["APIName"]
            acts.append(Act("wizard", False, what, place, arguments={}))
        elif done[1] == "return_item":
            acts[-1] = replace(acts[-1], answer=Answer(True, event.get("Item")))
    return Case(name, 0, tuple(acts), "success")


def _steps_of(cases: Sequence[Case]) -> list[Point]:
    return [point for case in cases for point in case.points() if point.act.action is not None]


def _star_steps(
    cases: Sequence[Case], seed: int, figures: dict[str, list[float]], promised: "_Settled"
) -> None:
    order = list(cases)
    Random(seed).shuffle(order)
    cut = len(order) // _HELD
    model = NextStep.learn(order[cut:])
    commonest = Counter(point.act.what for point in _steps_of(order[cut:])).most_common(1)[0][0]
    held = _steps_of(order[:cut])
    scored = []
    settled = wrong = repeat = 0
    for point in held:
        best = model.likeliest(point.past)
        scored.append((best.margin, best.label == point.act.what))
        promised.add(model, point)
        step = model.predict(point.past, 0.1)
        settled += step.action is not None
        wrong += step.action not in (None, point.act.action)
        last = next((act.what for act in reversed(point.past) if not act.human), None)
        repeat += last == point.act.what
    figures["right"].append(100 * sum(right for _, right in scored) / len(held))
    figures["majority"].append(100 * sum(one.act.what == commonest for one in held) / len(held))
    figures["repeat"].append(100 * repeat / len(held))
    figures["at 90"].append(100 * _share_at(scored, _PRECISION))
    figures["share"].append(100 * settled / len(held))
    figures["error"].append(100 * wrong / max(1, settled))


def _share_at(scored: Sequence[tuple[int, bool]], precision: float) -> float:
    """Return the largest share, the surest first, of which so many are right."""
    right = best = 0
    for number, (_, is_right) in enumerate(sorted(scored, key=lambda one: -one[0]), 1):
        right += is_right
        if right >= precision * number:
            best = number
    return best / len(scored)


def _step_set(cases: Sequence[Case]) -> frozenset[str]:
    steps = mine(cases, "steps", step_share_min=_SHARE_MIN).steps
    names = (step.what.removeprefix(ACTION) for step in steps if step.what != SAY)
    return frozenset("query" if name.startswith(_QUERY) else name for name in names)


def _stability(tasks: dict[str, list[Case]], number: int, seed: int) -> float:
    found = []
    for task in sorted(tasks):
        whole = _step_set(tasks[task])
        part = _step_set(Random(seed).sample(tasks[task], min(number, len(tasks[task]))))
        found.append(len(whole & part) / max(1, len(whole | part)))
    return statistics.fmean(found)


def _against_charts(tasks: dict[str, list[Case]], folder: Path) -> tuple[float, float]:
    """Return precision and recall of the steps mined, in percent, the mean over the tasks."""
    picked = {act.action for cases in tasks.values() for case in cases for act in case.acts}
    precision, recall = [], []
    for task in sorted(tasks):
        graph = json.loads((folder / task / f"{task}.json").read_text(encoding="utf-8"))["graph"]
        nodes = {*graph, *graph.values()}
        # What is neither a reply nor a query is a branch's name, such as "available".
        drawn = {node for node in nodes if node in picked}
        drawn |= {"query" for node in nodes if node in ("query", "query_check", "query_book")}
        mined = _step_set(tasks[task])
        precision.append(100 * len(mined & drawn) / len(mined))
        recall.append(100 * len(mined & drawn) / len(drawn))
    return statistics.fmean(precision), statistics.fmean(recall)


class _Settled:
    """Counts what was settled, and what of it was wrong, at each promise."""

    def __init__(self) -> None:
        self.points = 0
        self.settled: Counter[float] = Counter()
        self.wrong: Counter[float] = Counter()

    def add(self, model: NextStep, point: Point) -> None:
        """Ask for one decision at each promise."""
        self.points += 1
        for promise in _PROMISES:
            step = model.predict(point.past, promise)
            if step.action is not None:
                self.settled[promise] += 1
                same = (step.action, step.arguments) == (point.act.action, point.act.arguments)
                self.wrong[promise] += not same

    def rows(self, title: str) -> list[dict[str, Any]]:
        """Return the share settled and the error delivered, pooled over the seeds."""
        found = []
        for promise in _PROMISES:
            count, wrong = self.settled[promise], self.wrong[promise]
            name = f"{title}, {100 * promise:g} % promised"
            found.append(row(f"{name}: settled with arguments", [100 * count / self.points]))
            low, high = interval(wrong, count) if count else (0.0, 1.0)
            delivered = row(
                f"{name}: error delivered",
                [100 * wrong / count if count else None],
                reach=100 * promise if count else None,
                most=True,
            )
            bounds = f"{wrong} of {count}: {100 * low:.1f}–{100 * high:.1f}"
            found.append(delivered | {"spread": bounds})
        return found


def _tau(data: Path, seeds: int) -> list[dict[str, Any]]:
    task_of: dict[str, str] = {}
    cases = _runs(data / _TAU, task_of)
    unseen, seen = _Settled(), _Settled()
    figures: dict[str, list[float]] = defaultdict(list)
    times: list[float] = []
    filled: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for seed in range(seeds):
        tasks = sorted(set(task_of.values()))
        Random(seed).shuffle(tasks)
        apart = set(tasks[: len(tasks) // _HELD])
        begun = perf_counter()
        known = [case for case in cases if task_of[case.conversation_id] not in apart]
        model = NextStep.learn(known, families=task_of)
        figures["fit"].append(perf_counter() - begun)
        held = [case for case in cases if task_of[case.conversation_id] in apart]
        right, usual, again, count = 0, 0, 0, 0
        for point in (point for case in held for point in case.points()):
            truth = point.act.what if point.act.action else SAY
            begun = perf_counter()
            right += model.likeliest(point.past).label == truth
            times.append(perf_counter() - begun)
            usual += truth == SAY
            last = next((act for act in reversed(point.past) if not act.human), None)
            again += truth == (last.what if last and last.action else SAY)
            count += 1
            unseen.add(model, point)
            if point.act.action is not None:
                calls[point.act.action] += 1
                found = model.slots.filled(point.act.action, point.past).arguments
                filled[point.act.action] += found == point.act.arguments
        for key, value in (("right", right), ("majority", usual), ("repeat", again)):
            figures[key].append(100 * value / count)
        figures["filled"].append(100 * filled.total() / calls.total())
        _seen(cases, seed, seen)
    times.sort()
    title = "τ-bench airline"
    by_action = (f"{name} {filled[name]}/{count}" for name, count in calls.most_common(8))
    return [
        row(f"{title}: next step, new tasks", figures["right"], baseline=_of(figures["majority"])),
        row(f"{title}: next step, repeating the last", figures["repeat"]),
        row(f"{title}: calls filled whole, new tasks", figures["filled"])
        | {"baseline": ", ".join(by_action)},
        *unseen.rows(f"{title}, new tasks"),
        *seen.rows(f"{title}, tasks done before"),
        row(f"{title}: fit on four fifths", figures["fit"], "s", reach=10, most=True),
        row(
            f"{title}: prediction p99",
            [1000 * times[int(0.99 * len(times))]],
            "ms",
            reach=5,
            most=True,
        ),
    ]


def _seen(cases: Sequence[Case], seed: int, seen: _Settled) -> None:
    """Hold runs apart whatever their task: other runs of it may have been learned from."""
    order = list(cases)
    Random(seed).shuffle(order)
    cut = len(order) // _HELD
    model = NextStep.learn(order[cut:])
    for case in order[:cut]:
        for point in case.points():
            seen.add(model, point)


def _runs(path: Path, task_of: dict[str, str]) -> list[Case]:
    source = FORMATS["tau-bench"]
    events = []
    for number, value in _lines(path):
        run = source.check(value)
        name = source.conversation(run)
        for event in source.events(SourceObject(run, number, "0" * 64, name)):
            task_of[event.conversation_id] = name.split("/")[0]
            events.append((event.kind, fields_of(event)))
    return cases_of(events)
