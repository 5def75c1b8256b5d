-- What was said and done in a conversation, in order.
-- group conversations
-- param conversation: text = latest
-- reads one conversation
WITH said AS (
    SELECT partition, "offset", turn_number, occurred_at, sender,
        'turn' AS what, recipients, text
    FROM turns WHERE conversation_id = $conversation
    UNION ALL
    SELECT partition, "offset", NULL, occurred_at, sender,
        'call', [], action || '(' || arguments || ')'
    FROM tool_calls WHERE conversation_id = $conversation
    UNION ALL
    SELECT partition, "offset", NULL, occurred_at, sender,
        CASE WHEN ok THEN 'result' ELSE 'failure' END, [], coalesce(error, result)
    FROM tool_results WHERE conversation_id = $conversation
    UNION ALL
    SELECT partition, "offset", NULL, occurred_at, sender,
        change, [], coalesce(participant, title)
    FROM conversation_changes WHERE conversation_id = $conversation
)
SELECT turn_number, occurred_at, sender, what, recipients, text
FROM said
ORDER BY partition, "offset"
