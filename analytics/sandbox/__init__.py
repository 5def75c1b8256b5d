"""SQL that comes from others: five walls around each query, and a record of it on the log."""

from madlog.analytics.sandbox._job import WALLS
from madlog.analytics.sandbox._kernel import kernel_walls
from madlog.analytics.sandbox.sandbox import Limits, Sandbox

__all__ = ("WALLS", "Limits", "Sandbox", "kernel_walls")
