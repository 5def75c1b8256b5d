-- Decisions that ended in failure or in part: what was to be done, and what was seen instead.
-- group faults
-- param limit: integer = 100
WITH newest AS (
    SELECT about_id, judged_by, result, extra, causation_id AS evidence, appended_at, partition,
        "offset"
    FROM outcomes
    -- What is credited from a conversation's end says nothing of what a decision came to.
    WHERE about = 'decision' AND judged_by <> 'credit'
    QUALIFY row_number() OVER (
        PARTITION BY about_id, judged_by ORDER BY appended_at DESC, partition DESC, "offset" DESC
    ) = 1 AND extra->>'withdrawn' IS NULL
), seen AS (
    SELECT event_id, coalesce(error, result) AS effect FROM tool_results
    UNION ALL
    SELECT event_id, sender || ' said: ' || text FROM turns
)
SELECT d.occurred_at, d.conversation_id, d.recipient AS agent, d.mode, d.tier,
    d.route AS expected, d.arguments, n.result, n.judged_by,
    left(coalesce(seen.effect, n.extra->>'reason'), 200) AS observed, d.confidence,
    d.event_id AS decision_id
FROM newest n JOIN decisions d ON d.event_id = n.about_id
LEFT JOIN seen ON seen.event_id = n.evidence
WHERE n.result IN ('failure', 'partial')
ORDER BY d.occurred_at DESC, d.event_id, n.judged_by
LIMIT $limit
