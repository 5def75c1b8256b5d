"""Runs the command line inside this process: as `cli`, without the start of an interpreter."""

import contextlib
import io
import os
import sys
import tempfile
from pathlib import Path
from unittest import mock

from tests.acceptance.cli import Ran

from madlog import cli

__all__ = ("inside",)


def inside(
    *arguments: str, cwd: Path, stdin: bytes = b"", env: dict[str, str] | None = None
) -> Ran:
    """Run madlog in a folder; raises what it does not explain."""
    out, err = io.StringIO(), io.StringIO()
    with (
        tempfile.TemporaryFile() as file,
        io.TextIOWrapper(file) as given,
        contextlib.chdir(cwd),
        mock.patch.dict(os.environ, {"COLUMNS": "120", **(env or {})}),
        mock.patch.object(sys, "argv", ["madlog", *arguments]),
        mock.patch.object(sys, "stdin", given),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        file.write(stdin)
        file.seek(0)
        code = cli._run()
    return Ran(code, out.getvalue(), err.getvalue())
