"""The SQL views: which tables each is made of, and how."""

from dataclasses import dataclass
from typing import Any

from madlog.analytics.columns import ALL
from madlog.analytics.parsed import nodes

__all__ = ("TABLE_PREFIX", "VIEWS", "View", "numbers_turns")

# The tables under the views are named so; queries go through the views alone.
TABLE_PREFIX = "_log_"

_COMMON = (
    'topic, partition, "offset", event_id, conversation_id, correlation_id, causation_id, '
    "sender, sender_kind, occurred_at, appended_at, schema_version"
)

_NUMBER = 'row_number() OVER (PARTITION BY conversation_id ORDER BY partition, "offset")'
_UNASKED = "error('turn_number is asked for in a way that is not understood: name it')::BIGINT"


@dataclass(frozen=True, slots=True)
class View:
    """One view: the kinds whose tables it reads, and its SELECT."""

    name: str
    kinds: tuple[str, ...]
    sql: str

    @property
    def unnumbered(self) -> str:
        """Its SELECT for a query that asks for no turn_number.

        Behind a window function DuckDB reads all turns, whatever the query filters by; without it,
        those that the filter leaves. Asked for after all, turn_number is an error, never wrong.
        """
        return self.sql.replace(_NUMBER, _UNASKED)


def _of(name: str, kind: str, columns: str) -> View:
    return View(name, (kind,), f'SELECT {_COMMON}, {columns} FROM "{TABLE_PREFIX}{kind}"')


_CONVERSATIONS = """
WITH said AS (
    SELECT conversation_id, occurred_at, sender AS participant, 1 AS turns FROM _log_Turn
    UNION ALL
    SELECT conversation_id, occurred_at, sender, 0 FROM _log_ToolCall
    UNION ALL
    SELECT conversation_id, occurred_at, NULL, 0 FROM _log_ToolResult
    UNION ALL
    SELECT conversation_id, occurred_at, participant, 0 FROM _log_ConversationChanged
), judged AS (
    SELECT about_id, arg_max(result, (appended_at, partition, "offset")) AS outcome
    FROM _log_Outcome WHERE about = 'conversation' GROUP BY about_id
)
SELECT
    said.conversation_id,
    min(occurred_at) AS first_at,
    max(occurred_at) AS last_at,
    sum(turns)::BIGINT AS turns,
    coalesce(list_sort(list(DISTINCT participant) FILTER (participant IS NOT NULL)), [])
        AS participants,
    any_value(outcome) AS outcome
FROM said LEFT JOIN judged ON judged.about_id = said.conversation_id
GROUP BY said.conversation_id
"""

VIEWS: dict[str, View] = {
    view.name: view
    for view in (
        _of("events", ALL, "kind, payload::JSON AS payload, subject, idempotency_key"),
        _of(
            "turns",
            "Turn",
            f"{_NUMBER} AS turn_number, "
            "recipients, mentions, tags, intent, content_class, text, parts::JSON AS parts, "
            "traffic",
        ),
        _of(
            "conversation_changes",
            "ConversationChanged",
            "change, participant, participant_kind, title, metadata::JSON AS metadata",
        ),
        _of("tool_calls", "ToolCall", "action, arguments, source_call_id"),
        _of("tool_results", "ToolResult", "call_id, ok, result, error, duration_ms"),
        _of(
            "decisions",
            "Decision",
            "turn_id, recipient, mode, tier, "
            "CASE tier WHEN 'dtr' THEN 'tree' WHEN 'lppm' THEN 'process' "
            "WHEN 'imperator' THEN 'llm' END AS settled_by, "
            "route, confidence, max_error, audited, propensity, model_id, model_version, "
            "features::JSON AS features, candidates::JSON AS candidates, reason, duration_us, "
            "arguments, escalation, control_id",
        ),
        _of(
            "llm_calls",
            "LlmCall",
            "provider, model, tokens_in, tokens_out, cost_usd, latency_ms, "
            "parameters::JSON AS parameters, answer_id, extra::JSON AS extra",
        ),
        _of(
            "outcomes",
            "Outcome",
            "result, quality, judged_by, about, about_id, extra::JSON AS extra",
        ),
        _of(
            "models",
            "ModelPublished",
            "component, mad, version, parameters_sha256, parameters, parameters_uri, "
            "trained_on::JSON AS trained_on, metrics::JSON AS metrics, "
            "hyper_parameters::JSON AS hyper_parameters, code_version",
        ),
        _of(
            "process_steps",
            "ProcessStep",
            "instance_id, mad, process, state, step, action, arguments, decision_id, deadline, "
            "reason",
        ),
        _of(
            "control",
            "Control",
            "target, command, tier, value, name, about_id, expires_at, reason",
        ),
        _of(
            "audit",
            "AuditEntry",
            "principal, action, text, text_sha256, reads, verdict, reason, rows, size",
        ),
        _of(
            "dead_letters",
            "DeadLetter",
            "processor, record_topic, record_partition, record_offset, record_key, "
            "record_value, record_headers::JSON AS record_headers, error_type, error, attempts",
        ),
        _of(
            "schemas",
            "SchemaRegistered",
            "subject_name, version, fingerprint, schema_text",
        ),
        View(
            "conversations",
            ("Turn", "ConversationChanged", "ToolCall", "ToolResult", "Outcome"),
            _CONVERSATIONS,
        ),
    )
}


def numbers_turns(tree: Any) -> bool:
    """Tell whether a parsed SELECT may ask for turn_number: by name, by a star, in a whole row."""
    columns: set[str] = set()
    tables = {"turn_number"}
    for node in nodes(tree):
        by_place = node.get("class") in ("STAR", "POSITIONAL_REFERENCE")
        if by_place or node.get("column_name_alias") or node.get("ref_type") == "NATURAL":
            return True
        columns |= {name.lower() for name in node.get("column_names", ())[-1:]}
        columns |= {name.lower() for name in node.get("using_columns", ())}
        if "sample" in node:  # of tables and subqueries; a column of that name is a whole row
            tables |= {str(node.get(name)).lower() for name in ("alias", "table_name")}
    return bool(columns & tables)
