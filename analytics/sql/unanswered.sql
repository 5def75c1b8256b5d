-- Turns whose recipient said nothing in the conversation after them; acks are no answers.
-- group conversations
-- param people: boolean = false
WITH kinds AS (
    SELECT name, arg_max(kind, (since, kind)) AS kind FROM (
        SELECT sender AS name, sender_kind AS kind, appended_at AS since FROM turns
        UNION ALL
        SELECT participant, participant_kind, appended_at FROM conversation_changes
        WHERE participant_kind IS NOT NULL
    ) GROUP BY name
), last_words AS (
    SELECT conversation_id, sender, max("offset") AS last_offset
    FROM turns WHERE NOT list_contains(tags, 'ack')
    GROUP BY conversation_id, sender
), asked AS (
    SELECT conversation_id, turn_number, occurred_at, sender, text, "offset",
        unnest(recipients) AS recipient
    FROM turns
    WHERE NOT list_contains(tags, 'ack') AND sender_kind <> 'system'
        AND intent IS DISTINCT FROM 'TERMINATE'
)
SELECT asked.conversation_id, turn_number, occurred_at, asked.sender, recipient,
    kinds.kind AS recipient_kind, left(text, 200) AS text
FROM asked
LEFT JOIN last_words
    ON last_words.conversation_id = asked.conversation_id AND last_words.sender = recipient
LEFT JOIN kinds ON kinds.name = recipient
WHERE coalesce(last_offset, -1) < asked."offset"
    AND ($people OR kinds.kind IS DISTINCT FROM 'human')
ORDER BY occurred_at, asked.conversation_id, turn_number, recipient
