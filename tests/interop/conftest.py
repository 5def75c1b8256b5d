"""What the tests of interoperability share."""

from collections.abc import Iterator

import pytest
from tests.brokers.jars import BrokerUnavailable
from tests.brokers.source import without_broker
from tests.interop.registry import registry


@pytest.fixture(scope="session")
def registry_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real schema registry, started once a worker process."""
    try:
        with registry(tmp_path_factory.mktemp("registry")) as url:
            yield url
    except BrokerUnavailable as error:
        without_broker(error)
