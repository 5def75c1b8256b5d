-- Records that a processor gave up on, with the error, newest first; settled by a retry or not.
SELECT appended_at, processor,
    record_topic || '/' || record_partition || '@' || record_offset AS record,
    error_type, error, attempts,
    event_id IN (
        -- The event that settles a letter is a dead letter too, and names it as its cause.
        SELECT causation_id FROM dead_letters
        WHERE error_type = 'settled' AND causation_id IS NOT NULL
    ) AS settled,
    event_id
FROM dead_letters
WHERE error_type <> 'settled'
ORDER BY appended_at DESC, "offset" DESC, event_id
