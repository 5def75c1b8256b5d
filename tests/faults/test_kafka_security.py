"""SCRAM and mutual TLS against real brokers: who comes in, who does not, and what they are told."""

import asyncio
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from tests.brokers.cluster import Cluster
from tests.brokers.jars import BrokerUnavailable
from tests.brokers.security import Certificates, Security, make_certificates
from tests.brokers.source import without_broker
from tests.unit.counting import turns

from madlog.config import Settings
from madlog.topics.catalog import CATALOG
from madlog.topics.errors import LogUnavailable
from madlog.topics.kafka import KafkaLog
from madlog.topics.kafka_address import KafkaAddress
from madlog.topics.log import NewRecord
from madlog.topics.positions import Vector
from madlog.wiring import faust_cluster, open_faust, opened

TOPIC = "mad.conversations"
WRONG = "wrong-secret-of-the-tests"

pytestmark = pytest.mark.xdist_group("kafka security")


def _cluster(security: Security) -> Iterator[Cluster]:
    try:
        with Cluster(security=security) as cluster:
            yield cluster
    except BrokerUnavailable as error:
        without_broker(error)


@pytest.fixture(scope="module")
def scram() -> Iterator[Cluster]:
    """One broker that takes SCRAM-SHA-512 inside TLS."""
    yield from _cluster("sasl_ssl")


@pytest.fixture(scope="module")
def mtls() -> Iterator[Cluster]:
    """One broker that takes TLS with a certificate of the client."""
    yield from _cluster("mtls")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates of another authority."""
    try:
        return make_certificates(tmp_path_factory.mktemp("foreign"))
    except BrokerUnavailable as error:
        without_broker(error)


def shown(cluster: Cluster) -> Certificates:
    assert cluster.certificates is not None
    return cluster.certificates


def scram_url(cluster: Cluster, password: str | None = None, ca: Path | None = None) -> str:
    return (
        f"kafka://{cluster.user}:{password or cluster.password}@{cluster.bootstrap}"
        "?security_protocol=SASL_SSL&sasl_mechanism=SCRAM-SHA-512"
        f"&ssl_cafile={ca or shown(cluster).ca}"
    )


def mtls_url(cluster: Cluster, client: Certificates | None = None, ca: Path | None = None) -> str:
    url = f"kafka://{cluster.bootstrap}?security_protocol=SSL&ssl_cafile={ca or shown(cluster).ca}"
    if client is None:
        return url
    return f"{url}&ssl_certfile={client.client}&ssl_keyfile={client.client_key}"


def scram_file(cluster: Cluster, folder: Path) -> str:
    path = folder / "client.properties"
    path.write_text(
        "security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-512\n"
        "sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \\\n"
        f'  username="{cluster.user}" password="{cluster.password}";\n'
        f"ssl.truststore.type=PEM\nssl.truststore.location={shown(cluster).ca}\n"
    )
    return f"kafka://{cluster.bootstrap}?config={path}"


def mtls_file(cluster: Cluster, folder: Path) -> str:
    of = shown(cluster)
    path = folder / "client.properties"
    path.write_text(
        f"security.protocol=ssl\nssl.ca.location={of.ca}\n"
        f"ssl.certificate.location={of.client}\nssl.key.location={of.client_key}\n"
    )
    return f"kafka://{cluster.bootstrap}?config={path}"


async def append_and_read(url: str, prefix: str) -> None:
    log = await KafkaLog.open(f"{url}&prefix={prefix}")
    try:
        await log.create_topic(CATALOG[TOPIC])
        (receipt,) = await log.append([NewRecord(TOPIC, b"key", b"value")])
        member = await log.join("readers", [TOPIC])
        assert [one.position for one in await member.poll(timeout_s=30)] == [receipt.position]
        await member.leave()
        found = [one async for batch in log.read(Vector(), await log.end([TOPIC])) for one in batch]
        assert [one.value for one in found] == [b"value"]
    finally:
        await log.close()


async def refused(url: str) -> str:
    """Return why a log does not open, with all that a traceback of it would show."""
    with pytest.raises(LogUnavailable) as caught:
        await asyncio.wait_for(KafkaLog.open(url), 10)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3
    return str(caught.value) + "".join(traceback.format_exception(caught.value))


async def test_an_append_and_a_read_over_scram_by_the_url(
    scram: Cluster, kafka_prefix: str
) -> None:
    await append_and_read(scram_url(scram), kafka_prefix)


async def test_an_append_and_a_read_over_scram_by_a_config_file(
    scram: Cluster, kafka_prefix: str, tmp_path: Path
) -> None:
    await append_and_read(scram_file(scram, tmp_path), kafka_prefix)


async def test_an_append_and_a_read_over_mutual_tls_by_the_url(
    mtls: Cluster, kafka_prefix: str
) -> None:
    await append_and_read(mtls_url(mtls, shown(mtls)), kafka_prefix)


async def test_an_append_and_a_read_over_mutual_tls_by_a_config_file(
    mtls: Cluster, kafka_prefix: str, tmp_path: Path
) -> None:
    await append_and_read(mtls_file(mtls, tmp_path), kafka_prefix)


async def test_stock_clients_take_the_arguments_of_an_address(
    scram: Cluster, kafka_prefix: str
) -> None:
    topic = f"{kafka_prefix}{TOPIC}"
    await append_and_read(scram_url(scram), kafka_prefix)
    arguments = KafkaAddress.parse(scram_url(scram)).client_arguments()
    async with AIOKafkaProducer(**arguments) as producer:
        await producer.send_and_wait(topic, b"stock", partition=0)
    async with AIOKafkaConsumer(topic, auto_offset_reset="earliest", **arguments) as consumer:
        values = {(await consumer.getone()).value, (await consumer.getone()).value}
    assert values == {b"value", b"stock"}


async def test_the_faust_engine_works_over_scram_and_mutual_tls(
    scram: Cluster, mtls: Cluster, kafka_prefix: str, tmp_path: Path
) -> None:
    settings = Settings(kafka_folder=str(tmp_path))
    for address in (scram_url(scram), mtls_url(mtls, shown(mtls))):
        url = f"{address}&prefix={kafka_prefix}"
        cluster = faust_cluster(url, settings)
        assert scram.password not in repr(cluster)
        async with opened(url, settings) as log:
            await log.append(turns(5))
            report = await open_faust(log, cluster, settings).run(until_idle=True)
            assert (report.idle, report.events) == (True, 5)


async def test_a_wrong_password_is_told_and_not_shown(
    scram: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    text = await refused(scram_url(scram, password=WRONG))
    assert "refuses the user or the password" in text
    assert WRONG not in text + caplog.text


async def test_a_broker_of_an_unknown_authority_is_not_trusted(
    scram: Cluster, mtls: Cluster, foreign: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    text = await refused(scram_url(scram, ca=foreign.ca))
    assert "certificate that we do not trust" in text
    assert scram.password not in text + caplog.text
    text = await refused(mtls_url(mtls, shown(mtls), ca=foreign.ca))
    assert "certificate that we do not trust" in text


async def test_a_client_without_a_certificate_that_the_broker_trusts_is_told_so(
    mtls: Cluster, foreign: Certificates
) -> None:
    assert "asks for a client certificate" in await refused(mtls_url(mtls))
    assert "asks for a client certificate" in await refused(mtls_url(mtls, foreign))


async def test_a_mechanism_and_a_protocol_that_the_broker_does_not_speak_are_told(
    scram: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    text = await refused(scram_url(scram).replace("SHA-512", "SHA-256"))
    assert "does not take sasl_mechanism SCRAM-SHA-256" in text
    text += await refused(f"kafka://{scram.bootstrap}")
    assert "see that security_protocol is what this port speaks" in text
    assert scram.password not in text + caplog.text
