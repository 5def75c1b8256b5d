-- Every turn, call and answer that shares a correlation id, across agents, in time order.
-- group conversations
-- param correlation: text
WITH mine AS (
    SELECT occurred_at, conversation_id, "offset", sender, 'turn' AS what, recipients, text,
        event_id
    FROM turns WHERE correlation_id = $correlation
    UNION ALL
    SELECT occurred_at, conversation_id, "offset", sender, 'call', [],
        action || '(' || arguments || ')', event_id
    FROM tool_calls WHERE correlation_id = $correlation
    UNION ALL
    SELECT occurred_at, conversation_id, "offset", sender,
        CASE WHEN ok THEN 'result' ELSE 'failure' END, [], coalesce(error, result), event_id
    FROM tool_results WHERE correlation_id = $correlation
)
SELECT occurred_at, conversation_id, sender, what, recipients, text, event_id
FROM mine
ORDER BY occurred_at, conversation_id, "offset"
