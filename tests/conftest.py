"""What all tests share."""

import pytest

# The shipped suite asserts too: its failures must show values, like any test's.
pytest.register_assert_rewrite("madlog.topics.testing")
