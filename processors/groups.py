"""Consumer groups as rows: how far each is in each partition, and who works there."""

from typing import Any

from madlog.topics import EventLog

__all__ = ("group_rows",)


async def group_rows(log: EventLog) -> list[dict[str, Any]]:
    """Return a row for each partition of each group: committed, end, lag and member."""
    present = await log.log.topics()
    rows = []
    for group in await log.log.groups():
        topics = [name for name in group.topics if name in present]
        start, end = await log.log.start(topics), await log.log.end(topics)
        for tp in sorted(end):
            committed = group.committed.get(tp)
            done = start[tp] if committed is None else committed
            rows.append(
                {
                    "group": group.group,
                    "topic": tp.topic,
                    "partition": tp.partition,
                    "committed": committed,
                    "end": end[tp],
                    "lag": max(0, end[tp] - done),
                    "member": group.members.get(tp),
                }
            )
    return sorted(rows, key=lambda row: (row["group"], row["topic"], row["partition"]))
