-- Which model was in use from when to when, and how it did beside the one before it.
-- group learning
-- param at: time = any
WITH judged AS (
    SELECT about_id, judged_by, arg_max(result, (appended_at, partition, "offset")) AS result
    FROM outcomes
    WHERE about = 'decision' AND judged_by IN ('record', 'audit')
    GROUP BY about_id, judged_by
), used AS (
    SELECT d.recipient, d.mode, d.model_id, any_value(d.model_version) AS model,
        min(d.occurred_at) AS first_at, max(d.occurred_at) AS last_at, count(*) AS decisions,
        count(*) FILTER (d.tier <> 'imperator') / count(*) AS settled,
        count(*) FILTER (j.result = 'success') / nullif(count(j.result), 0) AS success,
        count(j.result) AS judged
    FROM decisions d LEFT JOIN judged j ON j.about_id = d.event_id AND d.tier <> 'imperator'
        AND (d.mode <> 'live' OR d.audited)
        AND j.judged_by = CASE d.mode WHEN 'live' THEN 'audit' ELSE 'record' END
    GROUP BY d.recipient, d.mode, d.model_id
), beside AS (
    SELECT *, lag(model) OVER before AS model_before, lag(settled) OVER before AS settled_before,
        lag(success) OVER before AS success_before
    FROM used
    WINDOW before AS (PARTITION BY recipient, mode ORDER BY first_at, model_id)
)
SELECT recipient, mode, model, first_at, last_at, decisions, round(settled, 4) AS settled_share,
    judged, round(success, 4) AS success, model_before,
    round(settled_before, 4) AS settled_share_before, round(success_before, 4) AS success_before,
    model_id
FROM beside
WHERE $at::TIMESTAMP IS NULL OR $at::TIMESTAMP BETWEEN first_at AND last_at
ORDER BY recipient, mode, first_at, model_id
