"""What if: the log decided again by another model, promise, tiers or prices, or behind a guard."""

from madlog.analytics.what_if.acts import Act, Past
from madlog.analytics.what_if.guards import load_guard
from madlog.analytics.what_if.report import WhatIfReport
from madlog.analytics.what_if.run import Asked, what_if
from madlog.analytics.what_if.variant import Variant, find_model

__all__ = (
    "Act",
    "Asked",
    "Past",
    "Variant",
    "WhatIfReport",
    "find_model",
    "load_guard",
    "what_if",
)
