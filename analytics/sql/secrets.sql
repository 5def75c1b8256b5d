-- Each secret: who reads it, how often it was denied, whether it is unused or too old.
-- group security
-- param days: integer = 90
-- waits for AuditEntry events of secrets: actions such as secret-get, secret-set and secret-rotate
WITH used AS (
    SELECT text AS secret, principal, occurred_at, verdict = 'refused' AS denied,
        action IN ('secret-set', 'secret-rotate') AS made
    FROM audit WHERE starts_with(action, 'secret-')
), seen AS (
    -- The log's own time, so that the answer as of a position never changes.
    SELECT max(occurred_at) AS newest FROM audit
)
SELECT secret, max(occurred_at) FILTER (made AND NOT denied) AS set_at,
    date_diff('day', set_at, any_value(newest)) AS age_days,
    coalesce(age_days > $days, false) AS too_old,
    count(*) FILTER (NOT made AND NOT denied) AS reads, reads = 0 AS unused,
    count(*) FILTER (denied) AS times_denied,
    max(occurred_at) FILTER (NOT made AND NOT denied) AS last_read_at,
    list_sort(coalesce(list(DISTINCT principal) FILTER (NOT made AND NOT denied), []))
        AS readers
FROM used, seen
GROUP BY secret
ORDER BY too_old DESC, unused DESC, secret
