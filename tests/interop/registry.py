"""A real schema registry for tests: Apicurio's, which serves Confluent's REST protocol.

It comes by Maven once (110 MB), runs on Java 17, starts in five seconds, keeps all in memory.
"""

import http.client
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.brokers.jars import BrokerUnavailable, find_java, locked
from tests.brokers.ports import reserve
from tests.brokers.processes import spawn

__all__ = ("registry",)

VERSION = "3.0.9"
ARTIFACT = f"io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"
BASE = "/apis/ccompat/v7"
FETCH_TIMEOUT_S = 300
START_TIMEOUT_S = 90
POLL_S = 0.05


@contextmanager
def registry(folder: Path, environment: Mapping[str, str] = os.environ) -> Iterator[str]:
    """Give a registry's address for a block of code; raises BrokerUnavailable.

    MADLOG_REGISTRY names one that runs already.
    """
    if environment.get("MADLOG_REGISTRY"):
        yield environment["MADLOG_REGISTRY"]
        return
    java, program = find_java(environment), _program(environment)
    port = reserve()
    output = folder / "registry.log"
    settings = {
        "quarkus.http.host": "127.0.0.1",
        "quarkus.http.port": str(port.port),
        "apicurio.storage.kind": "sql",
        "apicurio.storage.sql.kind": "h2",
    }
    command = [java, "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    command += [f"-D{name}={value}" for name, value in settings.items()]
    port.release()
    process = spawn([*command, "-jar", str(program)], output)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(port.port):
            if process.poll() is not None or time.monotonic() > deadline:
                said = " | ".join(output.read_text(errors="replace").splitlines()[-3:])[:800]
                raise BrokerUnavailable(f"the schema registry did not start: {said}")
            time.sleep(POLL_S)
        yield f"http://127.0.0.1:{port.port}{BASE}"
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", f"{BASE}/subjects")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _program(environment: Mapping[str, str]) -> Path:
    """Return the registry's jar, fetched by Maven the first time."""
    cache = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = cache / "madlog-test-registry"
    folder = home / VERSION
    home.mkdir(parents=True, exist_ok=True)
    with locked(home / "fetching.lock"):
        if not folder.is_dir():
            _fetch(folder, environment)
    (found,) = folder.glob("*-runner.jar")
    return found


def _fetch(folder: Path, environment: Mapping[str, str]) -> None:
    maven = shutil.which("mvn", path=environment.get("PATH"))
    if maven is None:
        raise BrokerUnavailable(
            "the test registry comes by Maven, which is not here: apt-get install maven, or set "
            "MADLOG_REGISTRY=http://HOST:PORT to a schema registry that runs already"
        )
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetching-") as scratch:
        new = Path(scratch) / "app"
        command = [maven, "-q", "-B", "dependency:unpack", f"-Dartifact={ARTIFACT}"]
        try:
            done = subprocess.run(
                [*command, f"-DoutputDirectory={new}"],
                cwd=scratch,  # Maven leaves a folder of its own where it runs
                capture_output=True,
                text=True,
                timeout=FETCH_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired as error:
            raise BrokerUnavailable(
                f"Maven did not fetch the schema registry in {FETCH_TIMEOUT_S} s: check the "
                f"network, then {' '.join(command)} -DoutputDirectory=FOLDER"
            ) from error
        if done.returncode != 0:
            said = " ".join((done.stdout + done.stderr).split())[:300]
            raise BrokerUnavailable(f"Maven could not fetch the schema registry: {said}")
        new.rename(folder)
