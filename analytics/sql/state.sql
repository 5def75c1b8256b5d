-- Where a conversation stands: title, participants, last turn, outcome, processes; with --as-of, then.
-- group conversations
-- param conversation: text = latest
-- reads one conversation
WITH changed AS (
    SELECT * FROM conversation_changes WHERE conversation_id = $conversation
), told AS (
    SELECT 1 AS place, 'title' AS what, arg_max(title, "offset") AS value,
        max(occurred_at) AS since
    FROM changed WHERE title IS NOT NULL
    UNION ALL
    SELECT 2, 'storage', arg_max(change, "offset"), max(occurred_at)
    FROM changed WHERE change IN ('archived', 'rehydrated')
    UNION ALL
    SELECT 3, 'participant', participant, arg_max(occurred_at, "offset")
    FROM changed
    WHERE participant IS NOT NULL AND change IN ('joined', 'left')
    GROUP BY participant
    HAVING arg_max(change, "offset") = 'joined'
    UNION ALL
    SELECT 4, 'turns', count(*)::VARCHAR, max(occurred_at)
    FROM turns WHERE conversation_id = $conversation
    UNION ALL
    SELECT 5, 'last turn', arg_max(sender || ': ' || left(text, 200), "offset"), max(occurred_at)
    FROM turns WHERE conversation_id = $conversation
    UNION ALL
    SELECT 6, 'process', process || ' ' || arg_max(state, "offset")
        || coalesce(' at step ' || arg_max(step, "offset"), ''), arg_max(occurred_at, "offset")
    FROM process_steps WHERE conversation_id = $conversation
    GROUP BY instance_id, process
    UNION ALL
    SELECT 7, 'outcome', result || ' by ' || judged_by, occurred_at
    FROM outcomes WHERE about = 'conversation' AND about_id = $conversation
    QUALIFY row_number() OVER (
        PARTITION BY judged_by ORDER BY appended_at DESC, partition DESC, "offset" DESC
    ) = 1
)
SELECT what, value, since
FROM told
WHERE value IS NOT NULL AND value <> '0'
ORDER BY place, since, value
