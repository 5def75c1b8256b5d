-- Who read many things in a row, each soon after the last, and whether their numbers went up by one.
-- group security
-- param times: integer = 20
-- param pause_s: integer = 600
WITH looked AS (
    SELECT sender, action, occurred_at, arguments, event_id,
        try_cast(regexp_extract(arguments, '([0-9]{1,18})[^0-9]*$', 1) AS BIGINT) AS number
    FROM tool_calls
    WHERE regexp_matches(lower(action),
        '^(get|list|search|find|look|lookup|read|fetch|show|view|query|download|export)(_|-|$)')
), beside AS (
    SELECT *, number = lag(number) OVER before + 1 AS next_number,
        coalesce(occurred_at > lag(occurred_at) OVER before + to_seconds($pause_s::BIGINT), true)
            AS begins
    FROM looked
    WINDOW before AS (PARTITION BY sender, action ORDER BY occurred_at, event_id)
), placed AS (
    SELECT *, count(*) FILTER (begins) OVER (
        PARTITION BY sender, action ORDER BY occurred_at, event_id
    ) AS run
    FROM beside
)
SELECT sender, action, count(*) AS reads, count(DISTINCT arguments) AS things,
    round(count(*) FILTER (next_number AND NOT begins) / (count(*) - 1), 4) AS sequential,
    min(occurred_at) AS first_at, max(occurred_at) AS last_at
FROM placed
GROUP BY sender, action, run
HAVING count(DISTINCT arguments) >= greatest($times, 2)
ORDER BY things DESC, sender, action, first_at
