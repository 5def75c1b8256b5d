"""What a broker and its clients need for SCRAM and for mutual TLS."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.brokers.jars import BrokerUnavailable

__all__ = ("Certificates", "Security", "make_certificates", "security_settings")

# scram: SASL_PLAINTEXT; sasl_ssl: SCRAM inside TLS; mtls: TLS with a client certificate.
Security = Literal["scram", "sasl_ssl", "mtls"]

_SCRAM_LOGIN = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
_DAYS = "7"


@dataclass(frozen=True)
class Certificates:
    """PEM files: the authority, what the broker shows, what a client shows."""

    ca: Path
    broker: Path
    client: Path
    client_key: Path


def security_settings(security: Security, certificates: Certificates | None) -> dict[str, str]:
    """Return a broker's settings for its listener CLIENT."""
    settings = {}
    if security in ("scram", "sasl_ssl"):
        settings["sasl.enabled.mechanisms"] = "SCRAM-SHA-512"
        settings["listener.name.client.scram-sha-512.sasl.jaas.config"] = _SCRAM_LOGIN
    if certificates is not None:
        settings |= {
            "listener.name.client.ssl.keystore.type": "PEM",
            "listener.name.client.ssl.keystore.location": str(certificates.broker),
            "listener.name.client.ssl.truststore.type": "PEM",
            "listener.name.client.ssl.truststore.location": str(certificates.ca),
            "listener.name.client.ssl.client.auth": "required" if security == "mtls" else "none",
        }
    return settings


def make_certificates(folder: Path) -> Certificates:
    """Make an authority and certificates for 127.0.0.1; raises BrokerUnavailable."""
    openssl = shutil.which("openssl")
    if openssl is None:
        raise BrokerUnavailable("TLS tests make certificates: apt-get install openssl")
    folder.mkdir(parents=True, exist_ok=True)

    def run(*arguments: str) -> None:
        done = subprocess.run([openssl, *arguments], cwd=folder, capture_output=True, text=True)
        if done.returncode != 0:
            raise BrokerUnavailable(f"openssl {arguments[0]} failed: {done.stderr.strip()[:300]}")

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    authority = ("-subj", "/CN=madlog test authority", "-keyout", "ca.key", "-out", "ca.pem")
    run(*new, "-x509", "-days", _DAYS, *authority)
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for name in ("broker", "client"):
        run(*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        signed = ("-in", f"{name}.csr", "-out", f"{name}.pem", "-extfile", "names")
        by = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", _DAYS)
        run("x509", "-req", *by, *signed)
    # Kafka wants a broker's key and certificate in one file.
    both = (folder / "broker.key").read_text() + (folder / "broker.pem").read_text()
    (folder / "broker.both.pem").write_text(both)
    return Certificates(
        ca=folder / "ca.pem",
        broker=folder / "broker.both.pem",
        client=folder / "client.pem",
        client_key=folder / "client.key",
    )
