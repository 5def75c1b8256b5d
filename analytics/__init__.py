"""What the log tells: SQL, named questions, digests, replay, other systems' logs in and out.

Names are loaded when they are first used: DuckDB and Arrow cost what a replay should not pay.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from madlog.analytics.questions import ask as ask
    from madlog.analytics.questions import questions as questions
    from madlog.analytics.replay import rebuild as rebuild
    from madlog.analytics.replay import refresh as refresh
    from madlog.analytics.sql import connect as connect
    from madlog.analytics.sql import query as query

__all__ = ("ask", "connect", "query", "questions", "rebuild", "refresh")

_HOMES = {
    "ask": "madlog.analytics.questions",
    "connect": "madlog.analytics.sql",
    "query": "madlog.analytics.sql",
    "questions": "madlog.analytics.questions",
    "rebuild": "madlog.analytics.replay",
    "refresh": "madlog.analytics.replay",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
