-- Everything that an agent said, heard and did, an ephemeral one that has ended included.
-- group agents
-- param agent: text
WITH did AS (
    SELECT occurred_at, conversation_id, "offset", 'said' AS what,
        array_to_string(recipients, ', ') AS other, text, event_id
    FROM turns WHERE sender = $agent
    UNION ALL
    SELECT occurred_at, conversation_id, "offset", 'heard', sender, text, event_id
    FROM turns WHERE list_contains(recipients, $agent)
    UNION ALL
    SELECT occurred_at, conversation_id, "offset", 'called', action, arguments, event_id
    FROM tool_calls WHERE sender = $agent
    UNION ALL
    SELECT r.occurred_at, r.conversation_id, r."offset",
        CASE WHEN r.ok THEN 'result' ELSE 'failure' END, c.action, coalesce(r.error, r.result),
        r.event_id
    FROM tool_results r JOIN tool_calls c ON c.event_id = r.call_id AND c.sender = $agent
    UNION ALL
    SELECT occurred_at, conversation_id, "offset", change, sender, title, event_id
    FROM conversation_changes WHERE participant = $agent
)
SELECT occurred_at, conversation_id, what, other, text, event_id
FROM did
ORDER BY occurred_at, conversation_id, "offset", what
