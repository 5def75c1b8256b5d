"""The law of the lake's files: what is read of them is what was archived, of any event at all."""

import json
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.property.test_schemas_equal import models

from madlog.analytics.columns import ALL, KINDS
from madlog.analytics.lake import layout
from madlog.analytics.tables import TableBuilder
from madlog.schemas import EVENT_KINDS, Event, Schemas, encode
from madlog.topics import LogEvent, Record

SCHEMAS = Schemas()


def logged(events: list[Event]) -> list[LogEvent]:
    """Return events as a log of one partition holds them."""
    made = []
    for offset, event in enumerate(events):
        value = encode(event)
        record = Record("t", 0, offset, b"", value, (), offset)
        made.append(LogEvent(record, *SCHEMAS.decode_fields(value)))
    return made


def table(builder: TableBuilder, events: list[LogEvent]) -> Any:
    for event in events:
        builder.add(event)
    return builder.finish()


def rows(found: Any) -> list[dict[str, Any]]:
    """Return rows in the order of the log, JSON as what it says."""
    listed = sorted(found.to_pylist(), key=lambda row: int(row["offset"]))
    for row in listed:
        for name in ("payload", "parts"):
            if isinstance(row.get(name), str):
                row[name] = json.loads(row[name])
    return listed


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != ALL])
def test_each_kinds_table_and_payload_come_out_of_its_file_as_they_went_in(kind: str) -> None:
    con = duckdb.connect(":memory:")

    @settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(models(EVENT_KINDS[kind]), min_size=1, max_size=4))
    def law(events: list[Event]) -> None:
        held = logged(events)
        packed = layout.packed(con, kind, table(layout.new_builder(kind, SCHEMAS), held))
        con.register("file", packed)
        found = con.sql(f"SELECT {layout.select(kind)} FROM file").to_arrow_table()
        assert rows(found) == rows(table(TableBuilder(KINDS[kind], SCHEMAS), held))
        found = con.sql(f"SELECT {layout.event_select(kind)} FROM file").to_arrow_table()
        assert rows(found) == rows(table(TableBuilder(KINDS[ALL], SCHEMAS), held))

    law()
    con.close()
