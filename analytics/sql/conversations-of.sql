-- Which conversations an agent joined or took part in, in a period, the newest first.
-- group agents
-- param agent: text
-- param since: time = any
-- param until: time = any
WITH acts AS (
    SELECT conversation_id, occurred_at, NULL AS change, 1 AS turns, 0 AS calls
    FROM turns WHERE sender = $agent
    UNION ALL
    SELECT conversation_id, occurred_at, NULL, 0, 1 FROM tool_calls WHERE sender = $agent
    UNION ALL
    SELECT conversation_id, occurred_at, change, 0, 0
    FROM conversation_changes WHERE participant = $agent
)
SELECT conversation_id, min(occurred_at) FILTER (change = 'joined') AS joined_at,
    max(occurred_at) FILTER (change = 'left') AS left_at, sum(turns)::BIGINT AS turns,
    sum(calls)::BIGINT AS tool_calls, min(occurred_at) AS first_at, max(occurred_at) AS last_at
FROM acts
WHERE ($since::TIMESTAMP IS NULL OR occurred_at >= $since::TIMESTAMP)
    AND ($until::TIMESTAMP IS NULL OR occurred_at < $until::TIMESTAMP)
GROUP BY conversation_id
ORDER BY last_at DESC, conversation_id
