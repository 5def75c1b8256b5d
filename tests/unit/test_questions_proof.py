"""Named questions for auditors: faults, security and proof, each on a log of a few events."""

import json
from typing import Any

import pytest
from tests.unit.test_questions import DAY, about, answer, call, decision, eid, log_of, turn
from tests.unit.test_questions_agents import Case, changed, later, ordered
from tests.unit.test_questions_learning import outcome

from madlog.analytics.errors import UnknownEvent
from madlog.analytics.importing.redaction import Redactor
from madlog.analytics.questions import ask, questions
from madlog.processors.acting.readability import CONSTITUTION
from madlog.schemas import (
    AuditEntry,
    CheckpointSigned,
    DeadLetter,
    Event,
    ToolCall,
    encode,
)
from madlog.topics import CATALOG, EventLog, NewRecord

HOUR = DAY // 24


def subject(made: Event, who: str) -> Event:
    return made.model_copy(update={"subject": who})


def audited(n: int, action: str, verdict: str = "answered", **more: Any) -> AuditEntry:
    return AuditEntry(
        **about(n, "gate"), action=action, verdict=verdict, principal=more.pop("by", "anna"), **more
    )


def signed(n: int, partition: int, offset: int, size: int) -> CheckpointSigned:
    return CheckpointSigned(
        **about(n, "evidence"),
        topic="mad.conversations",
        partition=partition,
        offset=offset,
        size=size,
        root_sha256=f"{n:064x}",
        origin="log",
        note="note",
        verifier_key="key",
    )


def letter(n: int, error_type: str, value: bytes = b"", source: bytes | None = None) -> DeadLetter:
    return DeadLetter(
        **about(n, "router"),
        processor="router",
        topic="mad.conversations",
        partition=0,
        offset=n,
        record_key=b"c1",
        record_value=value,
        record_headers={} if source is None else {"source": source},
        error_type=error_type,
        error=f"no {n}",
        attempts=1,
    )


CASES = (
    Case(
        "failed-decisions",
        [
            turn(1, "anna", "bot"),
            decision(2, "dtr"),
            *call(3, "refund", {}, ok=False),
            outcome(5, eid(2), "failure", "tool").model_copy(update={"causation_id": eid(4)}),
            decision(6, "dtr"),
            outcome(7, eid(6), "failure", "tool"),
            outcome(8, eid(6), "success", "tool"),
            outcome(9, eid(6), "failure", "credit"),
        ],
        {},
        ("decision_id", "expected", "result", "judged_by", "observed"),
        [(eid(2), "action:ok", "failure", "tool", "out of stock")],
    ),
    Case(
        "invalid-events",
        [
            letter(1, "Undecodable", encode(turn(1, "anna"))[:-1], b"escalations/mad.x/0@1/0"),
            letter(2, "Undecodable", encode(turn(1, "anna"))[:20]),
            letter(3, "Damaged"),
            letter(4, "ValueError", encode(turn(1, "anna"))),
        ],
        {},
        ("producer", "event", "version", "error_type", "records", "last_error"),
        [
            ("client", "Turn", 1, "Undecodable", 1, "no 2"),
            ("client", None, None, "Damaged", 1, "no 3"),
            ("escalations", "Turn", 1, "Undecodable", 1, "no 1"),
        ],
    ),
    Case(
        "dead-letters",
        [letter(1, "ValueError", encode(turn(1, "anna"))), letter(2, "Damaged")],
        {},
        ("error_type", "schema"),
        [("Damaged", None), ("ValueError", "Turn v1")],
    ),
    Case(
        "refusals",
        [
            decision(1, "dtr"),
            outcome(2, eid(1), "failure", "guard-budget").model_copy(
                update={"extra": {"action": "refund", "reason": "over it"}}
            ),
            audited(3, "sql", "refused", text="select 1", reason="no view"),
            audited(4, "sql"),
            outcome(5, eid(1), "failure", "tool"),
        ],
        {},
        ("identity", "what", "asked", "refused_by", "reason"),
        [
            ("anna", "sql", "select 1", "gate", "no view"),
            ("bot", "act", "refund", "guard-budget", "over it"),
        ],
    ),
    Case(
        "secret-accesses",
        [
            audited(1, "secret-get", text="api-key"),
            audited(2, "secret-get", "refused", text="api-key", by="ben"),
            audited(3, "sql", "refused"),
        ],
        {"denied": "true"},
        ("principal", "action", "secret", "verdict"),
        [("ben", "secret-get", "api-key", "refused")],
    ),
    Case(
        "secrets",
        [
            audited(1, "secret-set", text="old"),
            audited(2, "secret-get", text="old"),
            audited(3, "secret-get", "refused", text="old", by="ben"),
            later(audited(4, "secret-set", text="new"), 100 * DAY),
        ],
        {},
        ("secret", "age_days", "too_old", "reads", "unused", "times_denied", "readers"),
        [
            ("old", 100, True, 1, False, 1, ["anna"]),
            ("new", 0, False, 0, True, 0, []),
        ],
    ),
    Case(
        "bulk-reads",
        [
            *(
                ToolCall(**about(n, "bot"), action="get_order", arguments=f'{{"id": "A{n}"}}')
                for n in (1, 2, 3, 4)
            ),
            later(ToolCall(**about(9, "bot"), action="get_order", arguments="{}"), HOUR),
            *(
                ToolCall(**about(n, "bot"), action="refund", arguments=f'{{"id": {n}}}')
                for n in (11, 12, 13)
            ),
        ],
        {"times": "3"},
        ("sender", "action", "reads", "things", "sequential"),
        [("bot", "get_order", 4, 4, 1.0)],
    ),
    Case(
        "security",
        [
            turn(1, "watch", "mcnamara", "47 sessions", tags=("security",)),
            *call(501, "freeze_account", {"who": "x"}),
            turn(600, "watch", "mcnamara", "again", "c2", tags=("security",)),
            ordered(2600, "stop", "all").model_copy(
                update={"conversation_id": "control", "causation_id": eid(600)}
            ),
            turn(9000, "watch", "mcnamara", "nobody came", "c3", tags=("security",)),
        ],
        {},
        ("text", "responded", "response", "to_contain_s"),
        [
            ("nobody came", None, None, None),
            ("again", "ann", "stop all", 2.0),
            ("47 sessions", "bot", 'freeze_account({"who": "x"})', 0.5),
        ],
    ),
    Case(
        "approvals",
        [
            *(
                ordered(
                    n,
                    "ask",
                    about_id=eid(100 + n),
                    value='{"action":"refund","arguments":{"order":17}}',
                    expires_at=n * 1000 + 60_000_000,
                )
                for n in (1, 2, 3, 4)
            ),
            # It asks for nothing that could be done, so nothing waits.
            ordered(5, "ask", about_id=eid(105), value="no JSON", expires_at=60_000_000),
            ordered(2_001, "approve", about_id=eid(101)),
            ordered(2_002, "refuse", about_id=eid(102), reason="no"),
            ordered(90_000, "approve", about_id=eid(103)),
            ordered(91_000, "expire", about_id=eid(103)),
        ],
        {},
        ("action", "arguments", "answer", "answered_by", "waited_s", "reason"),
        [
            ("refund", '{"order":17}', "waits", None, None, None),
            ("refund", '{"order":17}', "expired", "ann", 90.997, None),
            ("refund", '{"order":17}', "refused", "ann", 2.0, "no"),
            ("refund", '{"order":17}', "approved", "ann", 2.0, None),
        ],
    ),
    Case(
        "about-person",
        [
            turn(1, "anna", "bot", "hi"),
            turn(2, "bot", "anna", "yes"),
            turn(3, "bot", "desk", "ask Anna, please"),
            turn(4, "bot", "desk", "a savanna is no anna-lyst's name: annabel"),
            subject(turn(5, "bot", "desk", "of her"), "anna"),
            changed(6, "joined", "anna", by="desk"),
            turn(7, "bot", "desk", "susanna"),
            turn(8, "bot", "desk", "x").model_copy(update={"mentions": ("anna",)}),
            turn(9, "bot", "desk", "annaé is another word"),
            ordered(10, "stop", reason="anna asked"),
        ],
        {"person": "anna"},
        ("event_id", "relation"),
        [
            (eid(1), "by"),
            (eid(2), "to"),
            (eid(3), "names"),
            (eid(4), "names"),
            (eid(5), "subject"),
            (eid(6), "participant"),
            (eid(8), "mentions"),
            (eid(10), "names"),
        ],
    ),
    Case(
        "checkpoints",
        [signed(1, 0, 10, 10), signed(2, 0, 20, 20), signed(3, 1, 5, 5)],
        {},
        ("partition", "up_to_offset", "records", "root_sha256", "checkpoints"),
        [(0, 20, 20, f"{2:064x}", 2), (1, 5, 5, f"{3:064x}", 1)],
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_the_answer_on_a_small_log_is_the_one_counted_by_hand(case: Case) -> None:
    log = await log_of(*case.events)
    assert await answer(log, case.name, *case.columns, **case.params) == case.rows


async def test_bursts_odd_hours_and_equal_sizes_are_told() -> None:
    noon: list[Event] = [later(turn(n, "bot", "anna"), 12 * HOUR) for n in range(1, 120)]
    night = later(turn(200, "bot", "anna"), 3 * HOUR)
    made: list[Event] = [changed(300 + n, "created", "spy", f"s{n}", by="spy") for n in range(25)]
    same: list[Event] = [turn(400 + n, "anna", "bot", f"{n:0200}", f"s{n}") for n in range(12)]
    log = await log_of(noon, night, made, same)
    assert await answer(log, "anomalies", "signal", "sender", "times", "detail") == [
        ("after hours", "bot", 1, "3 o'clock, 0.83 % of its turns"),
        ("one size", "anna", 12, "200 characters, in 12 conversations"),
        ("burst of conversations", "spy", 25, "begun in 10 minutes"),
    ]


SECRETS = (
    ("-----BEGIN RSA PRIVATE KEY-----\nabc", "private-key"),
    ("use sk-abcdefghijklmnop1234 now", "token"),
    ("AKIAABCDEFGHIJKLMNOP", "token"),
    ("ghp_abcdefghijklmnopqrst12", "token"),
    ("eyJhbGciOiJI.eyJzdWIiOiIx.x", "token"),
    ("Authorization: Bearer abcdefghijklmnop.qrst", "bearer"),
    ("postgres://user:hunter2@db/x", "password-in-url"),
    ("password=hunter2", "assigned"),
    ('{"api_key": "abc123"}', "assigned"),
    ("client_secret: 'x y'", "assigned"),
    ('{"password": null}', None),
    ("password=[REDACTED:secret]", None),
    ("my password was wrong", None),
    ("risk-free, ask-me", None),
    ("see https://example.org:8080/path", None),
    ("mail anna@example.org", None),
)


@pytest.mark.parametrize(("text", "shape"), SECRETS)
def test_the_samples_are_secrets_for_redaction_too(text: str, shape: str | None) -> None:
    redactor = Redactor()
    redactor.value(text)
    found = {"secret", "private-key"} & set(redactor.counts)
    assert bool(found) == (shape is not None)


async def test_leaks_are_what_redaction_would_take_out_and_are_not_shown() -> None:
    told: list[Event] = [turn(n, "anna", text=text) for n, (text, _) in enumerate(SECRETS, 1)]
    acts = call(50, "login", {"password": "hunter2"})
    log = await log_of(told, acts)
    found = await answer(log, "leaks", "event_id", "what", "shape")
    assert found[0] == (eid(50), "call", "assigned")
    expected = [(eid(n), "turn", shape) for n, (_, shape) in enumerate(SECRETS, 1) if shape]
    assert found[:0:-1] == expected
    everything = (await ask(log, "leaks")).table.to_pylist()
    assert "hunter2" not in json.dumps(everything, default=str)


UNREADABLE = (
    "an ordinary turn",
    "a bell \x07",
    "zero\u200bwidth",
    "tag \U000e0041 alone",
    "flag \U0001f3f4\U000e0067\U000e0062\U000e007f",
    "joined \u200d ascii",
    "\u200dat the start",
    "man \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "private \ue000",
    "a" * 128,
    "a" * 129,
    "Ab1" * 30,
    "Ab1/" * 30,
    "ab1/" * 30,
    "lost \ufffd\ufffd",
    "lost \ufffd\ufffd" + " word" * 30,
    "one \ufffd",
    "line\nbreak and\ttab",
    "soft\u00adhyphen",
    "é and 漢字 and हिन्दी",
    "क्\u200dष",
)


async def test_unreadable_turns_are_those_that_the_guards_refuse() -> None:
    rules = [
        next(
            (one.name.removeprefix("readability-") for one in CONSTITUTION if one.broken(text)),
            None,
        )
        for text in UNREADABLE
    ]
    assert {"hidden", "encoded", "undecodable", None} == set(rules)
    told: list[Event] = [turn(n, f"s{n}", text=text) for n, text in enumerate(UNREADABLE)]
    found = await answer(await log_of(told), "unreadable", "sender", "turns", "unreadable", "rules")
    expected = [(f"s{n}", 1, 1, [rule]) for n, rule in enumerate(rules) if rule]
    assert found == sorted(expected)


async def test_a_sender_s_share_of_unreadable_turns_is_told_by_period() -> None:
    log = await log_of(
        turn(1, "anna"),
        turn(2, "anna", text="\u200b"),
        later(turn(3, "anna"), 9 * DAY),
        turn(4, "ben"),
    )
    assert await answer(log, "unreadable", "sender", "turns", "unreadable", "share") == [
        ("anna", 2, 1, 0.5),
        ("anna", 1, 0, 0.0),
    ]


async def test_repeated_events_are_counted_by_key_and_by_id() -> None:
    keyed = turn(1, "anna").model_copy(update={"idempotency_key": "k"})
    log = await log_of(keyed, turn(2, "anna"))
    # What another program wrote, without the key that the log itself knows repeats by.
    for again in (keyed.model_copy(update={"event_id": eid(9)}), turn(2, "anna")):
        await log.log.append([NewRecord("mad.conversations", b"c1", encode(again))])
    columns = ("topic", "events", "with_key", "repeat_a_key", "repeat_an_id", "rate")
    found = {row[0]: row[1:] for row in await answer(log, "repeated-events", *columns)}
    assert found["mad.conversations"] == (4, 2, 1, 1, 0.5)


async def gapped() -> EventLog:
    """Return a log with two offsets of c1's partition that cannot be read."""
    log = await log_of(turn(1, "anna"), turn(2, "anna"))
    await log.log.append([NewRecord("mad.conversations", b"c1", b"junk")] * 2)
    await log.append([turn(3, "anna", cause=2)])
    return log


async def test_gaps_stand_between_the_offsets_that_are_there() -> None:
    log = await gapped()
    columns = ("topic", "after_offset", "before_offset", "missing", "conversation_before")
    assert await answer(log, "gaps", *columns) == [("mad.conversations", 1, 4, 2, "c1")]


COMPLETE = ("verdict", "events", "missing_offsets", "named_but_not_there", "fewer_than_signed")


async def completeness(log: EventLog, **params: str) -> list[tuple[Any, ...]]:
    found = await answer(log, "completeness", "topic", *COMPLETE, **params)
    return [row[1:] for row in found if row[0] == "mad.conversations"]


async def test_a_whole_log_misses_nothing() -> None:
    log = await log_of(turn(1, "anna"), turn(2, "anna", cause=1), call(3, "refund", {}))
    assert await completeness(log) == [("nothing is missing", 4, 0, 0, 0)]


async def test_gaps_are_told_and_so_is_what_they_mean() -> None:
    log = await gapped()
    assert await completeness(log) == [("gaps", 3, 2, 0, 0)]
    result = await ask(log, "completeness")
    told = result.table.filter(result.table["topic"].to_numpy() == "mad.conversations")
    assert "normal on Kafka" in told["rests_on"][0].as_py()


async def test_what_is_named_and_not_there_is_missing() -> None:
    log = await log_of(turn(1, "anna"), turn(2, "anna", cause=77))
    assert await completeness(log) == [("something is missing", 2, 0, 1, 0)]


async def test_a_checkpoint_tells_of_a_lost_end() -> None:
    whole = await log_of(turn(1, "anna"), turn(2, "anna"))
    partition = (await whole.log.end(["mad.conversations"])).items()
    (at,) = [tp.partition for tp, offset in partition if offset]
    await whole.append([signed(3, at, 2, 2)])
    assert await completeness(whole) == [("nothing is missing", 2, 0, 0, 0)]
    cut = await log_of(turn(1, "anna"), signed(3, at, 2, 2))
    assert await completeness(cut) == [("fewer than signed", 1, 0, 0, 1)]
    gone = await log_of(signed(3, at, 2, 2))
    assert await completeness(gone) == [("fewer than signed", 0, None, 0, 2)]


async def test_completeness_is_told_between_two_times() -> None:
    log = await log_of(turn(1, "anna"), turn(2, "anna", cause=77))
    # The clock of this log: the schemas, then one second later for each append.
    times = [row[0] for row in await answer(log, "completeness", "last_at", "topic")]
    middle = max(times).isoformat()
    assert await completeness(log, until=middle) == [("nothing is missing", 1, 0, 0, 0)]
    assert await completeness(log, since=middle) == [("something is missing", 1, 0, 1, 0)]


async def test_what_is_past_its_retention_is_counted() -> None:
    log = await log_of(turn(1, "anna"))
    columns = ("topic", "kept_days", "events", "past")
    found = {row[0]: row[1:] for row in await answer(log, "past-retention", *columns)}
    assert found["mad.conversations"] == (None, 1, 0)


def test_retention_in_the_questions_is_the_catalogue_s() -> None:
    kept = {name: topic.retention_s for name, topic in CATALOG.items() if topic.retention_s}
    assert kept == {"mad.system": 365 * DAY // 1_000_000}
    sql = questions()["past-retention"].sql
    assert "WHEN topic = 'mad.system' THEN 365" in sql
    assert "WHEN starts_with(topic, 'mad.inbox.') THEN 7" in sql


async def test_an_event_that_is_not_there_is_an_error_and_not_an_empty_answer() -> None:
    log = await log_of(turn(1, "anna"))
    assert await answer(log, "root-cause", "steps_back", event=eid(1)) == [(0,)]
    with pytest.raises(UnknownEvent, match="holds no event"):
        await ask(log, "root-cause", {"event": eid(2)})
