"""One broker for a whole test run: kept by a process of its own, which ends with the run."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.brokers.jars import BrokerUnavailable, locked
from tests.brokers.source import broker

__all__ = ("shared_broker",)

ROOT = Path(__file__).resolve().parents[2]
# The first run on a machine fetches the jars.
START_TIMEOUT_S = 600
POLL_S = 0.1


def shared_broker(root: Path, owner: int) -> str:
    """Return HOST:PORT of the run's broker, started by whichever process asks first.

    `root` is the run's own folder, `owner` the process whose end ends the broker. Raises
    BrokerUnavailable.
    """
    answer = root / "kafka.json"
    with locked(root / "kafka.lock"):
        if not answer.exists():
            command = [sys.executable, "-m", "tests.brokers.shared", str(root), str(owner)]
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, timeout=START_TIMEOUT_S
            )
            if not answer.exists():
                said = done.stderr.strip()[-800:] or f"exit code {done.returncode}"
                raise BrokerUnavailable(f"the broker's keeper ended: {said}")
    said = json.loads(answer.read_text())
    if "error" in said:
        raise BrokerUnavailable(said["error"])
    return str(said["bootstrap"])


def _keep(root: Path, owner: int, ready: int) -> None:
    """Run the broker until the owner's end; a byte on `ready` says that the answer is there."""
    ended = _Ended(owner)
    try:
        with broker(root / "kafka") as bootstrap:
            _answer(root, {"bootstrap": bootstrap}, ready)
            while not ended.within(POLL_S):
                pass
    except BrokerUnavailable as error:
        _answer(root, {"error": str(error)}, ready)


def _answer(root: Path, said: dict[str, str], ready: int) -> None:
    new = root / "kafka.json.new"
    new.write_text(json.dumps(said))
    new.rename(root / "kafka.json")
    os.write(ready, b".")


class _Ended:
    """Whether a process, which need not be a child of ours, has ended."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._handle: int | None = None
        if sys.platform == "linux":
            self._handle = os.pidfd_open(pid)

    def within(self, wait_s: float) -> bool:
        """Wait this long for the end."""
        if self._handle is not None:
            return bool(select.select([self._handle], [], [], wait_s)[0])
        time.sleep(wait_s)
        try:
            os.kill(self._pid, 0)
        except ProcessLookupError:
            return True
        return False


def main(root: Path, owner: int) -> int:
    """Start the keeper as a process of its own, and end when its answer is there."""
    heard, ready = os.pipe()
    if os.fork():
        os.close(ready)
        os.read(heard, 1)
        return 0
    # From here on nobody waits for this process: no terminal, no pipe of pytest's held open.
    os.setsid()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    output = os.open(root / "kafka-keeper.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, target in ((0, nothing), (1, output), (2, output)):
        os.dup2(target, number)
    _keep(root, owner, ready)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
