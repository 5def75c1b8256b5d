"""The made-up month as a benchmark: what rose, what was kept, what came back, and how fast."""

import asyncio
import gc
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from tests.bench.month_plot import drawn
from tests.bench.month_run import Day, Month, Scale, opened
from tests.bench.month_world import Days, World
from tests.bench.routing_rows import row, say

from madlog.analytics.verify import verify
from madlog.processors.promise import interval

__all__ = ("BAD_MODEL_DAY", "MAX_ERROR", "lived", "measure")

MAX_ERROR = 0.05
BAD_MODEL_DAY = 17
_RECOVERY_DAYS = 5


async def lived(month: Month, days: int, bad_model_day: int | None = BAD_MODEL_DAY) -> list[Day]:
    """Live so many days; on one of them a person rolls a bad model out by hand, to 10 %."""
    found = []
    async with month:
        for number in range(days):
            if number == bad_model_day:
                await month.publish_bad_model("10")
            day = await month.day(number)
            found.append(day)
            # What the log in memory holds is there to stay: the collector need not look again.
            gc.freeze()
            say(f"day {number + 1}: {told(day)}")
    return found


def told(day: Day) -> str:
    """Return a day in words."""
    total = sum(day.tiers.values())
    shares = ", ".join(f"{name} {count / total:.0%}" for name, count in sorted(day.tiers.items()))
    steps = "; ".join(f"{version} {stage}" for version, stage, _ in day.steps)
    wrong = f"{day.acted_wrong} of {day.acted} learned acts wrong"
    seconds = f"{sum(day.seconds.values()):.0f} s"
    return f"{day.turns:,} turns in {seconds}; {shares}; {wrong}" + (f"; {steps}" if steps else "")


async def measure(plot: Path | None, seed: int = 1) -> list[dict[str, Any]]:
    """Live the month and return its rows; the drawing goes to `plot`."""
    begun = perf_counter()
    log, clock = await opened()
    days = Days()
    month = Month(log, clock, World(seed, days), Scale(), seed=seed, max_error=MAX_ERROR)
    found = await lived(month, days.length)
    took = perf_counter() - begun
    report = await verify(log, month.get_blob, registry=month.registry)
    if plot is not None:
        await asyncio.to_thread(plot.write_text, drawn(found, _marks(found, days), MAX_ERROR))
    return [*_rows(found, days, took), _verified(report.decisions, len(report.differences))]


def _marks(found: Sequence[Day], days: Days) -> list[tuple[int, str]]:
    marks = [
        (6, "new intent"),
        (days.fraud_check, "drift: a check more"),
        (16, "new intent"),
        (BAD_MODEL_DAY, "bad model"),
        (days.new_refund, "drift: vouchers"),
    ]
    gone = _taken_back(found)
    return sorted([*marks, *([] if gone is None else [(gone, "taken back")])])


def _taken_back(found: Sequence[Day]) -> int | None:
    for day in found:
        if any(version == "by-hand" and stage == "back" for version, stage, _ in day.steps):
            return day.day
    return None


def _cheap(days: Sequence[Day]) -> float:
    total = sum(sum(day.tiers.values()) for day in days)
    return 100 * sum(day.tiers["dtr"] + day.tiers["lppm"] for day in days) / total


def _processes(days: Sequence[Day]) -> float:
    total = sum(sum(day.tiers.values()) for day in days)
    return 100 * sum(day.tiers["lppm"] for day in days) / total


def _rows(found: Sequence[Day], days: Days, took: float) -> list[dict[str, Any]]:
    audited = sum(day.audited for day in found)
    wrong = sum(day.audited_wrong for day in found)
    low, high = interval(wrong, audited)
    cheap = sum(day.tiers["dtr"] + day.tiers["lppm"] for day in found)
    acted_wrong = sum(day.acted_wrong for day in found)
    gone = _taken_back(found)
    rows = [
        row("Month: turns", [sum(day.turns for day in found)], "", reach=200_000),
        row("Month: seconds for all of it", [took], "s", reach=300, most=True),
        row("Month: share of the cheap tiers, first two days", [_cheap(found[:2])]),
        row("Month: share of the cheap tiers, last five days", [_cheap(found[-5:])]),
        row("Month: share of learned processes, last five days", [_processes(found[-5:])]),
        row("Month: audited and wrong", [100 * wrong / audited], reach=100 * MAX_ERROR, most=True)
        | {"spread": f"{100 * low:.2f}–{100 * high:.2f} of {audited:,}"},
        row("Month: cheap and wrong, as the world knows", [100 * acted_wrong / cheap]),
        row(
            "Month: days until the bad model was taken back by itself",
            [None if gone is None else gone - BAD_MODEL_DAY],
            "",
        ),
    ]
    for name, day in (("a check more", days.fraud_check), ("vouchers", days.new_refund)):
        rows.append(
            row(f"Month: days until the drift ({name}) is over", [_recovered(found, day)], "")
        )
    return rows


def _recovered(found: Sequence[Day], since: int) -> float | None:
    """Return the days from a change until learned acts err within the promise for good.

    Until the next change of the world, or the bad model, whichever comes first.
    """
    until = min(
        (day for day in (BAD_MODEL_DAY, Days().new_refund, Days().length) if day > since),
        default=len(found),
    )
    last = None
    for day in found[since:until]:
        if day.acted and day.acted_wrong > MAX_ERROR * day.acted:
            last = day.day
    if last == until - 1:
        return None
    return 0.0 if last is None else float(last + 1 - since)


def _verified(decisions: int, differences: int) -> dict[str, Any]:
    return row(
        f"Month: differences of {decisions:,} decisions computed again",
        [differences],
        "",
        reach=0,
        most=True,
    )
