"""The conformance suite of the log, for the tests of a backend; needs pytest and hypothesis."""

import pytest

# Before the tests are imported, so that their assertions say what differed.
pytest.register_assert_rewrite(
    *(f"{__name__}.{name}_tests" for name in ("writing", "reading", "group"))
)

from madlog.topics.testing.clocks import ManualClock  # noqa: E402
from madlog.topics.testing.harness import Harness  # noqa: E402
from madlog.topics.testing.log_machine import LogMachine  # noqa: E402
from madlog.topics.testing.log_tests import LogTests  # noqa: E402

__all__ = ("Harness", "LogMachine", "LogTests", "ManualClock")
