-- How each model went live, step by step: who said it and why, and how both sides did at each stage.
-- group learning
WITH steps AS (
    SELECT *, lead(place) OVER (ORDER BY place) AS until
    FROM (SELECT *, row_number() OVER (ORDER BY appended_at, "offset") AS place FROM control)
    WHERE command = 'rollout'
), places AS (
    SELECT event_id, row_number() OVER (ORDER BY appended_at, "offset") AS place FROM control
), spoken AS (
    -- Each judge's newest word on a decision, unless it was withdrawn.
    SELECT about_id, judged_by, result, appended_at, partition, "offset"
    FROM outcomes
    WHERE about = 'decision'
    QUALIFY row_number() OVER (
        PARTITION BY about_id, judged_by ORDER BY appended_at DESC, partition DESC, "offset" DESC
    ) = 1 AND extra->>'withdrawn' IS NULL
), judged AS (
    -- The strongest judge counts, of equals the newest: docs/outcomes.md.
    SELECT about_id, result
    FROM spoken
    QUALIFY row_number() OVER (PARTITION BY about_id ORDER BY CASE judged_by
        WHEN 'thumbs' THEN 0 WHEN 'reward' THEN 1 WHEN 'report' THEN 2 WHEN 'audit' THEN 4
        WHEN 'correction' THEN 5 WHEN 'tool' THEN 6 WHEN 'error' THEN 7 WHEN 'timeout' THEN 8
        WHEN 'credit' THEN 9 WHEN 'ack' THEN 10 WHEN 'repeat' THEN 11
        WHEN 'clarification' THEN 12 ELSE 3 END,
        appended_at DESC, partition DESC, "offset" DESC
    ) = 1
), recorded AS (
    SELECT about_id, result FROM spoken WHERE judged_by = 'record'
), decided AS (
    -- A candidate in shadow is judged by the record of what was done, what acted by its verdict.
    SELECT s.event_id AS step_id, d.model_id = s.about_id AS candidate, d.tier <> 'imperator' AS settled,
        CASE WHEN d.mode = 'shadow' THEN r.result ELSE j.result END AS result
    FROM steps s
    JOIN decisions d ON d.mode = 'live' OR (d.mode = 'shadow' AND d.model_id = s.about_id)
    JOIN places p ON p.event_id = d.control_id AND p.place >= s.place
        AND (s.until IS NULL OR p.place < s.until)
    LEFT JOIN judged j ON j.about_id = d.event_id
    LEFT JOIN recorded r ON r.about_id = d.event_id
    WHERE s.value <> 'back' AND (d.mode = 'shadow') = (s.value = 'shadow' AND d.model_id = s.about_id)
), counted AS (
    SELECT step_id, candidate, count(*) AS decisions, count(*) FILTER (settled) AS settled,
        count(*) FILTER (result IN ('success', 'failure')) AS judged,
        count(*) FILTER (result = 'success') AS succeeded
    FROM decided
    GROUP BY step_id, candidate
)
SELECT m.version AS model, s.target AS component, s.value AS stage, s.appended_at,
    s.sender AS said_by, s.reason, own.decisions, own.settled, own.judged,
    round(own.succeeded / nullif(own.judged, 0), 4) AS success,
    other.decisions AS other_decisions, other.settled AS other_settled,
    other.judged AS other_judged,
    round(other.succeeded / nullif(other.judged, 0), 4) AS other_success, s.about_id AS model_id,
    s.event_id AS control_id
FROM steps s
LEFT JOIN models m ON m.event_id = s.about_id
LEFT JOIN counted own ON own.step_id = s.event_id AND own.candidate
LEFT JOIN counted other ON other.step_id = s.event_id AND NOT other.candidate
ORDER BY s.place, s.event_id
