"""A Kafka log's URL and config file: what they come to, what is refused, and no secret in text."""

import re
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from madlog.topics.errors import WrongAddress
from madlog.topics.kafka_address import KafkaAddress

SECRET = "Hg7-secret"
SCRAM = "security_protocol=SASL_SSL&sasl_mechanism=SCRAM-SHA-512"

Keys = dict[str, str]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """A certificate that is its own authority, its key, the key under a password, another key."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make certificates with: apt-get install openssl")
    folder = tmp_path_factory.mktemp("keys")
    names = {name: str(folder / f"{name}.pem") for name in ("cert", "key", "locked", "other")}

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)

    new_key = ["-newkey", "rsa:2048", "-nodes", "-keyout"]
    openssl("req", "-x509", "-subj", "/CN=test", *new_key, names["key"], "-out", names["cert"])
    openssl(
        "rsa", "-aes256", "-in", names["key"], "-out", names["locked"], "-passout", f"pass:{SECRET}"
    )
    openssl("genrsa", "-out", names["other"], "2048")
    return names


def refusal(url: str) -> str:
    with pytest.raises(WrongAddress) as caught:
        KafkaAddress.parse(url)
    assert caught.value.exit_code == 2
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    text = str(caught.value)
    assert SECRET not in text
    assert "\n" not in text
    return text


def config(folder: Path, text: str) -> str:
    path = folder / "client.properties"
    path.write_text(text, encoding="utf-8")
    return f"config={path}"


def test_a_bare_address_is_plaintext_with_transactions_and_the_default_port() -> None:
    address = KafkaAddress.parse("kafka://one")
    assert address.bootstrap == ("one:9092",)
    assert (address.prefix, address.transactions) == ("", True)
    assert address.client_arguments() == {
        "bootstrap_servers": ["one:9092"],
        "security_protocol": "PLAINTEXT",
        "ssl_context": None,
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": None,
        "sasl_plain_password": None,
    }


def test_several_servers_prefix_and_switch_are_read_and_stand_in_the_url() -> None:
    address = KafkaAddress.parse("KAFKA://a.b:1,[::1]:29092,c/?prefix=t1.&transactions=off")
    assert address.bootstrap == ("a.b:1", "[::1]:29092", "c:9092")
    assert (address.prefix, address.transactions) == ("t1.", False)
    assert address.url == "kafka://a.b:1,[::1]:29092,c:9092?prefix=t1.&transactions=off"
    assert KafkaAddress.parse(address.url) == address


def test_user_and_password_of_the_url_are_percent_decoded() -> None:
    address = KafkaAddress.parse(f"kafka://al%40ice:p%3A%2F%25@h:1?{SCRAM}")
    arguments = address.client_arguments()
    assert arguments["sasl_plain_username"] == "al@ice"
    assert arguments["sasl_plain_password"] == "p:/%"
    assert arguments["sasl_mechanism"] == "SCRAM-SHA-512"
    assert arguments["security_protocol"] == "SASL_SSL"
    assert arguments["ssl_context"].verify_mode == ssl.CERT_REQUIRED
    assert address.url == f"kafka://al%40ice@h:1?{SCRAM}"


def test_protocol_and_mechanism_are_read_in_any_case() -> None:
    url = "kafka://u:p@h?security_protocol=sasl_plaintext&sasl_mechanism=scram-sha-256"
    arguments = KafkaAddress.parse(url).client_arguments()
    assert arguments["security_protocol"] == "SASL_PLAINTEXT"
    assert arguments["sasl_mechanism"] == "SCRAM-SHA-256"
    assert arguments["ssl_context"] is None


@pytest.mark.parametrize(
    "text",
    [
        f"security.protocol=SASL_PLAINTEXT\nsasl.mechanism = PLAIN\nsasl.username:u\n"
        f"sasl.password {SECRET}\n",
        "# a comment that ends in a backslash \\\n! another\nacks=all\n"
        "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\n"
        "sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \\\n"
        f'    note="username=\\\\"no\\\\"" username="u" password="{SECRET}";\n',
        "security.protocol=SASL_PLAINTEXT\r\nsasl.mechanisms=PLAIN\r\nsasl.username=u\r\n"
        f"sasl.password=\\u0048{SECRET[1:]}\r\n",
    ],
    ids=["plain lines", "jaas", "librdkafka"],
)
def test_a_config_file_gives_what_the_url_does_not_say(tmp_path: Path, text: str) -> None:
    address = KafkaAddress.parse(f"kafka://h?{config(tmp_path, text)}")
    arguments = address.client_arguments()
    assert arguments["security_protocol"] == "SASL_PLAINTEXT"
    assert arguments["sasl_mechanism"] == "PLAIN"
    assert arguments["sasl_plain_username"] == "u"
    assert arguments["sasl_plain_password"] == SECRET
    assert KafkaAddress.parse(address.url) == address


def test_the_url_wins_over_the_config_file(tmp_path: Path) -> None:
    text = (
        f"security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nsasl.username=u\nsasl.password={SECRET}"
    )
    name = config(tmp_path, text)
    url = f"kafka://v@h?{name}&security_protocol=SASL_PLAINTEXT&sasl_mechanism=SCRAM-SHA-256"
    arguments = KafkaAddress.parse(url).client_arguments()
    assert arguments["security_protocol"] == "SASL_PLAINTEXT"
    assert arguments["sasl_mechanism"] == "SCRAM-SHA-256"
    assert arguments["sasl_plain_username"] == "v"
    assert arguments["sasl_plain_password"] == SECRET


def test_tls_files_make_a_context_with_or_without_the_hosts_name(keys: Keys) -> None:
    base = f"kafka://h?security_protocol=ssl&ssl_cafile={keys['cert']}"
    context = KafkaAddress.parse(base).client_arguments()["ssl_context"]
    assert context.check_hostname
    assert [found["serialNumber"] for found in context.get_ca_certs()]
    off = KafkaAddress.parse(f"{base}&ssl_check_hostname=off").client_arguments()["ssl_context"]
    assert not off.check_hostname
    assert off.verify_mode == ssl.CERT_REQUIRED
    mutual = f"{base}&ssl_certfile={keys['cert']}&ssl_keyfile={keys['key']}"
    assert KafkaAddress.parse(mutual).url.endswith(mutual.partition("?")[2])


def test_a_key_under_a_password_is_opened_and_the_password_stays_out_of_the_url(
    keys: Keys, tmp_path: Path
) -> None:
    base = f"kafka://h:9092?security_protocol=SSL&ssl_certfile={keys['cert']}"
    address = KafkaAddress.parse(f"{base}&ssl_keyfile={keys['locked']}&ssl_password={SECRET}")
    assert address.url == f"{base}&ssl_keyfile={keys['locked']}"
    text = (
        f"security.protocol=SSL\nssl.truststore.location={keys['cert']}\nssl.truststore.type=PEM\n"
        f"ssl.certificate.location={keys['cert']}\nssl.key.location={keys['locked']}\n"
        f"ssl.key.password={SECRET}\nssl.endpoint.identification.algorithm=\n"
    )
    by_file = KafkaAddress.parse(f"kafka://h?{config(tmp_path, text)}")
    assert by_file.client_arguments()["ssl_context"].check_hostname is False


def test_a_renewed_certificate_is_read_by_the_next_client(keys: Keys, tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    shutil.copy(keys["cert"], authority)
    address = KafkaAddress.parse(f"kafka://h?security_protocol=SSL&ssl_cafile={authority}")
    authority.unlink()
    with pytest.raises(WrongAddress, match=r"ca\.pem"):
        address.client_arguments()


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("http://h", "kafka://HOST:PORT"),
        ("kafka://", "server 1 .* no host"),
        ("kafka://a,,b", "server 2 .* no host"),
        ("kafka://a b", "no host"),
        ("kafka://h:0", "wrong port"),
        ("kafka://h:65536", "wrong port"),
        ("kafka://h:9x", "wrong port"),
        ("kafka://h:", "wrong port"),
        ("kafka://h/topic", "no path"),
        ("kafka://h?prefix=a#b", "percent-encoded"),
        ("kafka://h\n", "control character"),
        ("kafka://h?acks=all", "unknown parameter 'acks'"),
        ("kafka://h?prefix=a&prefix=b", "prefix twice"),
        ("kafka://h?prefix=", "prefix no value"),
        ("kafka://h?prefix=Upper", "prefix"),
        ("kafka://h?prefix=" + "a" * 42, "prefix"),
        ("kafka://h?prefix=%ff", "prefix .* UTF-8"),
        ("kafka://h?transactions=maybe", "transactions .* on or off"),
        ("kafka://h?security_protocol=TLS", "PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL"),
        ("kafka://h?security_protocol=SASL_SSL&sasl_mechanism=GSSAPI", "GSSAPI is not supported"),
        ("kafka://h?security_protocol=SASL_SSL&sasl_mechanism=OAUTHBEARER", "not supported"),
        ("kafka://h?security_protocol=SASL_SSL", "sasl_mechanism .* one of PLAIN"),
        (f"kafka://h?{SCRAM}", "asks for a user and a password"),
        (f"kafka://u@h?{SCRAM}", "asks for a user and a password"),
        ("kafka://h?sasl_mechanism=PLAIN", "no effect with security_protocol PLAINTEXT"),
        ("kafka://h?ssl_cafile=/a", "no effect"),
        ("kafka://h?security_protocol=SSL&ssl_keyfile=/a", "set ssl_certfile"),
        ("kafka://h?security_protocol=SSL&ssl_check_hostname=no", "on or off"),
        ("kafka://h?security_protocol=SSL&ssl_cafile=/not/there", "/not/there .* No such file"),
        ("kafka://h?security_protocol=SSL&ssl_certfile=/not/there", "/not/there .* No such file"),
        ("kafka://h?config=/not/there", "/not/there .* cannot be read: No such file"),
    ],
)
def test_what_is_wrong_is_named_in_one_sentence(url: str, named: str) -> None:
    text = refusal(url)
    assert re.search(named, text), text


@pytest.mark.parametrize(
    "url",
    [
        f"kafka://u:{SECRET}@h",
        f"kafka://u:{SECRET}@",
        f"kafka://u:{SECRET}@h:0",
        f"kafka://u:{SECRET}",
        f"kafka://u:{SECRET}/more@h",
        f"kafka://u:1234/{SECRET}@h",
        f"kafka://u:1234?{SECRET}@h",
        f"kafka://u:1234?x=1&{SECRET}@h",
        f"kafka://u:1234#{SECRET}@h",
        f"kafka://u:a@{SECRET}@h",
        f"kafka://u:{SECRET}@h,u:{SECRET}@i",
        f"kafka://u:{SECRET}%ff@h?{SCRAM}",
        f"kafka://u:\u2100{SECRET}@[h?{SCRAM}",
        f"kafka://u:{SECRET}@h?{SCRAM}&ssl_cafile=/not/there",
        f"kafka://u:{SECRET}@h?security_protocol=SASL_SSL&sasl_mechanism={SECRET}",
        f"kafka://u:{SECRET}@h?security_protocol={SECRET}",
        f"kafka://h?prefix={SECRET}",
        f"kafka://h?transactions={SECRET}",
        f"kafka://h?ssl_password={SECRET}",
        f"kafka://u:{SECRET}@h\n?{SCRAM}",
    ],
)
def test_no_refusal_of_an_address_shows_the_password(url: str) -> None:
    refusal(url)


@pytest.mark.parametrize(
    "text",
    [
        f"security.protocol=SSL\nsasl.password={SECRET}",
        f"security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nsasl.password={SECRET}",
        f"sasl.passwort={SECRET}",
        f"sasl.passwort:{SECRET}=",
        f"={SECRET}",
        f'sasl.jaas.config=Module required user="u" password="{SECRET}";',
        f"security.protocol={SECRET}",
        f"ssl.keystore.password={SECRET}",
        f"ssl.truststore.type={SECRET}",
        f"enable.ssl.certificate.verification={SECRET}",
    ],
)
def test_no_refusal_of_a_config_file_shows_the_password(tmp_path: Path, text: str) -> None:
    refusal(f"kafka://h?{config(tmp_path, text)}")


def test_a_key_that_does_not_open_or_fit_is_named_without_its_password(
    keys: Keys, tmp_path: Path
) -> None:
    base = f"kafka://h?security_protocol=SSL&ssl_certfile={keys['cert']}"
    locked = f"{base}&ssl_keyfile={keys['locked']}"
    (tmp_path / "text.pem").write_text("no certificate")
    for url, named in (
        (locked, keys["locked"]),
        (f"{locked}&ssl_password={SECRET}%20", keys["locked"]),
        (f"{base}&ssl_keyfile={keys['other']}", "key values mismatch"),
        (f"{base}&ssl_keyfile={tmp_path}/text.pem", "text.pem"),
        (f"kafka://h?security_protocol=SSL&ssl_cafile={tmp_path}/text.pem", "text.pem"),
        (f"kafka://h?config={tmp_path}", "cannot be read"),
    ):
        assert named in refusal(url)


def test_no_text_of_an_address_shows_a_secret(keys: Keys) -> None:
    url = (
        f"kafka://u:{SECRET}@h?{SCRAM}&ssl_certfile={keys['cert']}&ssl_keyfile={keys['locked']}"
        f"&ssl_password={SECRET}"
    )
    address = KafkaAddress.parse(url)
    for text in (repr(address), str(address), f"{address}", address.url, repr([address])):
        assert SECRET not in text
        assert "u@h:9092" in text
