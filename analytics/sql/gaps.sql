-- Where offsets are missing in a partition, and between which conversations.
-- group proof
WITH seen AS (
    SELECT topic, partition, "offset", conversation_id, appended_at,
        lag("offset") OVER place AS after_offset,
        lag(conversation_id) OVER place AS conversation_before
    FROM events
    WINDOW place AS (PARTITION BY topic, partition ORDER BY "offset")
)
-- A folder leaves none. On Kafka each end of a transaction takes an offset, and so do repeats that
-- readers drop. A turn's number is its rank in its conversation, so it has no gaps.
SELECT topic, partition, after_offset, "offset" AS before_offset,
    "offset" - coalesce(after_offset, -1) - 1 AS missing, conversation_before,
    conversation_id AS conversation_after, appended_at
FROM seen
WHERE "offset" > coalesce(after_offset,
    -- What is kept for a time begins where its past was deleted.
    CASE WHEN starts_with(topic, 'mad.inbox.') OR topic = 'mad.system' THEN "offset" ELSE -1 END
) + 1
ORDER BY topic, partition, "offset"
