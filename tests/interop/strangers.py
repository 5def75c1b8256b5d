"""Runs the programs of docs/examples, which know of madlog only what docs/interop.md says."""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tests.brokers.jars import BrokerUnavailable, find_java

__all__ = ("EXAMPLES", "JavaClient", "PythonClient", "Stranger", "compiled_java", "run")

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
TIMEOUT_S = 100


class Stranger(Protocol):
    """A foreign program that says turns and reads decisions."""

    async def say(self, conversation: str, text: str) -> str:
        """Say a turn to `shop` as `ada` in a new conversation; return the turn's id."""

    async def decisions(self, conversation: str, count: int) -> list[dict[str, Any]]:
        """Return the first decisions of a conversation."""


def run(command: Sequence[str], cwd: Path = EXAMPLES) -> list[dict[str, Any]]:
    """Run a program to its good end and return the JSON lines that it prints."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@dataclass(frozen=True)
class PythonClient:
    """The example in Python; `options` are those of its command line."""

    bootstrap: str
    prefix: str
    registry: str | None = None
    options: tuple[str, ...] = field(default=())

    async def say(self, conversation: str, text: str) -> str:
        (said,) = await self._run("say", conversation, text)
        return str(said["turn_id"])

    async def decisions(self, conversation: str, count: int) -> list[dict[str, Any]]:
        return await self._run("decisions", conversation, f"--count={count}")

    async def _run(self, name: str, conversation: str, *more: str) -> list[dict[str, Any]]:
        command = [sys.executable, "python_client.py", name, *more, "-c", conversation]
        command += ["--bootstrap", self.bootstrap, "--prefix", self.prefix, *self.options]
        if self.registry is not None:
            command += ["--registry", self.registry]
        return await asyncio.to_thread(run, command)


@dataclass(frozen=True)
class JavaClient:
    """The example in Java; `folder` holds its classes and jars."""

    folder: Path
    bootstrap: str
    prefix: str
    registry: str | None = None

    async def say(self, conversation: str, text: str) -> str:
        (said,) = await self._run("say", conversation, "ada", "shop", text)
        return str(said["turn_id"])

    async def decisions(self, conversation: str, count: int) -> list[dict[str, Any]]:
        return await self._run("decisions", conversation, str(count))

    async def _run(self, name: str, conversation: str, *more: str) -> list[dict[str, Any]]:
        command = [find_java(), "-XX:TieredStopAtLevel=1", f"-Dprefix={self.prefix}"]
        if self.registry is not None:
            command.append(f"-Dregistry={self.registry}")
        command += ["-cp", "classes:jars/*", "MadlogClient", name, self.bootstrap, conversation]
        return await asyncio.to_thread(run, [*command, *more], self.folder)


def compiled_java(folder: Path) -> Path:
    """Compile a copy of the example in Java, warnings as errors; raises BrokerUnavailable."""
    home = folder / "java"
    shutil.copytree(EXAMPLES / "java", home, ignore=shutil.ignore_patterns("jars", "classes"))
    shutil.copy(EXAMPLES / "SchemaRegistered.v1.avsc", folder)
    maven, compiler = shutil.which("mvn"), Path(find_java()).with_name("javac")
    if maven is None or not compiler.exists():
        raise BrokerUnavailable(
            "the example in Java needs Maven and a compiler: "
            "apt-get install maven openjdk-17-jdk-headless"
        )
    fetch = [maven, "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=jars"]
    compile_ = [str(compiler), "-Xlint:all", "-Werror", "-cp", "jars/*", "-d", "classes"]
    for command in (fetch, [*compile_, "MadlogClient.java"]):
        done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=300)
        if done.returncode != 0 and command is fetch:
            said = " ".join((done.stdout + done.stderr).split())[:300]
            raise BrokerUnavailable(f"Maven could not fetch the example's jars: {said}")
        assert done.returncode == 0, done.stdout + done.stderr
    return home
