-- Turns that a recipient did not acknowledge by #ack within some seconds, the newest first.
-- group conversations
-- param after_s: integer = 300
-- param limit: integer = 100
WITH asked AS (
    SELECT conversation_id, "offset", turn_number, occurred_at, sender, text, event_id,
        max(occurred_at) OVER () AS newest, unnest(recipients) AS recipient
    FROM turns
    WHERE NOT list_contains(tags, 'ack') AND sender_kind <> 'system'
), waited AS (
    SELECT asked.* EXCLUDE (newest), acked_at, acked_at IS NOT NULL AS acknowledged,
        date_diff('microsecond', asked.occurred_at, coalesce(acked_at, newest)) / 1e6 AS waited_s
    FROM asked LEFT JOIN LATERAL (
        -- An ack without a cause is taken for all that came before it.
        SELECT min(ack.occurred_at) AS acked_at
        FROM turns ack
        WHERE ack.conversation_id = asked.conversation_id AND ack.sender = asked.recipient
            AND ack."offset" > asked."offset" AND list_contains(ack.tags, 'ack')
            AND (ack.causation_id IS NULL OR ack.causation_id = asked.event_id)
    ) ON true
)
SELECT conversation_id, turn_number, occurred_at, sender, recipient, acknowledged,
    round(waited_s, 3) AS waited_s, left(text, 200) AS text, event_id
FROM waited
WHERE waited_s > $after_s
ORDER BY occurred_at DESC, conversation_id, turn_number, recipient
LIMIT $limit
