"""Programs in environments of their own: libraries that we do not depend on, at fixed versions."""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from madlog.schemas import MadlogError

__all__ = ("NoEnvironment", "python_of", "run_in")

_ROOT = Path(__file__).resolve().parents[2]
# Quix Streams demands a confluent-kafka below 2.13; the loops on it alone get the newest.
_PACKAGES = {
    "quix": ("quixstreams==3.28.1",),
    "faust": ("faust-streaming==0.15.3", "aiokafka==0.14.0"),
    "confluent": ("confluent-kafka==2.16.1",),
}
# What madlog.schemas needs: all programs make, encode and decode events with the same code.
_OURS = ("fastavro==1.13.1", "pydantic==2.13.5")
_TIMEOUT_S = 300


class NoEnvironment(MadlogError):
    """An environment for a benchmark could not be made, or its program failed."""


def python_of(name: str) -> Path:
    """Return the Python of an environment, made in the cache folder the first time.

    Raises NoEnvironment.
    """
    packages = [*_PACKAGES[name], *_OURS]
    digest = hashlib.sha256(" ".join([sys.version, *packages]).encode()).hexdigest()[:8]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "madlog-bench"
    folder = cache / f"{name}-{digest}"
    python = folder / "bin" / "python"
    if (folder / "complete").exists():
        return python
    print(f"making the environment of {name} in {folder} (once)", file=sys.stderr)
    uv = [sys.executable, "-m", "uv"]
    for command in (
        [*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
        [*uv, "pip", "install", "--quiet", "--python", str(python), *packages],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
        if done.returncode != 0:
            said = " ".join(done.stderr.split())[-400:]
            raise NoEnvironment(
                f"the environment of {name} for the benchmarks could not be made: {said}; look at "
                f"the network, then try again: {' '.join(command)}"
            )
    (folder / "complete").touch()
    return python


async def run_in(name: str, program: str, **arguments: Any) -> dict[str, Any]:
    """Run foreign/PROGRAM.py in an environment; returns the JSON that it printed last."""
    python = await asyncio.to_thread(python_of, name)
    path = os.pathsep.join((str(_ROOT), str(_ROOT / "infra")))
    process = await asyncio.create_subprocess_exec(
        str(python),
        str(Path(__file__).parent / "foreign" / f"{program}.py"),
        json.dumps(arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), _TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise NoEnvironment(f"{program} in {name} did not end in {_TIMEOUT_S} s") from None
    lines = out.decode().strip().splitlines()
    if process.returncode != 0 or not lines:
        said = err.decode(errors="replace").strip()[-600:]
        raise NoEnvironment(f"{program} in {name} ended with {process.returncode}: {said}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found
