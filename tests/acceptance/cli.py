"""Runs the command line as a person does: a process, its exit code, what it printed."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ("Ran", "madlog")


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its output as one JSON object."""
        return json.loads(self.out)

    @property
    def rows(self) -> list[Any]:
        """Its output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    def refused(self, code: int) -> str:
        """Assert that it refused with one clear line and that code; returns the line."""
        assert self.code == code, (self.code, self.out, self.err)
        assert "Traceback" not in self.err, self.err
        lines = [line for line in self.err.splitlines() if line.strip()]
        assert lines, "it refused without a word"
        return lines[-1]


def madlog(
    *arguments: str, cwd: Path, stdin: bytes | None = None, env: dict[str, str] | None = None
) -> Ran:
    """Run madlog in a folder."""
    done = subprocess.run(
        [sys.executable, "-m", "madlog", *arguments],
        cwd=cwd,
        input=stdin or b"",
        capture_output=True,
        timeout=200,
        check=False,
        env={**os.environ, "COLUMNS": "120", **(env or {})},
    )
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())
