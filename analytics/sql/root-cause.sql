-- What led to an event: its cause, the cause of that, and so on back to the first.
-- group conversations
-- param event: text
WITH RECURSIVE known AS (
    SELECT event_id, causation_id, kind, sender, conversation_id, occurred_at,
        coalesce(nullif(left(trim(regexp_replace(coalesce(
            array_to_string(json_extract_string(payload, '$.parts[*].text'), ''), ''
        ), '\s+', ' ', 'g')), 120), ''), payload->>'action', payload->>'change',
            payload->>'route', payload->>'model', payload->>'result') AS what
    FROM events
    -- An event that stands twice led to one thing only.
    QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY topic, partition, "offset") = 1
), chain AS (
    SELECT *, 0 AS steps_back, [event_id] AS path FROM known WHERE event_id = $event
    UNION ALL
    SELECT known.*, steps_back + 1, list_append(path, known.event_id)
    FROM chain JOIN known ON known.event_id = chain.causation_id
    WHERE NOT list_contains(path, known.event_id)
)
SELECT steps_back, kind, sender, what, conversation_id, occurred_at,
    causation_id IS NOT NULL AND causation_id NOT IN (SELECT event_id FROM known)
        AS cause_not_in_log,
    event_id
FROM chain
ORDER BY steps_back
