-- Whose last heartbeat is older than 30 or 90 seconds, and how many minutes each was away.
-- group faults
-- waits for Heartbeat events
WITH seen AS (
    -- The log's own time, so that the answer as of a position never changes.
    SELECT max(appended_at) AS newest FROM events
), beats AS (
    SELECT sender AS agent, appended_at, date_diff('microsecond', appended_at,
        coalesce(lead(appended_at) OVER next, newest)) / 1e6 AS until_next_s
    FROM events, seen
    WHERE kind = 'Heartbeat'
    WINDOW next AS (PARTITION BY sender ORDER BY appended_at, partition, "offset")
), told AS (
    SELECT agent, count(*) AS heartbeats, max(appended_at) AS last_at,
        date_diff('microsecond', max(appended_at), any_value(newest)) / 1e6 AS age_s,
        fsum(until_next_s - 90) FILTER (until_next_s > 90) / 60 AS away_min
    FROM beats, seen
    GROUP BY agent
)
SELECT agent, CASE WHEN age_s > 90 THEN 'disconnected' WHEN age_s > 30 THEN 'stale'
    ELSE 'healthy' END AS state, round(age_s, 1) AS age_s, last_at, heartbeats,
    round(coalesce(away_min, 0), 1) AS away_min
FROM told
ORDER BY age_s DESC, agent
