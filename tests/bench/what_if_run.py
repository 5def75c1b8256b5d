"""What-if over turns that were decided live, against decoding and the router's step alone.

The log holds the turns and a Decision of each, as a worker leaves it; what-if reads both. The plain
loop reads the same records of the turns from a table of SQLite, decodes them and steps the same
router, and compares nothing. Memory is the peak of a process of its own that asks once.
"""

import asyncio
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench import plain
from tests.bench.fixtures import joined, turn
from tests.bench.passing import cpu_s

from madlog.analytics.what_if import Asked, Variant, what_if
from madlog.processors import Agent, Registry, Router
from madlog.processors.dtr.seed_model import seed_model
from madlog.schemas import Decision, Event
from madlog.topics import EventLog, LogEvent, Record
from madlog.wiring import open_event_log

__all__ = ("TURNS", "measure")

TURNS = 200_000
_BATCH = 2_000
_CONVERSATIONS = 20_000
_REACH, _MEMORY_MIB = 0.7, 256
_REGISTRY = Registry([Agent("shop", actions=frozenset({"get_order"}))])


def _router() -> tuple[Router, dict[str, Any]]:
    """Return a router that has taken up the first tree, and the state of a partition."""
    router = Router(_REGISTRY)
    shared: dict[str, Any] = {}
    model = seed_model()
    record = Record("mad.models", 0, 0, b"", b"", (), 0)
    router.share(shared, LogEvent(record, model.kind, model.model_dump()))
    return router, shared


async def _fill(log: EventLog, turns: int) -> None:
    """Write who takes part, the turns, and the live router's decisions of them."""
    names = min(_CONVERSATIONS, turns)
    await log.append([seed_model()])
    batches: list[Sequence[Event]] = [joined(names)]
    batches += [
        [turn(number, names, key=False) for number in range(first, min(first + _BATCH, turns))]
        for first in range(0, turns, _BATCH)
    ]
    router, state = _router()
    end = await log.log.end([])
    for batch in batches:
        await log.append(batch)
        until = await log.log.end(["mad.conversations"])
        made: list[Event] = []
        async for events in log.read(end, until):
            for event in events:
                outputs = router.step(state, event)
                made += [output for output in outputs if isinstance(output, Decision)]
        end = until
        if made:
            await log.append(made)


async def measure(folder: Path, rounds: int, turns: int) -> list[dict[str, Any]]:
    """Fill a log, and replay it by turns with the plain loop; a row of rate and one of memory."""
    log = await open_event_log(str(folder / "log"))
    await _fill(log, turns)
    bare = plain.connect(folder / "plain.sqlite")
    async for events in log.read_topics(["mad.conversations"]):
        pairs = [(event.record.key, event.record.value) for event in events]
        plain.append_batches(bare, [pairs])
    ours, base = [], []
    cpu_us: tuple[list[float], list[float]] = [], []
    for _ in range(rounds):
        begun, used = perf_counter(), cpu_s()
        assert await _asked(log) == turns
        ours.append(turns / (perf_counter() - begun))
        cpu_us[0].append((cpu_s() - used) / turns * 1e6)
        begun, used = perf_counter(), cpu_s()
        assert _plain(bare, log) == turns
        base.append(turns / (perf_counter() - begun))
        cpu_us[1].append((cpu_s() - used) / turns * 1e6)
    bare.close()
    await log.close()
    ratios = [a / b for a, b in zip(ours, base, strict=True)]
    ratio = statistics.median(ratios)
    return [
        {
            "what": f"what-if over {turns:,} decided turns / decode + the router's step alone",
            "ours": round(statistics.median(ours)),
            "baseline": round(statistics.median(base)),
            "unit": "/s",
            "ratio": round(ratio, 3),
            "spread": f"{min(ratios):.2f}–{max(ratios):.2f}",
            "reach": f"≥ {_REACH}",
            "met": ratio >= _REACH,
            # Of the process, a decision: what other work on the machine changes least.
            "cpu": " / ".join(f"{statistics.median(one):.1f}" for one in cpu_us) + " µs",
        },
        await asyncio.to_thread(_memory, folder / "log", turns),
    ]


async def _asked(log: EventLog) -> int:
    variant = Variant(max_error=0.01)
    report = await what_if(log, Asked(variant), _no_blob, registry=_REGISTRY)
    assert report.tally is not None
    return report.tally.decisions


def _no_blob(sha256: str) -> bytes:
    raise LookupError(sha256)


def _plain(bare: Any, log: EventLog) -> int:
    """Decode every record and step the router over it; return how many decisions it made."""
    router, state = _router()
    decode, count = log.schemas.decode_fields, 0
    for offset, key, value in bare.execute("select offset, key, value from r order by offset"):
        record = Record("mad.conversations", 0, offset, key, value, (), 0)
        outputs = router.step(state, LogEvent(record, *decode(value)))
        count += sum(isinstance(output, Decision) for output in outputs)
    return count


def _memory(log: Path, turns: int) -> dict[str, Any]:
    out = subprocess.run(
        [sys.executable, __file__, str(log)], capture_output=True, text=True, check=True
    ).stdout
    found = json.loads(out)
    return {
        "what": f"memory: what-if over {turns:,} decided turns",
        "ours": round(found["rss_mib"], 1),
        "baseline": None,
        "unit": "MiB",
        "ratio": None,
        "spread": f"{found['seconds']:.1f} s",
        "reach": f"≤ {_MEMORY_MIB}",
        "met": found["rss_mib"] <= _MEMORY_MIB,
    }


async def _once(folder: str) -> dict[str, Any]:
    begun = perf_counter()
    log = await open_event_log(folder, create=False)
    count = await _asked(log)
    await log.close()
    status = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in status if line.startswith("VmHWM")]
    rss_mib = int(line.split()[1]) / 1024
    return {"rss_mib": rss_mib, "decisions": count, "seconds": perf_counter() - begun}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_once(sys.argv[1]))))
