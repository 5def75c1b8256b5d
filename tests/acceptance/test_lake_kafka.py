"""A folder and Kafka archive the same events to the same rows, and answer the same over them."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tests.unit.lake_scene import answers, archive, mixed

from madlog.analytics.lake import ArchiverOptions, LakeStore, read_manifest
from madlog.wiring import opened

# What the log's own clock and its own counting put in.
OWN = ("partition", "offset", "appended_at")


async def rows_of(store: LakeStore, log: Any) -> dict[str, list[dict[str, Any]]]:
    by_table: dict[str, list[Any]] = {}
    for one in await read_manifest(log):
        for file in one.files:
            with store.open(file.path) as opened_file:
                by_table.setdefault(file.table, []).append(pq.read_table(opened_file))
    return {
        name: pa.concat_tables(tables).drop_columns(OWN).sort_by("event_id").to_pylist()
        for name, tables in by_table.items()
    }


def lasting(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = [{name: row[name] for name in row if name not in OWN} for row in rows]
    return sorted(kept, key=lambda row: str(row["event_id"]))


async def test_both_backends_archive_to_equal_rows(
    tmp_path: Path, kafka_url: str, kafka_prefix: str
) -> None:
    stored: list[dict[str, list[dict[str, Any]]]] = []
    answered: list[dict[str, list[dict[str, Any]]]] = []
    for url in (str(tmp_path / "log"), f"{kafka_url}?prefix={kafka_prefix}"):
        async with opened(url) as log:
            store = LakeStore(str(tmp_path / f"lake-{len(stored)}"))
            for first in (0, 60):
                await log.append(mixed(60, first=first))
                await archive(log, store, ArchiverOptions(records_max=25))
            stored.append(await rows_of(store, log))
            await log.append(mixed(10, first=120))
            found = await answers(log, store)
            assert found == await answers(log)
            answered.append({view: lasting(rows) for view, rows in found.items()})
    assert stored[0].keys() >= {"Turn", "ToolCall", "Outcome", "Event", "SchemaRegistered"}
    assert stored[1] == stored[0]
    assert answered[1] == answered[0]
