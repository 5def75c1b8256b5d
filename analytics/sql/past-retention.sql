-- What is still there past its topic's retention, and which keys were destroyed to erase the rest.
-- group proof
-- waits for KeyChanged events: until then nothing proves that a person's data was erased
WITH seen AS (
    SELECT topic, kind, appended_at, max(appended_at) OVER () AS newest, CASE
        WHEN starts_with(topic, 'mad.inbox.') THEN 7
        WHEN topic = 'mad.system' THEN 365 END AS kept_days
    FROM events
)
-- A topic without days is kept for ever.
SELECT topic, kept_days, count(*) AS events,
    count(*) FILTER (appended_at < newest - to_days(kept_days)) AS past,
    min(appended_at) AS oldest_at, count(*) FILTER (kind = 'KeyChanged') AS key_changes
FROM seen
GROUP BY topic, kept_days
ORDER BY past DESC, topic
