-- What took longest: model calls, tool calls and decisions, the slowest first.
-- group cost
-- param limit: integer = 20
WITH took AS (
    SELECT 'model call' AS what, coalesce(model, 'unknown') AS name, latency_ms AS ms,
        conversation_id, event_id, occurred_at
    FROM llm_calls
    UNION ALL
    SELECT 'tool call', coalesce(call.action, 'unknown'), duration_ms,
        result.conversation_id, result.event_id, result.occurred_at
    FROM tool_results AS result LEFT JOIN tool_calls AS call ON call.event_id = result.call_id
    UNION ALL
    SELECT 'decision', tier || ' ' || route, duration_us / 1000, conversation_id, event_id,
        occurred_at
    FROM decisions
)
SELECT what, name, ms, conversation_id, occurred_at, event_id
FROM took
WHERE ms IS NOT NULL
ORDER BY ms DESC, event_id
LIMIT $limit
