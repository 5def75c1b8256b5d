"""The one shape of a routing benchmark's rows: ours beside what is aimed at, baselines, papers."""

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ("SETS", "figure", "row", "say", "skipped", "wrong_folder")

SETS = (
    "clinc150.json.gz",
    "banking77_train.csv.gz",
    "banking77_test.csv.gz",
    "star_train.jsonl.gz",
    "tau_bench_airline_gpt4o.jsonl.gz",
)

# By the row's name. How comparable each is, docs/benchmarks.md says.
_PUBLISHED = {
    "DTR, habits: decision p50": "lleaves 9.6 µs a row (its README)",
    "CLINC150: in-scope accuracy": "BERT 96.9 and 96.2 (Larson 2019)",
    "CLINC150: out-of-scope recall, 95 % of in-scope kept": (
        "BERT 40.3 and 52.3 (Larson 2019); mpnet + SVC 81.5 at 96 % kept (model card)"
    ),
    "BANKING77: accuracy": (
        "ModernBERT 89.5 frozen, 94.0 fine-tuned (model card); "
        "SetFit 77.9 from 8 a class (arXiv 2602.18922)"
    ),
}


def row(
    what: str,
    values: Sequence[float | None],
    unit: str = "%",
    *,
    reach: float | None = None,
    most: bool = False,
    baseline: float | str | None = None,
) -> dict[str, Any]:
    """Return a row: the mean over the seeds and their spread; `most`: at most `reach` is wanted.

    A value of None says that the seed never got there; then there is no mean, and no reach is met.
    """
    known = [value for value in values if value is not None]
    never = len(values) - len(known)
    mean = statistics.fmean(known) if known and not never else None
    met = None
    if reach is not None:
        met = mean is not None and (mean <= reach if most else mean >= reach)
    spread = [f"{figure(min(known))}–{figure(max(known))}"] if known else []
    if never:
        spread.append(f"never in {never} of {len(values)}")
    return {
        "what": what,
        "ours": None if mean is None else round(mean, 2),
        "baseline": baseline,
        "unit": unit,
        "ratio": None,
        "spread": ", ".join(spread),
        "reach": None if reach is None else f"{'≤' if most else '≥'} {reach:g}",
        "met": met,
        "published": _PUBLISHED.get(what),
    }


def figure(value: float) -> str:
    """Return a value as people read it."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def skipped(what: str, cure: str) -> dict[str, Any]:
    """Return the row of what could not be measured here."""
    return row(f"{what}: skipped, {cure}", [], "") | {"met": "skipped"}


def wrong_folder(folder: Path) -> str | None:
    """Say what is wrong with a folder that was named for the data sets, None if nothing."""
    wanted = f"name the folder that holds {', '.join(SETS)} with --data"
    if not folder.is_dir():
        return f"{folder} is no folder: {wanted}"
    if not any((folder / name).is_file() for name in SETS):
        return f"{folder} holds none of the data sets: {wanted}"
    return None


def say(text: str) -> None:
    """Say on stderr how far a benchmark is."""
    print(text, file=sys.stderr, flush=True)
