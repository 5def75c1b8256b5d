-- Turns whose decision by a cheap tier a higher tier contradicted later, and what that chose.
-- group routing
-- param tier: one of dtr, lppm = dtr
WITH told AS (
    SELECT about_id, judged_by, causation_id AS evidence, extra, occurred_at
    FROM outcomes
    WHERE about = 'decision' AND judged_by IN ('audit', 'correction')
    QUALIFY row_number() OVER (
        PARTITION BY about_id, judged_by ORDER BY appended_at DESC, partition DESC, "offset" DESC
    ) = 1 AND result <> 'success' AND extra->>'withdrawn' IS NULL
)
SELECT d.conversation_id, d.recipient, d.mode, d.route, d.arguments, d.confidence,
    told.judged_by AS contradicted_by, higher.tier AS by_tier,
    coalesce(higher.route, told.extra->>'route') AS chose,
    coalesce(higher.arguments, told.extra->>'arguments') AS chose_arguments,
    told.occurred_at AS contradicted_at, d.turn_id, d.event_id AS decision_id
FROM told JOIN decisions d ON d.event_id = told.about_id AND d.tier = $tier
-- A correction's evidence is the later Decision, an audit's the call of the language model.
LEFT JOIN decisions higher ON higher.event_id = told.evidence
ORDER BY told.occurred_at DESC, d.event_id, contradicted_by
