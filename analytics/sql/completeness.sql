-- Whether anything is missing between two times, partition by partition, and what that rests on.
-- group proof
-- param since: time = any
-- param until: time = any
WITH seen AS (
    SELECT topic, partition, "offset", kind, event_id, appended_at, payload,
        "offset" - lag("offset", 1,
            -- What is kept for a time begins where its past was deleted.
            CASE WHEN starts_with(topic, 'mad.inbox.') OR topic = 'mad.system'
                THEN "offset" - 1 ELSE -1 END
        ) OVER (PARTITION BY topic, partition ORDER BY "offset") - 1 AS missing,
        [causation_id, payload->>'turn_id', payload->>'call_id'] AS named,
        ($since::TIMESTAMP IS NULL OR appended_at >= $since::TIMESTAMP)
            AND ($until::TIMESTAMP IS NULL OR appended_at < $until::TIMESTAMP) AS asked_for
    FROM events
), spanned AS (
    SELECT topic, partition, count(*) AS events, min("offset") AS first_offset,
        max("offset") AS last_offset, sum(missing)::BIGINT AS missing_offsets,
        min(appended_at) AS first_at, max(appended_at) AS last_at
    FROM seen
    WHERE asked_for
    GROUP BY topic, partition
), absent AS (
    -- What an event names was in the log before it, on any backend.
    SELECT topic, partition, count(*) AS not_there
    FROM (SELECT topic, partition, unnest(named) AS named FROM seen WHERE asked_for)
    WHERE named IS NOT NULL AND named NOT IN (SELECT event_id FROM seen)
    GROUP BY topic, partition
), signed AS (
    -- The newest counts: offsets of an older one may be another backend's, before a move.
    SELECT payload->>'topic' AS topic, (payload->>'partition')::INTEGER AS partition,
        arg_max((payload->>'offset')::BIGINT, newness) AS up_to,
        arg_max((payload->>'size')::BIGINT, newness) AS records
    FROM (SELECT payload, (appended_at, "offset") AS newness
        FROM seen WHERE kind = 'CheckpointSigned')
    GROUP BY ALL
), compared AS (
    -- A checkpoint says how many records there were below its offset.
    SELECT g.topic, g.partition, any_value(g.up_to) AS up_to, any_value(g.records) AS records,
        any_value(g.records) - count(s.event_id) AS fewer
    FROM signed g LEFT JOIN seen s ON s.topic = g.topic AND s.partition = g.partition
        AND s."offset" < g.up_to
    GROUP BY g.topic, g.partition
)
SELECT topic, partition, CASE
        WHEN not_there > 0 THEN 'something is missing'
        WHEN fewer > 0 THEN 'fewer than signed'
        WHEN missing_offsets > 0 THEN 'gaps'
        ELSE 'nothing is missing' END AS verdict,
    coalesce(events, 0) AS events, first_offset, last_offset, missing_offsets,
    coalesce(not_there, 0) AS named_but_not_there, c.up_to AS signed_up_to_offset,
    c.records AS signed_records, greatest(fewer, 0) AS fewer_than_signed,
    CASE WHEN missing_offsets > 0
        THEN 'gaps: a loss in a folder, normal on Kafka, where transactions end'
        WHEN events IS NULL THEN 'no event is left'
        ELSE 'no offset is left out from the first to the last event' END
        || CASE WHEN c.up_to IS NULL THEN '; no checkpoint'
            WHEN c.up_to <= last_offset THEN '; a checkpoint up to offset ' || c.up_to
            ELSE '; a checkpoint of it all' END
        || '; only madlog check looks at bytes and signatures' AS rests_on,
    first_at, last_at
FROM spanned s
LEFT JOIN absent USING (topic, partition)
FULL JOIN compared c USING (topic, partition)
WHERE events IS NOT NULL OR fewer > 0
ORDER BY topic, partition
