"""The checker of histories, shown each anomaly that it is there to name."""

from collections.abc import Callable

import pytest
from tests.faults.history import BATCH_MAX, Ack, History, anomalies, value_of

from madlog.topics.log import Record
from madlog.topics.positions import Position

TOPIC = "mad.conversations"


def record(key: str, number: int, offset: int) -> Record:
    return Record(TOPIC, 0, offset, key.encode(), value_of(key, number), (), 1)


def good() -> History:
    log = [record("a", 0, 0), record("b", 0, 1), record("a", 1, 2), record("a", 2, 3)]
    acks = [Ack(Position(TOPIC, 0, 0), "a", 0), Ack(Position(TOPIC, 0, 2), "a", 1)]
    return History(acks, log, {"one": log[:3], "two": log[1:]})


def lose(history: History) -> None:
    history.log[2] = record("b", 1, 2)


def repeat(history: History) -> None:
    history.log.append(record("a", 2, 4))


def reorder(history: History) -> None:
    history.log[2:] = [record("a", 2, 2), record("a", 1, 3)]


def put_unsent(history: History) -> None:
    history.log.append(record("a", 1 + BATCH_MAX + 1, 4))


def put_foreign(history: History) -> None:
    history.log.append(Record(TOPIC, 0, 4, b"a", b"a 3 damaged", (), 1))


def leave_gap(history: History) -> None:
    history.log[3] = record("a", 2, 4)


def skip(history: History) -> None:
    del history.readers["one"][1]


def see_twice(history: History) -> None:
    history.readers["two"].append(history.readers["two"][-1])


def see_uncommitted(history: History) -> None:
    history.readers["two"].append(record("b", 1, 4))


def test_a_good_history_has_no_anomaly() -> None:
    assert anomalies(good()) == []


@pytest.mark.parametrize(
    ("plant", "kind"),
    [
        (lose, "lost"),
        (repeat, "repeated"),
        (reorder, "reordered"),
        (put_unsent, "phantom"),
        (put_foreign, "phantom"),
        (leave_gap, "gap"),
        (skip, "skipped"),
        (see_twice, "repeated"),
        (see_uncommitted, "phantom"),
    ],
)
def test_a_planted_anomaly_is_named(plant: Callable[[History], None], kind: str) -> None:
    history = good()
    plant(history)
    assert kind in {found.kind for found in anomalies(history)}
