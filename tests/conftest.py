"""What all tests share."""

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.brokers.cluster import Cluster

# The shipped suite asserts too: its failures must show values, like any test's.
pytest.register_assert_rewrite("madlog.topics.testing")


@pytest.fixture(scope="session")
def kafka_bootstrap(tmp_path_factory: pytest.TempPathFactory) -> str:
    """HOST:PORT of the one broker of this run, shared by all workers; it ends with the run."""
    from tests.brokers.jars import BrokerUnavailable
    from tests.brokers.shared import shared_broker
    from tests.brokers.source import without_broker

    base = tmp_path_factory.getbasetemp()
    try:
        if "PYTEST_XDIST_WORKER" in os.environ:
            return shared_broker(base.parent, os.getppid())
        return shared_broker(base, os.getpid())
    except BrokerUnavailable as error:
        without_broker(error)


@pytest.fixture(scope="session")
def kafka_url(kafka_bootstrap: str) -> str:
    """The run's broker as a log's address; add ?prefix= and `kafka_prefix` to it."""
    return f"kafka://{kafka_bootstrap}"


@pytest.fixture
def kafka_prefix() -> str:
    """A prefix of topics that no other test has."""
    return f"t{uuid.uuid4().hex[:8]}"


@pytest.fixture
def kafka_cluster(tmp_path: Path) -> Iterator[Callable[..., "Cluster"]]:
    """Start clusters of a test's own, to kill and freeze; arguments as for Cluster."""
    from tests.brokers.cluster import Cluster
    from tests.brokers.jars import BrokerUnavailable
    from tests.brokers.source import without_broker

    with ExitStack() as stack:

        def started(**options: Any) -> Cluster:
            try:
                folder = options.pop("folder", tmp_path / f"kafka-{uuid.uuid4().hex[:8]}")
                return stack.enter_context(Cluster(folder, **options))
            except BrokerUnavailable as error:
                without_broker(error)

        yield started
