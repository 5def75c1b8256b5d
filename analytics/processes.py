"""The process that was mined last for an agent, from the log's models."""

import json

from madlog.processors.errors import InvalidModel
from madlog.processors.lppm.process import Process
from madlog.topics import EventLog

__all__ = ("newest_process",)


async def newest_process(log: EventLog, agent: str) -> Process | None:
    """Return the newest process of an agent, None where there is none; raises InvalidModel."""
    text: str | None = None
    async for events in log.read_topics(["mad.models"]):
        for event in events:
            fields = event.fields
            if event.kind == "ModelPublished" and fields["component"] == "process":
                text = fields["parameters"] if fields["mad"] == agent else text
    if text is None:
        return None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"the process of {agent} is not JSON: {error}") from error
    return Process.from_document(document)
