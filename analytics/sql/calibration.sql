-- How sure the cheap tiers said they were, and how often they were right; by confidence and model.
-- group routing
-- param by_model: boolean = true
WITH bands (confidence_from, confidence_to) AS (
    -- Narrower towards 1, where promises live.
    SELECT unnest([0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99])::DOUBLE,
        unnest([0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1])::DOUBLE
), judged AS (
    -- Live the tier above judges, the audited share alone; else it is what was really done.
    SELECT about_id, judged_by, arg_max(result, (appended_at, partition, "offset")) AS result
    FROM outcomes
    WHERE about = 'decision' AND judged_by IN ('record', 'audit')
    GROUP BY about_id, judged_by
), told AS (
    SELECT d.mode, d.tier, d.confidence, j.result, b.*,
        CASE WHEN $by_model THEN d.model_id END AS model_id,
        CASE WHEN $by_model THEN d.model_version END AS model
    FROM decisions d JOIN bands b ON d.confidence >= b.confidence_from
        AND (d.confidence < b.confidence_to OR b.confidence_to = 1)
    LEFT JOIN judged j ON j.about_id = d.event_id AND (d.mode <> 'live' OR d.audited)
        AND j.judged_by = CASE d.mode WHEN 'live' THEN 'audit' ELSE 'record' END
    WHERE d.tier <> 'imperator'
), counted AS (
    SELECT mode, tier, model, model_id, confidence_from, confidence_to, count(*) AS decisions,
        count(result) AS judged, count(*) FILTER (result = 'success') AS right_ones,
        coalesce(favg(confidence) FILTER (result IS NOT NULL), favg(confidence)) AS stated
    FROM told
    GROUP BY ALL
), measured AS (
    SELECT *, right_ones / nullif(judged, 0) AS delivered, share_low(right_ones, judged) AS low,
        share_high(right_ones, judged) AS high
    FROM counted
)
-- The interval is exact (Clopper and Pearson's), at 95 %. The calibration error is the mean distance
-- of what was stated from what was delivered, each band by its judged decisions.
SELECT mode, tier, model, confidence_from, confidence_to, c.decisions, judged,
    right_ones AS "right", round(stated, 4) AS stated, round(delivered, 4) AS delivered,
    round(low, 4) AS delivered_low, round(high, 4) AS delivered_high,
    CASE WHEN low IS NULL THEN 'unknown' WHEN stated > high THEN 'too sure'
        WHEN stated < low THEN 'too unsure' ELSE 'fits' END AS verdict,
    round(fsum(judged * abs(stated - delivered)) OVER whole / sum(judged) OVER whole, 4)
        AS calibration_error,
    c.model_id
FROM measured c LEFT JOIN models m ON m.event_id = c.model_id
WINDOW whole AS (PARTITION BY mode, tier, c.model_id)
ORDER BY mode, tier, m.appended_at, m."offset", c.model_id, confidence_from
