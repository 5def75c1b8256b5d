-- How fast each topic grows, in events and bytes of payload a day, and where that leads.
-- group cost
-- param days: integer = 30
WITH grown AS (
    SELECT topic, date_trunc('day', appended_at) AS day, count(*) AS events,
        sum(strlen(payload::VARCHAR)) AS bytes, max(date_trunc('day', max(appended_at))) OVER ()
            AS last_day
    FROM events
    GROUP BY topic, day
), counted AS (
    SELECT topic, sum(events)::BIGINT AS events, sum(bytes)::BIGINT AS payload_bytes,
        -- Days without an event count too.
        CASE WHEN $days < 1 THEN error('days is at least 1')
            ELSE least($days, date_diff('day', min(day), any_value(last_day)) + 1)
        END AS over_days,
        coalesce(sum(events) FILTER (date_diff('day', day, last_day) < $days), 0) AS events_lately,
        coalesce(sum(bytes) FILTER (date_diff('day', day, last_day) < $days), 0) AS bytes_lately
    FROM grown
    GROUP BY topic
), told AS (
    SELECT *, events_lately / over_days AS events_a_day, bytes_lately / over_days AS bytes_a_day
    FROM counted
)
SELECT topic, events, payload_bytes, over_days, round(events_a_day, 1) AS events_a_day,
    round(bytes_a_day)::BIGINT AS bytes_a_day,
    round(payload_bytes + 30 * bytes_a_day)::BIGINT AS bytes_in_30_days,
    round(payload_bytes + 365 * bytes_a_day)::BIGINT AS bytes_in_a_year
FROM told
ORDER BY bytes_a_day DESC, topic
