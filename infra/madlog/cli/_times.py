"""Times as a person reads them."""

from datetime import UTC, datetime, timedelta

__all__ = ("iso", "span", "utc")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def iso(us: int) -> str | None:
    """Return µs since 1970 as SQL answers write them, None where Python has no such year."""
    try:
        moment = _EPOCH + timedelta(microseconds=us)
    except OverflowError:
        return None
    return moment.replace(tzinfo=None).isoformat() + "Z"


def utc(us: int) -> str:
    """Return µs since 1970 as a date and a time to the second, UTC."""
    return (iso(us) or "an unknown time")[:19].replace("T", " ")


def span(us: int) -> str:
    """Return how long something lasted, in its two largest units."""
    seconds = round(us / 1_000_000)
    for unit, size, smaller, part in (
        ("d", 86_400, "h", 3_600),
        ("h", 3_600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if seconds >= size:
            rest = seconds % size // part
            return f"{seconds // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{seconds} s" if seconds else f"{us / 1_000_000:.2g} s"
