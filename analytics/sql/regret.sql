-- Where a cheap tier would have been wrong: what it chose, and what was done instead.
-- param limit: integer = 50
WITH wrong AS (
    SELECT about_id, causation_id AS evidence, judged_by
    FROM outcomes
    WHERE about = 'decision' AND judged_by IN ('record', 'audit', 'correction')
    QUALIFY row_number() OVER (
        PARTITION BY about_id ORDER BY appended_at DESC, partition DESC, "offset" DESC
    ) = 1 AND result <> 'success'
), done AS (
    SELECT event_id, 'action:' || action AS did, arguments AS did_arguments FROM tool_calls
    UNION ALL
    SELECT event_id, 'said: ' || text, NULL FROM turns
)
SELECT d.conversation_id, d.recipient, d.mode, d.tier, d.route, d.arguments,
    done.did, done.did_arguments, wrong.judged_by, d.reason, d.turn_id, d.event_id AS decision_id
FROM wrong JOIN decisions d ON d.event_id = wrong.about_id AND d.tier <> 'imperator'
LEFT JOIN done ON done.event_id = wrong.evidence
ORDER BY d.occurred_at DESC, d.event_id
LIMIT $limit
