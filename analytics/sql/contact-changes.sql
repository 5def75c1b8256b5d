-- Who began or ceased to address whom, and by how much, against the same time before.
-- group agents
-- param days: integer = 7
WITH said AS (
    SELECT sender, unnest(recipients) AS recipient,
        max(occurred_at) OVER () - occurred_at AS ago
    FROM turns
), counted AS (
    SELECT sender, recipient,
        count(*) FILTER (ago >= to_days($days::INTEGER)) AS turns_before,
        count(*) FILTER (ago < to_days($days::INTEGER)) AS turns_now
    FROM said
    WHERE ago < to_days(2 * $days::INTEGER)
    GROUP BY sender, recipient
)
SELECT sender, recipient, turns_before, turns_now,
    CASE WHEN turns_before = 0 THEN 'new' WHEN turns_now = 0 THEN 'gone'
        WHEN turns_now > turns_before THEN 'more' ELSE 'less' END AS change
FROM counted
WHERE turns_now <> turns_before
ORDER BY abs(turns_now - turns_before) DESC, sender, recipient
