-- What was promised of each agent's cheap tiers and what was delivered, with a 95 % interval.
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
), measured AS (
    SELECT *, wrong / nullif(judged, 0) AS error, 1.959964 AS z FROM counted
), bounded AS (
    -- The interval is Wilson's.
    SELECT *, (error + z * z / (2 * judged)) / (1 + z * z / judged) AS middle,
        z * sqrt(error * (1 - error) / judged + z * z / (4 * judged * judged))
            / (1 + z * z / judged) AS half
    FROM measured
)
SELECT recipient, mode, tier, max_error AS promised_error, round(error, 4) AS delivered_error,
    CASE WHEN half IS NOT NULL THEN round(greatest(0, middle - half), 4) END AS error_low,
    CASE WHEN half IS NOT NULL THEN round(least(1, middle + half), 4) END AS error_high,
    CASE WHEN half IS NULL THEN 'unknown' WHEN middle - half > max_error THEN 'broken'
        WHEN middle + half <= max_error THEN 'kept' ELSE 'open' END AS verdict,
    settled, judged, wrong
FROM bounded
ORDER BY recipient, mode, tier, promised_error
