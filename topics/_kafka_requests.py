"""Requests that aiokafka does not speak in the version needed, over its protocol classes.

Field by field as Kafka's message definitions give them (DescribeProducers.json, KIP-664;
OffsetFetch.json version 7, KIP-447).
"""

from typing import ClassVar

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

__all__ = ("UNSTABLE_OFFSET_COMMIT", "DescribeProducers", "StableOffsets")

# The group's positions wait for the end of a transaction.
UNSTABLE_OFFSET_COMMIT = 88

_NAMED_PARTITIONS = CompactArray(
    ("name", CompactString("utf-8")),
    ("partitions", CompactArray(Int32)),
    ("tags", TaggedFields),
)


class _DescribeProducersResponse(Response):  # type: ignore[misc]
    API_KEY = 61
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("name", CompactString("utf-8")),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("error_code", Int16),
                        ("error_message", CompactString("utf-8")),
                        (
                            "producers",
                            CompactArray(
                                ("producer_id", Int64),
                                ("producer_epoch", Int32),
                                ("last_sequence", Int32),
                                ("last_timestamp", Int64),
                                ("coordinator_epoch", Int32),
                                ("txn_start_offset", Int64),
                                ("tags", TaggedFields),
                            ),
                        ),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _DescribeProducersRequest(RequestStruct):  # type: ignore[misc]
    API_KEY = 61
    API_VERSION = 0
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _DescribeProducersResponse
    SCHEMA = Schema(("topics", _NAMED_PARTITIONS), ("tags", TaggedFields))


class DescribeProducers(Request[_DescribeProducersRequest]):  # type: ignore[misc]
    """Ask which producers have written to partitions, and whose transactions are open."""

    API_KEY: ClassVar[int] = 61

    def __init__(self, topics: list[tuple[str, list[int]]]) -> None:
        self._topics = topics

    def build(
        self, request_struct_class: type[_DescribeProducersRequest]
    ) -> _DescribeProducersRequest:
        """Return the request for the wire."""
        return request_struct_class([(name, parts, {}) for name, parts in self._topics], {})


class _OffsetFetchResponse(Response):  # type: ignore[misc]
    API_KEY = 9
    API_VERSION = 7
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("name", CompactString("utf-8")),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", CompactString("utf-8")),
                        ("error_code", Int16),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("error_code", Int16),
        ("tags", TaggedFields),
    )


class _OffsetFetchRequest(RequestStruct):  # type: ignore[misc]
    API_KEY = 9
    API_VERSION = 7
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _OffsetFetchResponse
    SCHEMA = Schema(
        ("group", CompactString("utf-8")),
        ("topics", _NAMED_PARTITIONS),
        ("require_stable", Boolean),
        ("tags", TaggedFields),
    )


class StableOffsets(Request[_OffsetFetchRequest]):  # type: ignore[misc]
    """Ask for a group's positions in (topic, partitions), none of which may be taken back.

    They are named because a group's first position, while its transaction ends, is left out of an
    answer about all of them, and is said to be unstable in one about itself.
    """

    API_KEY: ClassVar[int] = 9

    def __init__(self, group: str, places: list[tuple[str, list[int]]]) -> None:
        self._group = group
        self._places: list[tuple[str, list[int], dict[int, bytes]]] = [
            (topic, partitions, {}) for topic, partitions in places
        ]

    def build(self, request_struct_class: type[_OffsetFetchRequest]) -> _OffsetFetchRequest:
        """Return the request for the wire."""
        return request_struct_class(self._group, self._places, True, {})
