"""Which Kafka the tests use: the one that is named, a container, or Apache Kafka's own jars."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

from tests.brokers.cluster import Cluster, shared_settings
from tests.brokers.jars import BrokerUnavailable
from tests.brokers.probe import ask

__all__ = ("broker", "without_broker")

DOCKER_TIMEOUT_S = 2


@contextmanager
def broker(folder: Path, environment: Mapping[str, str] = os.environ) -> Iterator[str]:
    """Give HOST:PORT of a broker for a block of code; raises BrokerUnavailable.

    MADLOG_KAFKA names one that runs already; else a container where a Docker daemon answers;
    else Apache Kafka's jars on this machine's Java, with their files in `folder`.
    """
    given = environment.get("MADLOG_KAFKA", "")
    with ExitStack() as stack:
        if given:
            yield _answering(given)
            return
        contained = _container(stack) if _docker_answers() else None
        yield contained or stack.enter_context(Cluster(folder)).bootstrap


def without_broker(
    error: BrokerUnavailable, environment: Mapping[str, str] = os.environ
) -> NoReturn:
    """Fail the test where a broker is required (MADLOG_REQUIRE_KAFKA=1), else skip it."""
    import pytest

    if environment.get("MADLOG_REQUIRE_KAFKA") == "1":
        pytest.fail(f"{error} (MADLOG_REQUIRE_KAFKA=1 makes this a failure)", pytrace=False)
    pytest.skip(str(error))


def _answering(given: str) -> str:
    for address in given.split(","):
        host, _, port = address.strip().rpartition(":")
        if host and port.isdigit() and ask(host, int(port), 2.0) is not None:
            return given
    raise BrokerUnavailable(
        f"no broker answers at MADLOG_KAFKA={given}: start it, or unset MADLOG_KAFKA and let the "
        "tests start their own"
    )


def _docker_answers() -> bool:
    docker = shutil.which("docker")
    if docker is None:
        return False
    try:
        done = subprocess.run([docker, "info"], capture_output=True, timeout=DOCKER_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _container(stack: ExitStack) -> str | None:
    """Start a container and return its address, None where its image cannot be had."""
    try:
        from testcontainers.community.kafka import KafkaContainer

        container = KafkaContainer().with_kraft()
        for name, value in shared_settings(1).items():
            container.with_env("KAFKA_" + name.upper().replace(".", "_"), value)
        container.start()
    except Exception as error:
        # The library raises many kinds; each means that the jars must do.
        print(f"no Kafka container ({type(error).__name__}: {error}): the jars are used instead")
        return None
    stack.callback(container.stop)
    return str(container.get_bootstrap_server())
