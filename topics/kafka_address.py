"""A Kafka log's URL, taken apart into what its clients need, secrets kept out of all text.

`kafka://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]][?NAME=VALUE&…]`, each piece percent-encoded:

- `prefix`: stands before the names of topics, groups and transactional ids;
- `transactions`: on (default), or off: at least once, repeats dropped by readers;
- `security_protocol`: PLAINTEXT (default), SSL, SASL_PLAINTEXT, SASL_SSL;
- `sasl_mechanism`: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512;
- `ssl_cafile`, `ssl_certfile`, `ssl_keyfile`: files in PEM form; `ssl_password` of the key;
- `ssl_check_hostname`: on (default) or off;
- `config`: a file in the form of Kafka's client.properties with the settings of `_FROM_FILE`, so
  that secrets need not stand in a URL; what the URL says wins over the file.

A setting that would have no effect is refused, since it is most often a belief about safety.
"""

import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from madlog.topics.errors import WrongAddress

__all__ = ("KafkaAddress",)

_PORT = 9092
_FORM = re.compile(r"kafka://([^/?#]*)/?(?:\?([^#]*))?", re.IGNORECASE | re.DOTALL)
_SERVER = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::(.*))?", re.DOTALL)
_PREFIX = re.compile(r"[a-z0-9][a-z0-9._-]{0,40}|")
_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_SWITCH = {"on": True, "true": True, "off": False, "false": False}
_SASL_SETTINGS = ("username", "password", "sasl_mechanism")
_SSL_SETTINGS = (
    "ssl_cafile",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_password",
    "ssl_check_hostname",
)
_PARAMETERS = (
    "prefix",
    "transactions",
    "security_protocol",
    "sasl_mechanism",
    *_SSL_SETTINGS,
    "config",
)
# The names are those of Kafka's Java clients and of librdkafka.
_FROM_FILE = {
    "security.protocol": "security_protocol",
    "sasl.mechanism": "sasl_mechanism",
    "sasl.mechanisms": "sasl_mechanism",
    "sasl.username": "username",
    "sasl.password": "password",
    "ssl.ca.location": "ssl_cafile",
    "ssl.truststore.location": "ssl_cafile",
    "ssl.certificate.location": "ssl_certfile",
    "ssl.keystore.location": "ssl_certfile",
    "ssl.key.location": "ssl_keyfile",
    "ssl.key.password": "ssl_password",
}
_OF_SECURITY = ("sasl.", "ssl.", "security.", "enable.ssl.")


@dataclass(frozen=True, slots=True, repr=False)
class KafkaAddress:
    """Where a Kafka log is and how to come in; `url` opens it again and holds no password."""

    url: str
    bootstrap: tuple[str, ...]
    prefix: str = ""
    transactions: bool = True
    _settings: Mapping[str, str] = field(default_factory=dict, hash=False)

    @classmethod
    def parse(cls, url: str) -> "KafkaAddress":
        """Read a URL and the files that it names; raises WrongAddress."""
        servers, user, given = _take_apart(url)
        settings = dict(_read_config(given["config"])) if "config" in given else {}
        settings |= user | given
        address = cls(
            url=_without_secrets(servers, user, given),
            bootstrap=servers,
            prefix=_checked_prefix(settings.get("prefix", "")),
            transactions=_switch(settings, "transactions"),
            _settings=_checked_security(settings),
        )
        address.client_arguments()
        return address

    def client_arguments(self) -> dict[str, Any]:
        """Return what aiokafka's client, producer, consumer and admin client take alike.

        The files of TLS are read anew each time, so that a renewed certificate is taken up.
        Raises WrongAddress when one of them cannot be read.
        """
        settings = self._settings
        return {
            "bootstrap_servers": list(self.bootstrap),
            "security_protocol": settings["security_protocol"],
            "ssl_context": _ssl_context(settings),
            "sasl_mechanism": settings.get("sasl_mechanism", "PLAIN"),
            "sasl_plain_username": settings.get("username"),
            "sasl_plain_password": settings.get("password"),
        }

    def __repr__(self) -> str:
        return f"KafkaAddress({self.url!r})"


def _take_apart(url: str) -> tuple[tuple[str, ...], dict[str, str], dict[str, str]]:
    # No message of this function shows a piece of the URL that is not known to be harmless: where
    # a password's special characters are not encoded, any piece may be a part of it.
    if not url.lower().startswith("kafka://"):
        raise WrongAddress("the address of a Kafka log reads kafka://HOST:PORT")
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in url):
        raise WrongAddress("the log's address holds a control character: percent-encode it")
    match = _FORM.fullmatch(url)
    userinfo, at, servers = match[1].rpartition("@") if match else ("", "", "")
    if match is None or "@" in userinfo or "@" in (match[2] or ""):
        raise WrongAddress(
            "the log's address is not kafka://USER:PASSWORD@HOST:PORT?NAME=VALUE: a Kafka log has "
            "no path, and @ : / ? # % in a name, password or value are percent-encoded"
        )
    user: dict[str, str] = {}
    if at:
        name, colon, password = userinfo.partition(":")
        user["username"] = _decoded(name, "user")
        if colon:
            user["password"] = _decoded(password, "password")
    return tuple(_servers(servers)), user, _parameters(match[2] or "")


def _servers(text: str) -> Iterator[str]:
    for number, piece in enumerate(text.split(","), 1):
        match = _SERVER.fullmatch(piece)
        if match is None:
            raise WrongAddress(
                f"server {number} of the Kafka log's address has no host or a wrong one: write "
                "kafka://HOST:PORT, several as HOST:PORT,HOST:PORT"
            )
        port = str(_PORT) if match[2] is None else match[2]
        if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
            raise WrongAddress(
                f"server {number} of the Kafka log's address has a wrong port: it is a number "
                "from 1 to 65535, and @ : / ? # % in a password are percent-encoded"
            )
        yield f"{match[1]}:{int(port)}"


def _parameters(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for piece in filter(None, text.split("&")):
        raw, _, value = piece.partition("=")
        name = _decoded(raw, "parameter's name")
        if name not in _PARAMETERS:
            known = ", ".join(_PARAMETERS)
            raise WrongAddress(
                f"the Kafka log's address has an unknown parameter {name[:40]!r}: there are {known}"
            )
        if name in found:
            raise WrongAddress(f"the Kafka log's address names {name} twice: leave one")
        if not value:
            raise WrongAddress(f"the Kafka log's address gives {name} no value")
        found[name] = _decoded(value, name)
    return found


def _decoded(text: str, what: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise WrongAddress(
            f"the {what} in the Kafka log's address is not percent-encoded UTF-8"
        ) from None


def _without_secrets(
    servers: tuple[str, ...], user: Mapping[str, str], given: Mapping[str, str]
) -> str:
    at = f"{quote(user['username'], safe='')}@" if user.get("username") else ""
    query = "&".join(
        f"{name}={quote(value, safe='/._-~:,')}"
        for name, value in given.items()
        if name != "ssl_password"
    )
    return f"kafka://{at}{','.join(servers)}{'?' if query else ''}{query}"


def _read_config(name: str) -> Iterator[tuple[str, str]]:
    path = Path(name).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WrongAddress(
            f"the config file {name} of the Kafka log cannot be read: {_reason(error)}"
        ) from None
    for key, value in _properties(text, name):
        if key in _FROM_FILE:
            yield _FROM_FILE[key], value
        elif key == "sasl.jaas.config":
            yield from _jaas(value, name)
        elif key in ("ssl.truststore.type", "ssl.keystore.type"):
            if value.upper() != "PEM":
                raise WrongAddress(
                    f"{name}: {key} must be PEM: export the certificates as PEM, for example by "
                    "keytool -exportcert -rfc or openssl pkcs12"
                )
        elif key in (
            "ssl.endpoint.identification.algorithm",
            "enable.ssl.certificate.verification",
        ):
            yield from _verification(key, value, name)
        elif key.startswith(_OF_SECURITY):
            raise WrongAddress(
                f"{name}: the setting {key[:60]} is not known here, and one of security is not "
                f"ignored: there are {', '.join(_FROM_FILE)}, sasl.jaas.config"
            )


def _properties(text: str, name: str) -> Iterator[tuple[str, str]]:
    """Read the lines of a Java properties file: comments, continued lines and escapes as there."""
    uncommented = re.sub(r"(?m)^[ \t]*[#!].*$", "", text)
    going_on = re.sub(r"(?<!\\)((?:\\\\)*)\\\r?\n[ \t]*", r"\1", uncommented)
    for line in filter(None, map(str.strip, going_on.split("\n"))):
        match = re.fullmatch(r"([^=:\s]+)\s*[=:]?\s*(.*)", line)
        if match is None:
            raise WrongAddress(f"{name}: a line does not read key=value")
        yield match[1], re.sub(r"\\(u[0-9a-fA-F]{4}|.)", _unescaped, match[2])


def _unescaped(match: re.Match[str]) -> str:
    letter = match[1]
    if len(letter) == 5:
        return chr(int(letter[1:], 16))
    return {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}.get(letter, letter)


def _jaas(text: str, name: str) -> Iterator[tuple[str, str]]:
    found = {
        match[1]: re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3]
        for match in re.finditer(r'([\w.]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s";]+))', text)
    }
    if not {"username", "password"} <= found.keys():
        raise WrongAddress(f'{name}: sasl.jaas.config needs username="…" and password="…"')
    yield "username", found["username"]
    yield "password", found["password"]


def _verification(key: str, value: str, name: str) -> Iterator[tuple[str, str]]:
    if key == "ssl.endpoint.identification.algorithm":
        yield "ssl_check_hostname", "on" if value.lower() == "https" else "off"
    elif value.lower() != "true":
        raise WrongAddress(f"{name}: {key} cannot be switched off: name the CA in ssl.ca.location")


def _checked_prefix(prefix: str) -> str:
    if not _PREFIX.fullmatch(prefix):
        raise WrongAddress(
            "the prefix in the Kafka log's address is up to 41 of a-z 0-9 . _ -, the first a "
            "letter or digit"
        )
    return prefix


def _switch(settings: Mapping[str, str], name: str) -> bool:
    value = settings.get(name, "on").lower()
    if value not in _SWITCH:
        raise WrongAddress(f"{name} of the Kafka log is on or off")
    return _SWITCH[value]


def _checked_security(settings: Mapping[str, str]) -> dict[str, str]:
    protocol = settings.get("security_protocol", "PLAINTEXT").upper()
    if protocol not in _PROTOCOLS:
        raise WrongAddress(f"security_protocol of the Kafka log is one of {', '.join(_PROTOCOLS)}")
    checked = {"security_protocol": protocol}
    for names, used, instead in (
        (_SASL_SETTINGS, protocol.startswith("SASL_"), "SASL_SSL or SASL_PLAINTEXT"),
        (_SSL_SETTINGS, protocol.endswith("SSL"), "SSL or SASL_SSL"),
    ):
        there = {name: settings[name] for name in names if name in settings}
        if there and not used:
            raise WrongAddress(
                f"the Kafka log's {next(iter(there))} has no effect with security_protocol "
                f"{protocol}: leave it out, or set security_protocol={instead}"
            )
        checked |= there
    if protocol.startswith("SASL_"):
        checked["sasl_mechanism"] = _checked_sasl(checked)
    if "ssl_keyfile" in checked and "ssl_certfile" not in checked:
        raise WrongAddress("the Kafka log's ssl_keyfile needs its certificate: set ssl_certfile")
    return checked


def _checked_sasl(settings: Mapping[str, str]) -> str:
    mechanism = settings.get("sasl_mechanism", "").upper()
    if mechanism in ("GSSAPI", "OAUTHBEARER"):
        raise WrongAddress(
            f"sasl_mechanism {mechanism} is not supported by madlog: use {', '.join(_MECHANISMS)}"
        )
    if mechanism not in _MECHANISMS:
        raise WrongAddress(f"sasl_mechanism of the Kafka log is one of {', '.join(_MECHANISMS)}")
    if not settings.get("username") or not settings.get("password"):
        raise WrongAddress(
            "the Kafka log's security_protocol asks for a user and a password: put sasl.username "
            "and sasl.password in a file and name it by config=FILE, or write USER:PASSWORD@HOST"
        )
    return mechanism


def _ssl_context(settings: Mapping[str, str]) -> ssl.SSLContext | None:
    if not settings["security_protocol"].endswith("SSL"):
        return None
    check_hostname = _switch(settings, "ssl_check_hostname")
    authority, certificate = settings.get("ssl_cafile"), settings.get("ssl_certfile")
    try:
        context = ssl.create_default_context(cafile=authority and Path(authority).expanduser())
    except OSError as error:
        raise WrongAddress(
            f"the Kafka log's ssl_cafile {authority} holds no certificate in PEM form that can be "
            f"read: {_reason(error)}"
        ) from None
    context.check_hostname = check_hostname
    if certificate:
        key = settings.get("ssl_keyfile")
        try:
            # A password is always given, or OpenSSL would ask for one on the terminal.
            context.load_cert_chain(
                Path(certificate).expanduser(),
                key and Path(key).expanduser(),
                settings.get("ssl_password", ""),
            )
        except (OSError, ValueError) as error:
            raise WrongAddress(
                f"the Kafka log's certificate {certificate} and key {key or certificate} cannot "
                f"be read as PEM, or ssl_password is missing or wrong: {_reason(error)}"
            ) from None
    return context


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not in PEM form").lower().replace("_", " ")
    return getattr(error, "strerror", None) or type(error).__name__
