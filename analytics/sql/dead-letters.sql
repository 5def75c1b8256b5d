-- Records that a processor gave up on, with the error, newest first; settled by a retry or not.
-- group faults
WITH letters AS (
    -- Its bytes name its schema: C3 01, then the fingerprint.
    SELECT *, CASE WHEN starts_with(hex(record_value), 'C301')
        THEN lower(substr(hex(record_value), 5, 16)) END AS fingerprint
    FROM dead_letters
), named AS (
    SELECT fingerprint, min(subject_name || ' v' || version) AS schema
    FROM schemas GROUP BY fingerprint
)
SELECT appended_at, processor,
    record_topic || '/' || record_partition || '@' || record_offset AS record,
    error_type, error, schema, attempts,
    event_id IN (
        -- The event that settles a letter is a dead letter too, and names it as its cause.
        SELECT causation_id FROM dead_letters
        WHERE error_type = 'settled' AND causation_id IS NOT NULL
    ) AS settled,
    event_id
FROM letters LEFT JOIN named USING (fingerprint)
WHERE error_type <> 'settled'
ORDER BY appended_at DESC, "offset" DESC, event_id
