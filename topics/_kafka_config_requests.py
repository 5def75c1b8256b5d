"""Requests about topics' settings and sizes that aiokafka does not speak.

Field by field as Kafka's message definitions give them (IncrementalAlterConfigs.json version 0,
KIP-339; DescribeLogDirs.json version 1, KIP-113).
"""

from collections.abc import Mapping
from typing import ClassVar

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Int8, Int16, Int32, Int64, Schema, String

__all__ = ("TOPIC", "IncrementalAlterConfigs", "LogDirs")

# The type of a resource that is a topic.
TOPIC = 2
_SET = 0


class _AlterResponse(Response):  # type: ignore[misc]
    API_KEY = 44
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "responses",
            Array(
                ("error_code", Int16),
                ("error_message", String("utf-8")),
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
            ),
        ),
    )


class _AlterRequest(RequestStruct):  # type: ignore[misc]
    API_KEY = 44
    API_VERSION = 0
    RESPONSE_TYPE = _AlterResponse
    SCHEMA = Schema(
        (
            "resources",
            Array(
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
                (
                    "configs",
                    Array(
                        ("name", String("utf-8")),
                        ("config_operation", Int8),
                        ("value", String("utf-8")),
                    ),
                ),
            ),
        ),
        ("validate_only", Boolean),
    )


class IncrementalAlterConfigs(Request[_AlterRequest]):  # type: ignore[misc]
    """Set some settings of topics and leave their others as they are."""

    API_KEY: ClassVar[int] = 44

    def __init__(self, topics: Mapping[str, Mapping[str, str]], *, validate_only: bool) -> None:
        self._resources = [
            (TOPIC, name, [(key, _SET, value) for key, value in settings.items()])
            for name, settings in topics.items()
        ]
        self._validate_only = validate_only

    def build(self, request_struct_class: type[_AlterRequest]) -> _AlterRequest:
        """Return the request for the wire."""
        return request_struct_class(self._resources, self._validate_only)


class _LogDirsResponse(Response):  # type: ignore[misc]
    API_KEY = 35
    API_VERSION = 1
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "results",
            Array(
                ("error_code", Int16),
                ("log_dir", String("utf-8")),
                (
                    "topics",
                    Array(
                        ("name", String("utf-8")),
                        (
                            "partitions",
                            Array(
                                ("partition_index", Int32),
                                ("partition_size", Int64),
                                ("offset_lag", Int64),
                                ("is_future_key", Boolean),
                            ),
                        ),
                    ),
                ),
            ),
        ),
    )


class _LogDirsRequest(RequestStruct):  # type: ignore[misc]
    API_KEY = 35
    API_VERSION = 1
    RESPONSE_TYPE = _LogDirsResponse
    SCHEMA = Schema(
        ("topics", Array(("topic", String("utf-8")), ("partitions", Array(Int32)))),
    )


class LogDirs(Request[_LogDirsRequest]):  # type: ignore[misc]
    """Ask one broker how many bytes its replicas of partitions take on its disks."""

    API_KEY: ClassVar[int] = 35

    def __init__(self, topics: Mapping[str, list[int]]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_LogDirsRequest]) -> _LogDirsRequest:
        """Return the request for the wire."""
        return request_struct_class(list(self._topics.items()))
