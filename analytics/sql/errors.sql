-- How often each agent failed, by failed calls and turns that say ERROR, and its last error.
-- group faults
WITH acts AS (
    SELECT sender AS agent, sender_kind AS kind, occurred_at, event_id,
        CASE WHEN intent = 'ERROR' OR list_contains(tags, 'error') THEN left(text, 200) END
            AS error
    FROM turns
    UNION ALL
    SELECT c.sender, c.sender_kind, coalesce(r.occurred_at, c.occurred_at), c.event_id,
        CASE WHEN NOT r.ok THEN left(c.action || ': ' || coalesce(r.error, ''), 200) END
    FROM tool_calls c LEFT JOIN (
        SELECT call_id, occurred_at, ok, error
        FROM tool_results
        QUALIFY row_number() OVER (PARTITION BY call_id ORDER BY partition, "offset" DESC) = 1
    ) r ON r.call_id = c.event_id
)
SELECT agent, count(*) AS acts, count(error) AS errors,
    round(count(error) / count(*), 4) AS error_rate,
    max(occurred_at) FILTER (error IS NOT NULL) AS last_error_at,
    arg_max(error, (occurred_at, event_id)) AS last_error
FROM acts
WHERE kind IN ('mad', 'emad', 'gateway')
GROUP BY agent
ORDER BY errors DESC, acts DESC, agent
