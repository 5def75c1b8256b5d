"""Child processes that never outlive the process that started them, however that one ends."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

__all__ = ("spawn",)

# Linux ends a child with the *thread* that started it, so one thread starts them all.
_SPAWNER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="broker-spawner")

# Between fork and exec nothing of ours may run (this process has threads): the child asks for
# its own death itself, then becomes the program. 1 = PR_SET_PDEATHSIG, 9 = SIGKILL.
_TIED = """
import ctypes, os, sys
ctypes.CDLL(None, use_errno=True).prctl(1, 9, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    os._exit(137)
os.execv(sys.argv[2], sys.argv[2:])
"""


def spawn(command: list[str], output: Path) -> subprocess.Popen[bytes]:
    """Start a program whose output goes to a file; its first word is an absolute path."""
    return _SPAWNER.submit(_spawn, command, output).result()


def _spawn(command: list[str], output: Path) -> subprocess.Popen[bytes]:
    if sys.platform == "linux":
        command = [sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid()), *command]
    with output.open("ab") as file:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            # Ctrl-C at a terminal is for the parent, which then ends the brokers in order.
            start_new_session=True,
        )
