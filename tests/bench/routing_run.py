"""The routing benchmarks in one table: decision tree, recognition, learned processes."""

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.bench.routing_rows import say, skipped

__all__ = ("measure",)

_NEEDS = {"routing-dtr": "river"}


def measure(names: Sequence[str], data: Path, seeds: int) -> list[dict[str, Any]]:
    """Run these of the benchmarks; what lacks its data or its library is a row that says so."""
    rows = []
    for name in names:
        needed = _NEEDS.get(name)
        if needed is not None and find_spec(needed) is None:
            rows.append(skipped(name, f"{needed} is not installed: make test sets up .venv"))
            continue
        say(f"{name}: seeds: {seeds}")
        module = import_module(f"tests.bench.{name.replace('-', '_')}")
        measured: Callable[[Path, int], list[dict[str, Any]]] = module.rows
        rows += measured(data, seeds)
    return rows
