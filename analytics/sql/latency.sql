-- How long decisions took, and from sending a live turn to its delivery, by tier, agent or hour.
-- group cost
-- param by: one of tier, agent, hour = tier
WITH told AS (
    SELECT d.mode, d.duration_us,
        CASE $by
            WHEN 'tier' THEN d.tier
            WHEN 'agent' THEN d.recipient
            WHEN 'hour' THEN strftime(d.occurred_at, '%Y-%m-%d %H:00')
        END AS part,
        -- A delivery is appended in one transaction with its decision.
        CASE WHEN d.mode = 'live' AND t.traffic = 'live'
            THEN date_diff('microsecond', t.occurred_at, d.appended_at) / 1000.0 END AS ms
    FROM decisions d LEFT JOIN turns t ON t.event_id = d.turn_id
)
-- 500 ms is what a live turn may take to its recipient.
SELECT mode, part, count(*) AS decisions,
    quantile_cont(duration_us, 0.5) AS p50_us, quantile_cont(duration_us, 0.95) AS p95_us,
    quantile_cont(duration_us, 0.99) AS p99_us, count(ms) AS delivered,
    quantile_cont(ms, 0.5) AS delivery_p50_ms, quantile_cont(ms, 0.95) AS delivery_p95_ms,
    quantile_cont(ms, 0.99) AS delivery_p99_ms, count(*) FILTER (ms > 500) AS over_500_ms
FROM told
GROUP BY mode, part
ORDER BY mode, part
