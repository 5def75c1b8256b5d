-- Which tier settled the turns, with its share, and promised against delivered error; by mode.
WITH judged AS (
    -- What a cheap tier did has no judge by itself. In shadow and in retrospect it is what was
    -- really done; live it is the tier above, of the audited share alone, so that chance picks it.
    SELECT about_id, judged_by, arg_max(result, (appended_at, partition, "offset")) AS result
    FROM outcomes
    WHERE about = 'decision' AND judged_by IN ('record', 'audit')
    GROUP BY about_id, judged_by
), told AS (
    SELECT d.*, j.result
    FROM decisions d LEFT JOIN judged j ON j.about_id = d.event_id AND d.tier <> 'imperator'
        AND (d.mode <> 'live' OR d.audited)
        AND j.judged_by = CASE d.mode WHEN 'live' THEN 'audit' ELSE 'record' END
), counted AS (
    SELECT mode, tier, settled_by, count(*) AS decisions,
        count(*) / sum(count(*)) OVER (PARTITION BY mode) AS share,
        avg(confidence) AS mean_confidence, avg(max_error) AS promised_error,
        count(*) FILTER (audited) AS audited, count(result) AS judged,
        count(*) FILTER (result <> 'success') AS wrong,
        quantile_cont(duration_us, 0.5) AS p50_us, quantile_cont(duration_us, 0.99) AS p99_us
    FROM told
    GROUP BY mode, tier, settled_by
), measured AS (
    SELECT *, wrong / nullif(judged, 0) AS error, 1.959964 AS z FROM counted
)
-- The interval is Wilson's, at 95 %.
SELECT mode, tier, settled_by, decisions, round(share, 4) AS share,
    round(promised_error, 4) AS promised_error, round(error, 4) AS delivered_error,
    CASE WHEN judged > 0 THEN round(greatest(0, (error + z * z / (2 * judged) - z * sqrt(
        error * (1 - error) / judged + z * z / (4 * judged * judged)
    )) / (1 + z * z / judged)), 4) END AS error_low,
    CASE WHEN judged > 0 THEN round(least(1, (error + z * z / (2 * judged) + z * sqrt(
        error * (1 - error) / judged + z * z / (4 * judged * judged)
    )) / (1 + z * z / judged)), 4) END AS error_high,
    judged, wrong, audited, round(mean_confidence, 4) AS mean_confidence, p50_us, p99_us
FROM measured
ORDER BY mode, decisions DESC, tier
