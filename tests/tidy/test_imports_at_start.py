"""`--help` must answer at once: what it may import is listed here."""

import subprocess
import sys

HEAVY = (
    "aiokafka",
    "apsw",
    "duckdb",
    "fastavro",
    "faust",
    "fsspec",
    "hypothesis",
    "numpy",
    "pandas",
    "pyarrow",
    "pydantic",
    "pytest",
)


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; sys.argv = ['madlog', '--help']\n"
        "from madlog.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('\\n'.join(sorted(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = {name.split(".")[0] for name in done.stderr.split()}
    assert loaded.isdisjoint(HEAVY), sorted(loaded & set(HEAVY))
    assert "madlog demo" in done.stdout
