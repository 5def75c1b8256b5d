"""A clock that stands still until a test moves it."""

__all__ = ("ManualClock",)


class ManualClock:
    """Times that only a test moves: leases end when it says so, without waiting."""

    def __init__(self, now_us: int = 1_700_000_000_000_000, boot_id: str = "manual") -> None:
        self._now_us = now_us
        # Not 0, so that a lease that was never set cannot look like one that is running.
        self._monotonic_ns = 1_000_000_000_000
        self._boot_id = boot_id

    def now_us(self) -> int:
        """Return wall time in µs since 1970, UTC."""
        return self._now_us

    def monotonic_ns(self) -> int:
        """Return the time in ns that `advance` has reached."""
        return self._monotonic_ns

    def boot_id(self) -> str:
        """Return the name of this run of the machine."""
        return self._boot_id

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self._now_us += round(seconds * 1_000_000)
        self._monotonic_ns += round(seconds * 1_000_000_000)

    def set_wall(self, now_us: int) -> None:
        """Set wall time alone, also backwards, as a person or NTP would."""
        self._now_us = now_us

    def reboot(self, boot_id: str) -> None:
        """Start the machine anew: another boot id, monotonic time from near zero."""
        self._boot_id = boot_id
        self._monotonic_ns = 1_000_000_000
