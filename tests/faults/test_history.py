"""The checker of histories, shown each anomaly that it is there to name."""

from collections.abc import Callable

import pytest
from tests.faults.history import BATCH_MAX, Ack, History, Sent, anomalies, value_of

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


def good_on_kafka() -> History:
    """Offsets with gaps; b 1 was sent twice, the second copy acknowledged and dropped by readers;
    a 2 was refused and sent again, a 4 refused and given up; the outcomes of a 3, which is there,
    and of b 2, which is not, are unknown.
    """
    log = [
        record("a", 0, 0),
        record("b", 0, 1),
        record("a", 1, 3),
        record("b", 1, 4),
        record("a", 2, 8),
        record("a", 3, 9),
    ]
    places = {("a", 0): 0, ("b", 0): 1, ("a", 1): 3, ("b", 1): 6, ("a", 2): 8}
    acks = [Ack(Position(TOPIC, 0, at), *name) for name, at in places.items()]
    # The second reader began between the copies of b 1, and so was given the second.
    late = [record("b", 1, 6), record("a", 2, 8), record("a", 3, 9)]
    return History(
        acks,
        log,
        {"whole": list(log), "late": late},
        refused=[Sent("a", 2), Sent("a", 4)],
        unknown=[Sent("a", 3), Sent("b", 2), Sent("b", 1)],
        gaps=True,
        in_flight_max=0,
    )


def drop_from_log(history: History, offset: int) -> None:
    history.log = [record for record in history.log if record.offset != offset]
    for name, seen in history.readers.items():
        history.readers[name] = [record for record in seen if record.offset != offset]


def lose_one(history: History) -> None:
    drop_from_log(history, 3)


def repeat_in_log(history: History) -> None:
    history.log.insert(4, record("b", 1, 6))


def repeat_for_a_reader(history: History) -> None:
    history.readers["whole"].insert(4, record("b", 1, 6))


def give_again(history: History) -> None:
    history.readers["whole"].append(history.readers["whole"][-1])


def reorder_key_in_log(history: History) -> None:
    history.log[2], history.log[4] = record("a", 2, 3), record("a", 1, 8)
    history.readers.clear()


def reorder_key_for_a_reader(history: History) -> None:
    seen = history.readers["whole"]
    seen[2], seen[4] = seen[4], seen[2]


def reorder_partition_in_log(history: History) -> None:
    history.log[0], history.log[1] = history.log[1], history.log[0]
    history.readers.clear()


def reorder_partition_for_a_reader(history: History) -> None:
    seen = history.readers["whole"]
    seen[0], seen[1] = seen[1], seen[0]


def acknowledge_below(history: History) -> None:
    history.acks[4] = Ack(Position(TOPIC, 0, 2), "a", 2)


def show_refused(history: History) -> None:
    history.log.append(record("a", 4, 11))


def show_refused_to_a_reader(history: History) -> None:
    history.readers["whole"].append(record("a", 4, 11))


def show_never_sent(history: History) -> None:
    history.log.append(record("b", 3, 11))


def show_foreign(history: History) -> None:
    history.log.append(Record(TOPIC, 0, 11, b"a", b"a 3 torn", (), 1))


def skip_for_a_reader(history: History) -> None:
    del history.readers["whole"][2]


def two_values_for_readers(history: History) -> None:
    history.readers["late"][0] = record("b", 2, 4)


def two_values_acknowledged(history: History) -> None:
    history.acks[1] = Ack(Position(TOPIC, 0, 0), "b", 0)


def test_a_good_history_of_kafka_has_no_anomaly() -> None:
    assert anomalies(good_on_kafka()) == []


@pytest.mark.parametrize(
    ("plant", "kinds"),
    [
        (lose_one, {"lost"}),
        (repeat_in_log, {"repeated"}),
        (repeat_for_a_reader, {"repeated"}),
        (give_again, {"repeated"}),
        (reorder_key_in_log, {"reordered", "two values"}),
        (reorder_key_for_a_reader, {"reordered"}),
        (reorder_partition_in_log, {"reordered"}),
        (reorder_partition_for_a_reader, {"reordered"}),
        (acknowledge_below, {"reordered"}),
        (show_refused, {"phantom"}),
        (show_refused_to_a_reader, {"phantom"}),
        (show_never_sent, {"phantom"}),
        (show_foreign, {"phantom"}),
        (skip_for_a_reader, {"skipped"}),
        (two_values_for_readers, {"two values", "phantom", "skipped"}),
        (two_values_acknowledged, {"two values"}),
    ],
)
def test_what_is_planted_in_a_history_of_kafka_is_named_and_nothing_else(
    plant: Callable[[History], None], kinds: set[str]
) -> None:
    history = good_on_kafka()
    plant(history)
    assert {found.kind for found in anomalies(history)} == kinds
