"""Time, randomness and the machine's identity as ports: the core gets them as arguments."""

import os
import time
from pathlib import Path
from typing import Protocol

__all__ = ("Clock", "SystemClock", "system_random")


class Clock(Protocol):
    """Where the log gets its times from."""

    def now_us(self) -> int:
        """Return wall time in µs since 1970, UTC."""

    def monotonic_ns(self) -> int:
        """Return ns that never go back while the machine runs, equal in all its processes."""

    def boot_id(self) -> str:
        """Return a name of this run of this machine: monotonic times compare within it only."""


class SystemClock:
    """The machine's own clocks."""

    def now_us(self) -> int:
        """Return wall time in µs since 1970, UTC."""
        return time.time_ns() // 1000

    def monotonic_ns(self) -> int:
        """Return the time since boot in ns, time asleep included where the system counts it."""
        if hasattr(time, "CLOCK_BOOTTIME"):
            return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return time.monotonic_ns()

    def boot_id(self) -> str:
        """Return the kernel's boot id; macOS has none, so there the second of boot names it."""
        try:
            return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            booted_s = (time.time_ns() - time.monotonic_ns()) // 1_000_000_000
            return f"booted-{booted_s // 60}"


def system_random(size: int) -> bytes:
    """Return `size` random bytes of the operating system."""
    return os.urandom(size)
