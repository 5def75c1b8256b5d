-- Turns after hours, bursts of new conversations, messages of one size: what a watcher looks at.
-- group security
-- param imported: boolean = false
-- waits for events with a place: until then travel that is impossible cannot be seen
WITH said AS (
    -- The times of imported turns may be made up.
    SELECT sender, sender_kind, conversation_id, occurred_at, length(text) AS size,
        hour(occurred_at) AS hour
    FROM turns WHERE $imported OR traffic <> 'imported'
), by_hour AS (
    SELECT sender, hour, count(*) AS turns, sum(count(*)) OVER (PARTITION BY sender) AS of_all,
        min(occurred_at) AS first_at, max(occurred_at) AS last_at
    FROM said
    GROUP BY sender, hour
), begun AS (
    SELECT sender, occurred_at, count(*) OVER (
        PARTITION BY sender ORDER BY occurred_at
        RANGE BETWEEN INTERVAL 10 MINUTES PRECEDING AND CURRENT ROW
    ) AS in_ten_minutes
    FROM conversation_changes
    WHERE change = 'created' AND ($imported OR sender_kind <> 'import')
), signals AS (
    SELECT 'after hours' AS signal, sender, turns AS times, first_at, last_at,
        hour || ' o''clock, ' || round(100 * turns / of_all, 2) || ' % of its turns' AS detail
    FROM by_hour
    WHERE of_all >= 100 AND turns / of_all < 0.01
    UNION ALL
    SELECT 'burst of conversations', sender, max(in_ten_minutes), min(occurred_at),
        max(occurred_at), 'begun in 10 minutes'
    FROM begun
    WHERE in_ten_minutes >= 20
    GROUP BY sender, date_trunc('day', occurred_at)
    UNION ALL
    -- Agents speak in set phrases; from outside one size again and again is a machine's.
    SELECT 'one size', sender, count(*), min(occurred_at), max(occurred_at),
        size || ' characters, in ' || count(DISTINCT conversation_id) || ' conversations'
    FROM said
    WHERE sender_kind IN ('human', 'gateway') AND size >= 100
    GROUP BY sender, size, date_trunc('hour', occurred_at)
    HAVING count(*) >= 10
)
SELECT signal, sender, times, first_at, last_at, detail
FROM signals
ORDER BY first_at DESC, signal, sender, detail
