-- How the log grows: events and bytes of payload by topic and period of appending, and in all.
-- group cost
-- param by: one of hour, day, week, month, year = day
WITH grown AS (
    SELECT date_trunc($by, appended_at) AS period, topic, count(*) AS events,
        sum(strlen(payload::VARCHAR))::BIGINT AS payload_bytes
    FROM events
    GROUP BY period, topic
)
SELECT period, topic, events, payload_bytes,
    sum(events) OVER so_far::BIGINT AS events_so_far,
    sum(payload_bytes) OVER so_far::BIGINT AS payload_bytes_so_far
FROM grown
WINDOW so_far AS (PARTITION BY topic ORDER BY period)
ORDER BY period, topic
