-- Turns by content class (deterministic, fixed, prose, mixed), by day or by agent.
-- group agents
-- param by: one of day, agent = day
WITH told AS (
    SELECT content_class, CASE $by
        WHEN 'day' THEN strftime(occurred_at, '%Y-%m-%d')
        WHEN 'agent' THEN sender
    END AS part
    FROM turns
)
SELECT part, content_class, count(*) AS turns,
    round(count(*) / sum(count(*)) OVER (PARTITION BY part), 4) AS share
FROM told
GROUP BY part, content_class
ORDER BY part, turns DESC, content_class
