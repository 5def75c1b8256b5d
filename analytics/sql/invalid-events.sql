-- Records that could not be read or did not fit their schema, by producer and schema version.
-- group faults
WITH bad AS (
    SELECT record_topic, error_type, error, occurred_at, event_id,
        -- Its bytes name its schema, as far as they can be read: C3 01, then the fingerprint.
        CASE WHEN starts_with(hex(record_value), 'C301')
            THEN lower(substr(hex(record_value), 5, 16)) END AS fingerprint,
        -- What an engine wrote says so in a header; of a client no more than the key is known.
        coalesce(record_headers->>'source', 'client') AS producer
    FROM dead_letters
    WHERE error_type IN ('Damaged', 'Undecodable', 'UnknownSchema', 'InvalidEvent')
)
SELECT b.record_topic AS topic, split_part(b.producer, '/', 1) AS producer,
    s.subject_name AS event, s.version, error_type, count(*) AS records,
    min(b.occurred_at) AS first_at, max(b.occurred_at) AS last_at,
    arg_max(b.error, (b.occurred_at, b.event_id)) AS last_error
FROM bad b LEFT JOIN schemas s USING (fingerprint)
GROUP BY ALL
ORDER BY records DESC, topic, producer, event, version, error_type
