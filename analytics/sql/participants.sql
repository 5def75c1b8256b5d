-- Who took part in a conversation, since when, and how much each did.
-- group conversations
-- param conversation: text = latest
-- reads one conversation
WITH acts AS (
    SELECT sender AS participant, sender_kind AS kind, occurred_at, "offset",
        1 AS turns, 0 AS calls, NULL AS change
    FROM turns WHERE conversation_id = $conversation
    UNION ALL
    SELECT sender, sender_kind, occurred_at, "offset", 0, 1, NULL
    FROM tool_calls WHERE conversation_id = $conversation
    UNION ALL
    SELECT participant, participant_kind, occurred_at, "offset", 0, 0, change
    FROM conversation_changes
    WHERE conversation_id = $conversation AND participant IS NOT NULL
)
SELECT participant, arg_max(kind, "offset") AS kind,
    sum(turns)::BIGINT AS turns, sum(calls)::BIGINT AS tool_calls,
    min(occurred_at) FILTER (change = 'joined') AS joined_at,
    max(occurred_at) FILTER (change = 'left') AS left_at,
    coalesce(arg_max(change = 'left', "offset") FILTER (change IN ('joined', 'left')), false)
        AS has_left,
    min(occurred_at) FILTER (turns + calls > 0) AS first_at,
    max(occurred_at) FILTER (turns + calls > 0) AS last_at
FROM acts
GROUP BY participant
ORDER BY turns DESC, tool_calls DESC, participant
