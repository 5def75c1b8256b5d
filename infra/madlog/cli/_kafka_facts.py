"""What this machine has for Kafka: brokers that answer, Java, Maven, Docker."""

import re
import shutil
import socket
import struct
import subprocess
from typing import Any
from urllib.parse import urlsplit

__all__ = ("addresses", "answer", "broker_facts", "tool_facts")

TIMEOUT_S = 1.0
JAVA_MIN = 17
_API_VERSIONS = 18
_START_ONE = "start it; in a source checkout, make kafka starts one here"


def addresses(url: str) -> list[tuple[str, int]]:
    """Return host and port of each broker that kafka://HOST:PORT,… names; raises ValueError."""
    found = []
    for part in urlsplit(url).netloc.rpartition("@")[2].split(","):
        host, _, port = part.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65_536:
            raise ValueError(f"{part[:100]!r} is no HOST:PORT")
        found.append((host.strip("[]"), int(port)))
    return found


def answer(host: str, port: int, timeout_s: float = TIMEOUT_S) -> str | None:
    """Ask for Kafka's protocol versions; None is an answer, a text says what came instead."""
    try:
        with socket.create_connection((host, port), timeout_s) as connection:
            connection.settimeout(timeout_s)
            request = struct.pack(">hhih", _API_VERSIONS, 0, 7, -1)
            try:
                connection.sendall(struct.pack(">i", len(request)) + request)
                said = connection.recv(8, socket.MSG_WAITALL)
            except OSError:
                said = b""
    except OSError as error:
        return f"no connection ({error.strerror or error})"
    if said[4:8] == struct.pack(">i", 7):
        return None
    return "takes connections, and does not answer plain Kafka (TLS, SASL, or another program)"


def broker_facts(what: str, url: str) -> list[dict[str, Any]]:
    """Return a row of doctor for each broker that an address names."""
    try:
        named = addresses(url)
    except ValueError as error:
        return [_row(what, str(error), False, "write kafka://HOST:PORT, commas between brokers")]
    rows = []
    for host, port in named:
        wrong = answer(host, port)
        found = f"{host}:{port} {wrong or 'answers'}"
        # What takes connections may well be a broker with TLS: no reason to fail.
        rows.append(_row(what, found, not (wrong or "").startswith("no"), _START_ONE))
    return rows


def tool_facts() -> list[dict[str, Any]]:
    """Return the rows of doctor about what the tests' own broker is made with; none is needed."""
    return [
        _tool("java", _java(), "apt-get install openjdk-17-jre-headless"),
        _tool("maven", shutil.which("mvn"), "apt-get install maven"),
        _tool("docker", _docker(), "start its daemon; Java and Maven do as well"),
    ]


def _tool(what: str, found: str | None, advice: str) -> dict[str, Any]:
    if found is None:
        return _row(what, "none, which only the tests on Kafka miss", True, advice)
    return _row(what, found, True, "")


def _java() -> str | None:
    said = _said("java", "-version")
    version = re.search(r'version "([^"]+)"', said or "")
    if version is None:
        return None
    major = int(version[1].split(".")[0])
    return version[1] if major >= JAVA_MIN else f"{version[1]}, the tests need {JAVA_MIN}"


def _docker() -> str | None:
    # Without a daemon this fails, and what it prints is no version.
    said = _said("docker", "version", "--format", "{{.Server.Version}}")
    version = re.fullmatch(r"\d[\w.+-]*", (said or "").strip())
    return f"daemon {version[0]}" if version else None


def _said(program: str, *arguments: str) -> str | None:
    """Return what a program prints on both streams, None without an answer in time."""
    path = shutil.which(program)
    if path is None:
        return None
    try:
        done = subprocess.run(
            [path, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _row(what: str, found: str, ok: bool, advice: str) -> dict[str, Any]:
    shown = "" if ok and not found.startswith("none") else advice
    return {"what": what, "found": found, "ok": ok, "advice": shown}
