"""Recognition measured on CLINC150, BANKING77 and STAR: accuracy, promises, time and size.

A seed draws anew what is fitted on: CLINC150 100 of the 120 texts a class that are not for the
test, BANKING77 95 % of its training texts, STAR four fifths of its dialogues, the last one fifth
being its test. Promises are measured on CLINC150's other in-scope texts and on the 200 of
oos_train and oos_val, which nothing is fitted on, in the shares of the test's traffic.
"""

import csv
import gzip
import io
import json
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any, NamedTuple

from tests.bench.routing_rows import row, say, skipped

from madlog.processors.errors import NoEmbedding
from madlog.processors.lppm.embedding import Embedding, installed
from madlog.processors.lppm.recognition import NO_CONTENT, Recognised, Recognizer
from madlog.processors.promise import interval

__all__ = ("rows",)

_PROMISES = ((0.02, 0.50), (0.05, 0.70), (0.10, 0.78))
_SHARE_OUT = 1000 / 5500  # of out-of-scope texts in the traffic, as in CLINC150's test
_ANY = 1.0  # a promise that anything keeps: what is measured is the guess and its score


class _Text(NamedTuple):
    text: str
    label: str | None


def rows(data: Path, seeds: int) -> list[dict[str, Any]]:
    """Measure on the data sets in this folder; a row a figure, or one that says what is absent."""
    found: list[dict[str, Any]] = []
    for title, name, measure in (
        ("CLINC150", "clinc150.json.gz", _clinc),
        ("BANKING77", "banking77_train.csv.gz", _banking),
        ("STAR", "star_train.jsonl.gz", _star),
    ):
        if (data / name).exists():
            say(name)
            found += measure(data, seeds)
            if title == "CLINC150":
                found += _clinc_joined(data, seeds)
        else:
            cure = f"{name} is not in {data}: name the folder that has it with --data"
            found.append(skipped(title, cure))
    return found


def _clinc_joined(data: Path, seeds: int) -> list[dict[str, Any]]:
    """Measure the same with an embedding joined, told and not aimed at, where one is installed."""
    try:
        embedding = installed()
    except NoEmbedding as error:
        return [skipped("CLINC150 with the embedding", str(error))]
    say("clinc150.json.gz, with the embedding")
    found = _clinc(data, seeds, embedding)
    told = {"reach": None, "met": None}
    return [one | told | {"what": f"With the embedding, {one['what']}"} for one in found]


def _clinc(data: Path, seeds: int, embedding: Embedding | None = None) -> list[dict[str, Any]]:
    raw = json.loads(gzip.decompress((data / "clinc150.json.gz").read_bytes()))
    inside = {name: [_Text(*pair) for pair in raw[name]] for name in ("train", "val", "test")}
    outside = {name: [_Text(text, None) for text, _ in raw[f"oos_{name}"]] for name in inside}
    traffic = inside["test"] + outside["test"]
    figures: dict[str, list[float]] = {}
    answers: list[list[Recognised]] = []
    for seed in range(seeds):
        say(f"  seed {seed}")
        fitted, aside = _drawn(inside["train"] + inside["val"], Random(seed))
        begun = perf_counter()
        model = Recognizer.fit(*zip(*fitted, strict=True), seed=seed, embedding=embedding)
        _add(figures, "refit", perf_counter() - begun)
        _add(figures, "size", len(model.to_text()) / 2**20)
        took = []
        found = []
        for one in traffic:
            begun = perf_counter()
            found.append(model.recognise(one.text, _ANY))
            took.append((perf_counter() - begun) * 1000)
        _add(figures, "p50", statistics.median(took))
        _add(figures, "p99", statistics.quantiles(took, n=100)[98])
        _add(figures, "long", _long(model))
        _promised(figures, model, aside, outside["train"] + outside["val"], traffic, Random(seed))
        answers.append(found)
    return [
        *_clinc_accuracy(traffic, answers),
        row("CLINC150: re-fit of 15,000 texts", figures["refit"], "s", reach=20, most=True),
        row("CLINC150: recognition p50", figures["p50"], "ms"),
        row("CLINC150: recognition p99", figures["p99"], "ms", reach=5, most=True),
        row("CLINC150: recognition of a text of 1 MB", figures["long"], "ms"),
        row("CLINC150: model file", figures["size"], "MiB"),
        *_promise_rows(figures),
        _curve(traffic, answers),
    ]


def _drawn(texts: Sequence[_Text], random: Random) -> tuple[list[_Text], list[_Text]]:
    """Return 100 texts a class to fit on, and the others."""
    classes: dict[str | None, list[_Text]] = {}
    for one in texts:
        classes.setdefault(one.label, []).append(one)
    fitted, aside = [], []
    for members in classes.values():
        random.shuffle(members)
        fitted += members[:100]
        aside += members[100:]
    random.shuffle(fitted)
    random.shuffle(aside)
    return fitted, aside


def _add(figures: dict[str, list[float]], name: str, value: float) -> None:
    figures.setdefault(name, []).append(value)


def _long(model: Recognizer) -> float:
    text = "please tell me more about it and book 1234 " * 24_000
    begun = perf_counter()
    model.recognise(text, _ANY)
    return (perf_counter() - begun) * 1000


def _clinc_accuracy(
    traffic: Sequence[_Text], answers: Sequence[Sequence[Recognised]]
) -> list[dict[str, Any]]:
    accuracy, recall = [], []
    for found in answers:
        pairs = list(zip(traffic, found, strict=True))
        inside = [answer for one, answer in pairs if one.label is not None]
        right = sum(one.label == answer.guess for one, answer in pairs)
        accuracy.append(100 * right / len(inside))
        kept = sorted((_ranked(answer) for answer in inside), reverse=True)
        least = kept[int(0.95 * len(kept))]
        outside = [_ranked(answer) < least for one, answer in pairs if one.label is None]
        recall.append(100 * statistics.fmean(outside))
    return [
        row("CLINC150: in-scope accuracy", accuracy, reach=92, baseline="majority 0.67"),
        row(
            "CLINC150: out-of-scope recall, 95 % of in-scope kept",
            recall,
            reach=78,
            baseline="chance 5",
        ),
    ]


def _ranked(answer: Recognised) -> tuple[bool, int]:
    """Return what orders answers: one without content comes after all others."""
    return answer.reason != NO_CONTENT, answer.score


def _promised(
    figures: dict[str, list[float]],
    model: Recognizer,
    inside: Sequence[_Text],
    outside: Sequence[_Text],
    traffic: Sequence[_Text],
    random: Random,
) -> None:
    """Measure scores on a sample in the traffic's shares, and count what is then delivered."""
    size = round(len(outside) * (1 - _SHARE_OUT) / _SHARE_OUT)
    sample = [*random.sample(inside, size), *outside]
    model = model.calibrated(*zip(*sample, strict=True))
    for share, _ in _PROMISES:
        found = [(one, model.recognise(one.text, share).label) for one in traffic]
        given = [(one, label) for one, label in found if label is not None]
        _add(figures, f"answered {share}", len(given))
        _add(figures, f"wrong {share}", sum(one.label != label for one, label in given))
        _add(figures, f"coverage {share}", 100 * len(given) / len(traffic))
        if given:  # a run without answers has no share of errors, and lowers none
            _add(figures, f"error {share}", _percent(figures, share))


def _percent(figures: dict[str, list[float]], share: float) -> float:
    return 100 * figures[f"wrong {share}"][-1] / figures[f"answered {share}"][-1]


def _promise_rows(figures: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Return two rows a promise: of all runs' answers the share that is wrong, and the coverage.

    The interval is of one run's size: the runs share their test.
    """
    made = []
    for share, coverage in _PROMISES:
        wrong = round(statistics.fmean(figures[f"wrong {share}"]))
        answered = round(statistics.fmean(figures[f"answered {share}"]))
        low, high = interval(wrong, answered) if answered else (0.0, 1.0)
        what = f"CLINC150, 18 % out of scope, promised {100 * share:g} %"
        error = row(f"{what}: delivered error", figures.get(f"error {share}", []))
        error |= {
            "ours": round(100 * wrong / answered, 2) if answered else None,
            "spread": f"{error['spread']}; interval {100 * low:.2f}–{100 * high:.2f}",
            "reach": f"lower bound ≤ {100 * share:g}",
            "met": low <= share,
        }
        made.append(error)
        made.append(row(f"{what}: coverage", figures[f"coverage {share}"], reach=100 * coverage))
    return made


def _curve(traffic: Sequence[_Text], answers: Sequence[Sequence[Recognised]]) -> dict[str, Any]:
    """Return the share of errors among the surest tenth, two tenths and so on, of all runs."""
    areas: list[float] = []
    sums = dict.fromkeys(range(1, 11), 0.0)
    for found in answers:
        pairs = sorted(
            zip(traffic, found, strict=True), key=lambda pair: _ranked(pair[1]), reverse=True
        )
        wrong = 0
        risks = []
        for place, (one, answer) in enumerate(pairs, 1):
            wrong += answer.guess != one.label
            risks.append(100 * wrong / place)
        areas.append(statistics.fmean(risks))
        for tenth in range(1, 11):
            sums[tenth] += risks[len(risks) * tenth // 10 - 1]
    made = row("CLINC150, 18 % out of scope: area under risk by coverage", areas)
    points = (
        f"{sums[tenth] / len(answers):.1f} at {10 * tenth} %" for tenth in (5, 6, 7, 8, 9, 10)
    )
    made["spread"] += f"; errors {', '.join(points)} coverage"
    return made


def _banking(data: Path, seeds: int) -> list[dict[str, Any]]:
    train, test = (_csv(data / f"banking77_{name}.csv.gz") for name in ("train", "test"))
    accuracy = []
    for seed in range(seeds):
        fitted = Random(seed).sample(train, len(train) * 95 // 100)
        model = Recognizer.fit(*zip(*fitted, strict=True), seed=seed)
        accuracy.append(_accuracy(model, test))
    return [
        row(
            "BANKING77: accuracy",
            accuracy,
            reach=90.5,
            baseline=f"majority {_majority(train, test)}",
        )
    ]


def _csv(path: Path) -> list[_Text]:
    text = gzip.decompress(path.read_bytes()).decode("utf-8")
    lines = csv.DictReader(io.StringIO(text, ""))
    return [_Text(line["text"], line["category"]) for line in lines]


def _accuracy(model: Recognizer, test: Sequence[_Text]) -> float:
    right = sum(model.recognise(one.text, _ANY).guess == one.label for one in test)
    return 100 * right / len(test)


def _majority(fitted: Sequence[_Text], test: Sequence[_Text]) -> float:
    ((label, _),) = Counter(one.label for one in fitted).most_common(1)
    return round(100 * sum(one.label == label for one in test) / len(test), 2)


def _star(data: Path, seeds: int) -> list[dict[str, Any]]:
    """Name the process by the user's words so far; what came before the first turn is not used."""
    dialogues = []
    for line in gzip.decompress((data / "star_train.jsonl.gz").read_bytes()).split(b"\n"):
        if line:
            dialogue = json.loads(line)
            said = [
                event["Text"]
                for event in dialogue["Events"]
                if event["Agent"] == "User" and event["Action"] == "utter"
            ]
            dialogues.append((said, dialogue["Scenario"]["WizardCapabilities"][0]["Task"]))
    figures: dict[str, list[float]] = {}
    for seed in range(seeds):
        # Five seeds together test every dialogue once: a fifth alone is too few to tell 97 from 98.
        order = Random(seed // 5).sample(dialogues, len(dialogues))
        held = order[seed % 5 :: 5]
        kept = [one for number, one in enumerate(order) if number % 5 != seed % 5]
        turns = [
            (_Text("\n".join(said[:turn]), task), number)
            for number, (said, task) in enumerate(kept)
            for turn in (1, 2, 3)
        ]
        texts, labels = zip(*(one for one, _ in turns), strict=True)
        model = Recognizer.fit(texts, labels, [number for _, number in turns], seed=seed)
        for turn in (1, 2, 3):
            test = [_Text("\n".join(said[:turn]), task) for said, task in held]
            _add(figures, f"turn {turn}", _accuracy(model, test))
            empty = [model.recognise(one.text, _ANY).reason == NO_CONTENT for one in test]
            _add(figures, f"empty {turn}", 100 * statistics.fmean(empty))
            _add(figures, f"base {turn}", _majority([one for one, _ in turns], test))
    made = []
    for turn in (1, 2, 3):
        what = f"STAR: process by user turn {turn}"
        base = f"majority {statistics.fmean(figures[f'base {turn}']):.2f}"
        reach = 97 if turn == 2 else None
        made.append(row(what, figures[f"turn {turn}"], reach=reach, baseline=base))
        made.append(row(f"{what}: said to be without content", figures[f"empty {turn}"]))
    return made
