-- Which acts waited for a person, who approved or refused each, and how long that took.
-- group security
WITH asked AS (
    SELECT about_id, occurred_at, target, value, expires_at, conversation_id
    FROM control
    -- What does not say an act asks for nothing: the guards pass over it too.
    WHERE command = 'ask' AND expires_at IS NOT NULL
        AND CASE WHEN json_valid(value) THEN value->>'action' END IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY about_id ORDER BY "offset") = 1
), answered AS (
    -- The first answer counts; an approval after the time was up changes nothing.
    SELECT c.about_id, c.command, c.sender, c.occurred_at, c.reason
    FROM control c JOIN asked a ON a.about_id = c.about_id
    WHERE c.command IN ('refuse', 'expire')
        OR (c.command = 'approve' AND c.occurred_at < a.expires_at)
    QUALIFY row_number() OVER (PARTITION BY c.about_id ORDER BY c."offset") = 1
)
SELECT a.occurred_at AS asked_at, a.target AS agent, a.value->>'action' AS action,
    (a.value->'arguments')::VARCHAR AS arguments,
    CASE n.command WHEN 'approve' THEN 'approved' WHEN 'refuse' THEN 'refused'
        WHEN 'expire' THEN 'expired' ELSE 'waits' END AS answer,
    n.sender AS answered_by, n.occurred_at AS answered_at,
    round(date_diff('microsecond', a.occurred_at, n.occurred_at) / 1e6, 3) AS waited_s,
    n.reason, a.conversation_id, a.about_id AS decision_id
FROM asked a LEFT JOIN answered n ON n.about_id = a.about_id
ORDER BY a.occurred_at DESC, a.about_id
