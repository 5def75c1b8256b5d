-- Who used which secret, when, and who was denied it, the newest first.
-- group security
-- param denied: boolean = false
-- waits for AuditEntry events of secrets: actions such as secret-get, secret-set and secret-rotate
SELECT occurred_at, principal, sender, action, text AS secret, verdict, reason, event_id
FROM audit
WHERE starts_with(action, 'secret-') AND (NOT $denied OR verdict = 'refused')
ORDER BY occurred_at DESC, event_id
