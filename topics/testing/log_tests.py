"""The conformance suite that every backend runs: a test named for each guarantee, and more."""

import pytest

from madlog.topics.testing.group_tests import GroupTests
from madlog.topics.testing.reading_tests import ReadingTests
from madlog.topics.testing.writing_tests import WritingTests

__all__ = ("LogTests",)


@pytest.mark.asyncio
class LogTests(WritingTests, ReadingTests, GroupTests):
    """Subclass this as `class TestMyLog(LogTests)` and fill in the hooks of Harness.

    `make_log` and `reopen` are needed; tests whose hook or ability is missing are skipped.
    The guarantees G1 to G12 are those of madlog.topics.log.
    """
