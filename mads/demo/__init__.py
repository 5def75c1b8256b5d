"""The demo's ecosystem: a refund team whose traffic is scripted, and says so."""

from madlog.mads.demo.traffic import DUPLICATE_REFUNDS, traffic
from madlog.mads.demo.writer import write

__all__ = ("DUPLICATE_REFUNDS", "traffic", "write")
