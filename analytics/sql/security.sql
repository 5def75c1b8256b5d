-- Turns tagged #security, the first response to each, and the seconds until that.
-- group security
WITH alerts AS (
    SELECT conversation_id, correlation_id, event_id, occurred_at, sender, text
    FROM turns WHERE list_contains(tags, 'security')
), responses AS (
    -- Orders, and acts that freeze, block, end or set apart.
    SELECT conversation_id, correlation_id, causation_id, occurred_at, sender,
        concat_ws(' ', command, target, value) AS did, event_id
    FROM control WHERE command IN ('stop', 'override', 'flag', 'budget', 'refuse')
    UNION ALL
    SELECT conversation_id, correlation_id, causation_id, occurred_at, sender,
        action || '(' || arguments || ')', event_id
    FROM tool_calls
    WHERE regexp_matches(lower(action), 'freeze|block|terminate|quarantine|revoke|isolate|suspend')
), paired AS (
    SELECT a.event_id AS alert_id, r.*
    FROM alerts a JOIN responses r ON r.occurred_at >= a.occurred_at AND (
        r.causation_id = a.event_id OR r.conversation_id = a.conversation_id
        OR r.correlation_id = a.correlation_id
    )
    QUALIFY row_number() OVER (PARTITION BY a.event_id ORDER BY r.occurred_at, r.event_id) = 1
)
SELECT a.occurred_at, a.sender, left(a.text, 200) AS text, p.sender AS responded,
    p.did AS response, round(date_diff('microsecond', a.occurred_at, p.occurred_at) / 1e6, 3)
        AS to_contain_s,
    a.conversation_id, a.event_id
FROM alerts a LEFT JOIN paired p ON p.alert_id = a.event_id
ORDER BY a.occurred_at DESC, a.event_id
