-- What was promised of each agent's cheap tiers and what was delivered, with a 95 % interval.
-- group routing
WITH judged AS (
    SELECT about_id, judged_by, arg_max(result, (appended_at, partition, "offset")) AS result
    FROM outcomes
    WHERE about = 'decision' AND judged_by IN ('record', 'audit')
    GROUP BY about_id, judged_by
), counted AS (
    -- Live it is the tier above that judges, of the audited share alone: what else is judged was not
    -- picked by chance. In shadow and in retrospect it is what was really done.
    SELECT recipient, mode, tier, max_error, count(*) AS settled, count(result) AS judged,
        count(*) FILTER (result <> 'success') AS wrong
    FROM decisions d LEFT JOIN judged j
        ON j.about_id = d.event_id AND (d.mode <> 'live' OR d.audited)
        AND j.judged_by = CASE d.mode WHEN 'live' THEN 'audit' ELSE 'record' END
    WHERE tier <> 'imperator'
    GROUP BY recipient, mode, tier, max_error
), bounded AS (
    -- The interval is exact (Clopper and Pearson's).
    SELECT *, share_low(wrong, judged) AS low, share_high(wrong, judged) AS high FROM counted
)
SELECT recipient, mode, tier, max_error AS promised_error,
    round(wrong / nullif(judged, 0), 4) AS delivered_error,
    round(low, 4) AS error_low, round(high, 4) AS error_high,
    CASE WHEN low IS NULL THEN 'unknown' WHEN low > max_error THEN 'broken'
        WHEN high <= max_error THEN 'kept' ELSE 'open' END AS verdict,
    settled, judged, wrong
FROM bounded
ORDER BY recipient, mode, tier, promised_error
