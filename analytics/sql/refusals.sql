-- Who was refused what: acts that a guard stopped, and accesses that were denied, by identity.
-- group security
-- waits for AuditEntry events about joins and sends: until then guards and SQL are told of
WITH refused AS (
    SELECT d.recipient AS identity, 'act' AS what, o.extra->>'action' AS asked,
        o.judged_by AS refused_by, o.extra->>'reason' AS reason, o.occurred_at,
        o.conversation_id, o.event_id
    FROM outcomes o LEFT JOIN decisions d ON d.event_id = o.about_id
    WHERE starts_with(o.judged_by, 'guard-')
    UNION ALL
    SELECT principal, action, left(text, 200), sender, reason, occurred_at, conversation_id,
        event_id
    FROM audit WHERE verdict = 'refused'
)
SELECT identity, what, asked, refused_by, reason, occurred_at, conversation_id, event_id
FROM refused
ORDER BY occurred_at DESC, event_id
