-- What each model that was learned settled, out of how much, and how often it was wrong.
-- group learning
WITH judged AS (
    SELECT about_id, judged_by, arg_max(result, (appended_at, partition, "offset")) AS result
    FROM outcomes
    WHERE about = 'decision' AND judged_by IN ('record', 'audit')
    GROUP BY about_id, judged_by
), told AS (
    SELECT d.model_id, d.mode, d.tier <> 'imperator' AS settled, d.max_error, j.result
    FROM decisions d LEFT JOIN judged j ON j.about_id = d.event_id AND d.tier <> 'imperator'
        AND (d.mode <> 'live' OR d.audited)
        AND j.judged_by = CASE d.mode WHEN 'live' THEN 'audit' ELSE 'record' END
), counted AS (
    SELECT model_id, mode, count(*) AS decisions, count(*) FILTER (settled) AS settled,
        avg(max_error) AS promised_error, count(result) AS judged,
        count(*) FILTER (result <> 'success') AS wrong
    FROM told
    GROUP BY model_id, mode
)
SELECT version AS model, mode, decisions, settled,
    round(settled / nullif(decisions, 0), 4) AS share, round(promised_error, 4) AS promised_error,
    round(wrong / nullif(judged, 0), 4) AS delivered_error, judged, wrong,
    (metrics->>'conversations')::BIGINT AS conversations_seen,
    (metrics->>'conversations_learned')::BIGINT AS conversations_learned,
    component, mad, code_version, m.event_id AS model_id
FROM models m LEFT JOIN counted c ON c.model_id = m.event_id
WHERE component <> 'process'
ORDER BY m.appended_at, m."offset", mode
