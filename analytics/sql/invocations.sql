-- What tools were called by whom, with a hash of the arguments, the result and how long it took.
-- group cost
-- param agent: text = all
-- param limit: integer = 1000
WITH results AS (
    -- A result that came late stands beside one that gave it up: the newest counts.
    SELECT call_id, ok, result, error, duration_ms
    FROM tool_results
    QUALIFY row_number() OVER (PARTITION BY call_id ORDER BY partition, "offset" DESC) = 1
)
SELECT c.occurred_at, c.sender AS agent, c.action, sha256(c.arguments) AS arguments_sha256,
    CASE WHEN r.ok THEN 'success' WHEN r.call_id IS NULL THEN 'no answer' ELSE 'failure' END
        AS result,
    left(coalesce(r.error, r.result), 200) AS answer, r.duration_ms, c.conversation_id,
    c.event_id
FROM tool_calls c LEFT JOIN results r ON r.call_id = c.event_id
WHERE $agent IN ('all', c.sender)
ORDER BY c.occurred_at DESC, c.event_id
LIMIT $limit
