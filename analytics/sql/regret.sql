-- Where a cheap tier was wrong: what it chose, and what was done or would have been instead.
-- group routing
-- param limit: integer = 50
WITH wrong AS (
    SELECT about_id, causation_id AS evidence, judged_by,
        -- An audit acts on nothing: what the tier above would have done stands in its outcome.
        coalesce('said: ' || (extra->>'text'), extra->>'route') AS did,
        extra->>'arguments' AS did_arguments
    FROM outcomes
    WHERE about = 'decision' AND judged_by IN ('record', 'audit')
    QUALIFY row_number() OVER (
        PARTITION BY about_id, judged_by
        ORDER BY appended_at DESC, partition DESC, "offset" DESC
    ) = 1 AND result <> 'success'
), done AS (
    SELECT event_id, 'action:' || action AS did, arguments AS did_arguments FROM tool_calls
    UNION ALL
    SELECT event_id, 'said: ' || text, NULL FROM turns
)
SELECT d.conversation_id, d.recipient, d.mode, d.tier, d.route, d.arguments,
    coalesce(done.did, wrong.did) AS did,
    coalesce(done.did_arguments, wrong.did_arguments) AS did_arguments, wrong.judged_by, d.reason, d.turn_id, d.event_id AS decision_id
FROM wrong JOIN decisions d ON d.event_id = wrong.about_id AND d.tier <> 'imperator'
    AND (d.mode <> 'live' OR d.audited)
    AND wrong.judged_by = CASE d.mode WHEN 'live' THEN 'audit' ELSE 'record' END
LEFT JOIN done ON done.event_id = wrong.evidence
ORDER BY d.occurred_at DESC, d.event_id
LIMIT $limit
